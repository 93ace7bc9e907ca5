"""Released leases: which rows a flush writes again after a miss or an error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from unittest.mock import create_autospec

import pytest

from spine.kernel.wakeups import Wakeups
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, Placement
from workers.webhooks.leases import Leases

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class _FakeDatabase:
    """A database where each call writes the ids of the next script entry; None breaks the connection."""

    def __init__(self, *script: set[str] | None) -> None:
        self.script = list(script)
        self.requests: list[str] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self

    async def fetch(self, _: str, workspace_ids: list[str], ids: list[str], *__: object) -> list[dict[str, str]]:
        assert len(workspace_ids) == len(ids)
        self.requests.append("".join(ids))
        written = self.script.pop(0) if self.script else set()
        if written is None:
            raise OSError("gone")
        return [{"id": id} for id in ids if id in written]


def _leases(database: _FakeDatabase) -> Leases:
    leases = Leases(
        cast("Any", None), create_autospec(EndpointQueues), create_autospec(Wakeups, instance=True), "me", 30
    )
    leases._db = cast("Any", database)
    for name in "abc":
        job = DeliveryJob("wsp", name, f"evt_{name}", "a.b", "whe_1", 0, 1, None, NOW, b"{}", 1e9, None)
        leases.release(job, Placement.PARKED)
    return leases


@pytest.mark.parametrize(
    ("script", "requests"),
    [
        ([{"a", "b", "c"}], ["abc"]),
        ([{"a"}, {"b", "c"}], ["abc", "bc"]),
        ([{"a"}, {"b"}, {"c"}], ["abc", "bc", "c"]),
        ([{"a"}, set()], ["abc", "bc"]),
        ([set(), {"a", "b", "c"}], ["abc", "abc"]),
    ],
)
async def test_only_missed_rows_are_released_again(script: list[set[str] | None], requests: list[str]) -> None:
    """A released row is not written again, because this process may have claimed it again. It ends if no row is found."""
    database = _FakeDatabase(*script)
    await _leases(database).flush()
    assert database.requests == requests


async def test_unwritten_rows_survive_an_error() -> None:
    """If the connection breaks, the next flush writes only the rows that are not written."""
    database = _FakeDatabase({"a"}, None, {"b", "c"})
    leases = _leases(database)
    with pytest.raises(OSError, match="gone"):
        await leases.flush()
    await leases.flush()
    assert database.requests == ["abc", "bc", "bc"]
