"""The catalogue of event types."""

import pytest
from pydantic import BaseModel

from spine.kernel.events import Catalogue, EventType


class _Data(BaseModel):
    n: int = 1


def test_an_event_type_is_declared_once() -> None:
    """Two declarations of one name raise an error when the catalogue is built."""
    with pytest.raises(ValueError, match="twice"):
        Catalogue([EventType("a.b", _Data, "x"), EventType("a.b", _Data, "y")])
