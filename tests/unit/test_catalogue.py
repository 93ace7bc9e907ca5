"""Catalogues of events, and the patterns that listen to them."""

import pytest
from pydantic import BaseModel

from spine.events import Catalogue, EventType
from spine.webhooks.patterns import candidates


class _Data(BaseModel):
    n: int = 1


def test_a_type_is_declared_once() -> None:
    """Two declarations of one name are a mistake that is seen when the catalogue is made."""
    with pytest.raises(ValueError, match="twice"):
        Catalogue([EventType("a.b", _Data, "x"), EventType("a.b", _Data, "y")])


def test_candidates_are_what_matches() -> None:
    """A type is met by itself, by each of its families, and by all."""
    assert candidates("a.b.c") == ("a.b.c", "a.b.*", "a.*", "*")
