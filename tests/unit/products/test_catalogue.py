"""The catalogue of event types."""

import pytest
from pydantic import BaseModel

from spine.kernel.events import Catalogue, EventType


class _Data(BaseModel):
    n: int = 1


def test_a_shared_type_stands_for_those_of_the_products() -> None:
    """A type that is declared as shared may be declared by several products; its shared declaration is in the catalogue."""
    shared = EventType("a.b", _Data, "Either.")
    catalogue = Catalogue([EventType("a.b", _Data, "x"), EventType("a.b", _Data, "y")], shared=[shared])
    assert catalogue.types == {"a.b": shared}
    assert catalogue.shared == {"a.b"}


def test_an_event_type_is_declared_once() -> None:
    """Two declarations of one name raise an error when the catalogue is built."""
    with pytest.raises(ValueError, match="twice"):
        Catalogue([EventType("a.b", _Data, "x"), EventType("a.b", _Data, "y")])
