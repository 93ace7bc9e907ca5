"""A long calculation gives turns."""

import asyncio
from types import SimpleNamespace

import pytest

from spine.kernel import turns as module
from spine.kernel.turns import Turns


async def test_others_get_a_turn_after_10_ms_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, since a turn costs time too; and after each 10 ms again."""
    now_s = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now_s))
    turns_of_others = 0

    async def other() -> None:
        nonlocal turns_of_others
        while True:
            turns_of_others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    turns = Turns()
    for now_s, expected in ((0.009, 0), (0.011, 1), (0.012, 1), (0.03, 2)):  # noqa: B007  # the clock reads it
        await turns.give()
        assert turns_of_others == expected
    task.cancel()
