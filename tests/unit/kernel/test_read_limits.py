"""How the reads of one workspace wait for each other, and for nobody else."""

import asyncio

import pytest

from spine.kernel.errors import TooManyRequests
from spine.kernel.read_limits import ReadLimits


async def read(limits: ReadLimits, workspace: str, until: asyncio.Event, running: list[str]) -> None:
    """A read that runs until the event."""
    async with limits.hold(workspace):
        running.append(workspace)
        await until.wait()
        running.remove(workspace)


async def test_a_workspace_waits_for_itself_alone() -> None:
    """With 2 places, two of six reads run; another workspace's read runs at once; then the others have their turn."""
    limits, until, running = ReadLimits(2, timeout_s=30), asyncio.Event(), []  # type: ignore[var-annotated]
    reads = [asyncio.create_task(read(limits, "a", until, running)) for _ in range(6)]
    await asyncio.sleep(0)
    other = asyncio.create_task(read(limits, "b", until, running))
    await asyncio.sleep(0.01)
    assert sorted(running) == ["a", "a", "b"]
    until.set()
    await asyncio.gather(*reads, other)
    assert running == []


async def test_reads_are_refused_when_too_many_wait() -> None:
    """One place and 16 waiting reads: the next one is refused at once, and the rest still run."""
    limits, until, running = ReadLimits(1, timeout_s=30), asyncio.Event(), []  # type: ignore[var-annotated]
    reads = [asyncio.create_task(read(limits, "a", until, running)) for _ in range(17)]
    await asyncio.sleep(0.01)
    with pytest.raises(TooManyRequests) as refused:
        await read(limits, "a", until, running)
    assert (refused.value.code, refused.value.status) == ("too_many_reads", 429)
    until.set()
    await asyncio.gather(*reads)


async def test_a_read_that_gets_no_turn_is_refused() -> None:
    """After the timeout a waiting read is refused, and its place is not lost: later reads run."""
    limits, until, running = ReadLimits(1, timeout_s=0.02), asyncio.Event(), []  # type: ignore[var-annotated]
    first = asyncio.create_task(read(limits, "a", until, running))
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await read(limits, "a", until, running)
    until.set()
    await first
    await read(limits, "a", until, running)


async def test_a_cancelled_read_gives_its_place_back() -> None:
    """A caller that leaves while it waits, or while it reads, keeps no place."""
    limits, until, running = ReadLimits(1, timeout_s=30), asyncio.Event(), []  # type: ignore[var-annotated]
    reads = [asyncio.create_task(read(limits, "a", until, running)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for task in reversed(reads):
        task.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    until.set()
    await read(limits, "a", until, [])
