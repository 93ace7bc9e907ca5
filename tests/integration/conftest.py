"""What the tests of this room share: the API in this process, an engine in a database of its own, and a receiver."""

from collections.abc import AsyncIterator

import pytest

from tests.api import api, http, live_http, org
from tests.delivery_engine import Engine, running_engine
from tests.receiver import Receiver

__all__ = ["api", "http", "live_http", "org"]


@pytest.fixture
async def engine(database: str, redis_url: str) -> AsyncIterator[Engine]:
    """A workspace in a database of its own."""
    async with running_engine(database, redis_url) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    async with Receiver() as made:
        yield made
