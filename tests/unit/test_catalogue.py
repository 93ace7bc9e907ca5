"""The catalogue of events and resources."""

import re

import pytest
from pydantic import BaseModel

from products.catalogue import CATALOGUE, PRODUCTS, RESOURCES
from spine.events import Catalogue, EventType
from spine.ids import PREFIXES
from spine.webhooks.patterns import candidates


class _Data(BaseModel):
    n: int = 1


def test_a_type_is_declared_once() -> None:
    """Two declarations of one name are a mistake that is seen when the catalogue is made."""
    with pytest.raises(ValueError, match="twice"):
        Catalogue([EventType("a.b", _Data, "x"), EventType("a.b", _Data, "y")])


@pytest.mark.parametrize("name", CATALOGUE.types)
def test_a_type_has_a_proper_name_and_a_sentence(name: str) -> None:
    """Dotted lower-case words; one line that says when it fires."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+", name)
    text = CATALOGUE.types[name].text
    assert text.endswith(".")
    assert "\n" not in text


def test_every_type_stands_in_one_product() -> None:
    """The products' documents share out the families among them: each is somebody's, none is two's."""
    families = [family for _, families in PRODUCTS.values() for family in families]
    assert sorted(families) == sorted(set(families))
    assert CATALOGUE.families <= set(families)


def test_own_families_are_reserved() -> None:
    """The first word decides, whatever follows."""
    for family in CATALOGUE.families:
        assert CATALOGUE.is_reserved(f"{family}.anything.else")
    assert not CATALOGUE.is_reserved("order.user.created")


def test_every_resource_has_its_prefix_and_its_states_are_closed() -> None:
    """A noun is registered; no move leads to a state that the table does not know."""
    for resource in RESOURCES:
        assert PREFIXES[resource.noun] == resource.prefix
        for targets in resource.states.values():
            assert targets <= resource.states.keys()


def test_candidates_are_what_matches() -> None:
    """A type is met by itself, by each of its families, and by all."""
    assert candidates("a.b.c") == ["a.b.c", "a.b.*", "a.*", "*"]
