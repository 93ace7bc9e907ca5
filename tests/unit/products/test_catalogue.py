"""Catalogues of events."""

import pytest
from pydantic import BaseModel

from spine.kernel.events import Catalogue, EventType


class _Data(BaseModel):
    n: int = 1


def test_a_type_is_declared_once() -> None:
    """Two declarations of one name are a mistake that is seen when the catalogue is made."""
    with pytest.raises(ValueError, match="twice"):
        Catalogue([EventType("a.b", _Data, "x"), EventType("a.b", _Data, "y")])
