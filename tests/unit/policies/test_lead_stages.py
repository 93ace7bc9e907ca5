"""The stages of a lead: the table of products.md 3.2, and what counts as a revival (C-10)."""

import itertools
from typing import get_args

from policies.lead_stages import OPEN, TRANSITIONS, Stage, is_revival, may_follow

STAGES = get_args(Stage)
TABLE = """
new->contacted,qualified,lost,dormant; contacted->qualified,lost,dormant; qualified->converted,lost,dormant;
lost->contacted,qualified; dormant->contacted,qualified; converted->
"""


def test_the_table_is_that_of_the_specification() -> None:
    """Of all 36 pairs exactly those that the page names are moves; no stage follows itself."""
    wanted = {
        (stage.strip(), to)
        for row in TABLE.replace("\n", " ").split(";")
        for stage, _, targets in [row.strip().partition("->")]
        for to in targets.split(",")
        if to
    }
    assert {pair for pair in itertools.product(STAGES, STAGES) if may_follow(*pair)} == wanted
    assert not any(may_follow(stage, stage) for stage in STAGES)
    assert set(TRANSITIONS) == set(STAGES)


def test_a_revival_wakes_a_lead() -> None:
    """Only a move from lost or dormant to a stage that is worked on is a revival; each such move of the table is one."""
    for stage, to in itertools.product(STAGES, STAGES):
        assert is_revival(stage, to) == (stage in {"lost", "dormant"} and to in OPEN)
    assert all(is_revival(stage, to) for stage in ("lost", "dormant") for to in TRANSITIONS[stage])
