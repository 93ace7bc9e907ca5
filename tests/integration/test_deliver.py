"""Delivery end to end inside the engine: events put by SQL, real worker processes, a real receiver."""

from collections.abc import AsyncIterator

import pytest

from tests.engine import Engine, running_engine
from tests.receiver import Receiver


@pytest.fixture
async def engine(database: str, redis_url: str) -> AsyncIterator[Engine]:
    async with running_engine(database, redis_url) as engine:
        yield engine


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def test_event_reaches_every_endpoint_that_matches(engine: Engine, receiver: Receiver) -> None:
    """An accepted event reaches each endpoint whose pattern matches, once, and no other."""
    await engine.endpoint(receiver.url("/exact"), ["thing.happened"])
    await engine.endpoint(receiver.url("/family"), ["thing.*", "*"])
    await engine.endpoint(receiver.url("/other"), ["other.happened"])
    await engine.worker()
    (event_id,) = await engine.publish("thing.happened")
    rows = await engine.until_states(delivered=2)
    assert {call.path for call in receiver.calls} == {"/exact", "/family"}
    assert {call.event_id for call in receiver.calls} == {event_id}
    assert [len(row["attempts"]) for row in rows] == [1, 1]
