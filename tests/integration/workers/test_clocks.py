"""Workers whose machine's clock differs from Postgres' clock, as processes with a real Redis."""

from pathlib import Path
from typing import Any

import pytest

from spine.kernel.redis_client import open_redis
from spine.kernel.wakeups import Wakeups
from tests.delivery_engine import Engine
from tests.receiver import Receiver, ScriptedResponse

SHIFTED_CLOCK = Path(__file__).parent.parent / "fakes" / "shifted_clock"
NEVER_S = 600
"""A sweep that does not come during the test: only wakeups find what is due."""
WAIT = (
    "SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM spine.deliveries_open WHERE leased_by IS NULL"
)


@pytest.mark.parametrize("ahead_s", [-2, 2])
async def test_retries_wait_by_the_databases_clock(
    engine: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    """With a worker 2 s slow or fast, a retry is due one second after the failure, not earlier and not later.

    Its wakeup comes when it is due: nothing else would find it in this test.
    """
    monkeypatch.setenv("PYTHONPATH", str(SHIFTED_CLOCK))
    monkeypatch.setenv("SHIFTED_CLOCK_S", str(ahead_s))
    receiver.script("/hook", ScriptedResponse(500), ScriptedResponse(500))
    await engine.endpoint(receiver.url("/hook"))
    await engine.worker(sweep_s=NEVER_S)
    offset = "SELECT clock_offset_s FROM spine.workers"
    assert await engine.pool.fetchval(offset) == pytest.approx(-ahead_s, abs=1)
    await engine.publish()
    redis = open_redis(engine.redis_url)
    wakeups = Wakeups(redis)
    wakeups.wake("relay")
    await wakeups.close()
    await redis.aclose()
    waits: list[float] = []

    async def delivered() -> Any:
        wait_s = await engine.pool.fetchval(WAIT)
        if wait_s is not None and wait_s > 0:
            waits.append(wait_s)
        return await engine.deliveries(state="delivered")

    (row,) = await engine.until(delivered)
    first, second, third = receiver.calls
    assert second.at_s - first.at_s >= 1.0
    assert third.at_s - second.at_s >= 4.0
    assert max(waits) <= 4.0
    assert waits[0] <= 1.0
    shown = row["attempts"]
    assert [attempt["number"] for attempt in shown] == [1, 2, 3]
    assert shown[1]["started_at"] >= shown[0]["next_attempt_at"]
    now = await engine.pool.fetchval(
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    )
    assert shown[2]["started_at"] <= now
