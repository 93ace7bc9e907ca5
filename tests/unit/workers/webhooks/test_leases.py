"""Leases that are given back: what is written again when a row was missed, and what is not."""

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


class _Desk:
    """A database that writes, of each call, the rows that the script names; None breaks the connection."""

    def __init__(self, *script: set[str] | None) -> None:
        self.script = list(script)
        self.asked: list[list[str]] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self

    async def fetch(self, _: str, workspace_ids: list[str], ids: list[str], *__: object) -> list[dict[str, str]]:
        assert len(workspace_ids) == len(ids)
        self.asked.append(ids)
        written = self.script.pop(0) if self.script else set()
        if written is None:
            raise OSError("gone")
        return [{"id": id} for id in ids if id in written]


def _leases(desk: _Desk) -> Leases:
    leases = Leases(
        cast("Any", None), create_autospec(EndpointQueues), create_autospec(Wakeups, instance=True), "me", 30
    )
    leases._db = cast("Any", desk)
    for name in "abc":
        job = DeliveryJob("wsp", name, f"evt_{name}", "a.b", "whe_1", 0, 1, None, NOW, b"{}", 1e9, None)
        leases.release(job, Placement.PARKED)
    return leases


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        ([{"a", "b", "c"}], ["abc"]),
        ([{"a"}, {"b", "c"}], ["abc", "bc"]),
        ([{"a"}, {"b"}, {"c"}], ["abc", "bc", "c"]),
        ([{"a"}, set()], ["abc", "bc"]),
        ([set(), {"a", "b", "c"}], ["abc", "abc"]),
    ],
)
async def test_only_what_was_missed_is_given_back_again(script: list[set[str] | None], asked: list[str]) -> None:
    """A row that was given back is not named again: this process may have claimed it anew by then. It ends when none is found."""
    desk = _Desk(*script)
    await _leases(desk).flush()
    assert ["".join(ids) for ids in desk.asked] == asked


async def test_a_break_keeps_what_is_not_written() -> None:
    """When the connection breaks, the next flush names what is still to be given back, and only that."""
    desk = _Desk({"a"}, None, {"b", "c"})
    leases = _leases(desk)
    with pytest.raises(OSError, match="gone"):
        await leases.flush()
    await leases.flush()
    assert ["".join(ids) for ids in desk.asked] == ["abc", "bc", "bc"]
