"""Fixtures of the integration tests: the API in this process, an engine with its own database, and a receiver."""

from collections.abc import AsyncIterator

import pytest

from tests.api import api, http, live_http, org
from tests.delivery_engine import Engine, running_engine
from tests.receiver import Receiver

__all__ = ["api", "http", "live_http", "org"]


@pytest.fixture
async def engine(database: str, redis_url: str) -> AsyncIterator[Engine]:
    """A workspace in its own database, with its engine."""
    async with running_engine(database, redis_url) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    async with Receiver() as made:
        yield made
