"""`docs/providers.md` says of each kind of provider account what its models say."""

import re
from typing import Any

import orjson
import pytest

from spine.notifications.provider_kinds import PROVIDER_KINDS
from spine.notifications.templates import TemplateCreate
from tests.contract.test_architecture import ROOT

PAGE = (ROOT / "docs/providers.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table that has this first line, by the kind in their first column."""
    table = PAGE[PAGE.index(heading) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {found[0].strip("`"): found[1:] for found in cells}


@pytest.mark.parametrize("kind", PROVIDER_KINDS)
def test_an_account_is_described_as_it_is(kind: str) -> None:
    """The channels, the fields of credentials and config, and what comes back."""
    models = PROVIDER_KINDS[kind]
    channel, credentials, config = rows("| kind | channel |")[kind]
    assert channel == ("any" if len(models.channels) > 1 else next(iter(models.channels)))
    assert re.findall(r"`(\w+)`", credentials) == [*models.credentials.model_fields]
    assert re.findall(r"`(\w+)`", config) == [*models.config.model_fields]
    _, *abilities = rows("| kind | proof |")[kind]
    assert abilities == ["yes" if able else "no" for able in (models.receipts, models.replies, models.polls)]


def test_the_template_of_the_page_is_one() -> None:
    """Its body is accepted, and its providers' variables are among its own."""
    (body,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    template: Any = TemplateCreate.model_validate(orjson.loads(body))
    assert set(template.provider_templates.variables()) == {"time"}
