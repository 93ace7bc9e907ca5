"""The recorder keeps results until Postgres has them, and one that Postgres refuses holds up no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest

from policies.verdict import Delivered, Failed, Verdict
from spine.kernel.database import open_pool
from spine.kernel.database_clock import DatabaseClock
from spine.kernel.http_client import HttpResponse
from spine.kernel.metrics import results_set_apart
from tests.delivery_engine import Engine
from workers.webhooks.jobs import AttemptResult, DeliveryJob
from workers.webhooks.record import Recorder
from workers.webhooks.set_apart import PUT_OFF_MAX

POISON = b"poison"
_INSERT = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at, leased_by)
    SELECT $1, 'dlv_01M7XZQ13P' || lpad(n::text, 16, '0'), 'evt_' || lpad(n::text, 26, '0'), 'order.paid', $2,
           now() + interval '30 s', now(), 'me'
      FROM generate_series(1, $3) n RETURNING id
"""


async def _leased(engine: Engine, count: int) -> list[DeliveryJob]:
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    rows = await engine.pool.fetch(_INSERT, engine.workspace_id, endpoint.id, count)
    now = datetime.now(UTC)
    return [
        DeliveryJob(engine.workspace_id, row["id"], "evt", "order.paid", endpoint.id, 0, 1, None, now, b"{}", 1e9, None)
        for row in rows
    ]


def _result(job: DeliveryJob, body: bytes = b"ok", verdict: Verdict | None = None) -> AttemptResult:
    response = HttpResponse(200, None, None, body, datetime.now(UTC), 0.1)
    return AttemptResult(job, response, verdict or Delivered())


@asynccontextmanager
async def _recorder(engine: Engine) -> AsyncIterator[tuple[Recorder, set[str]]]:
    """A recorder, and the ids of the deliveries that it has released."""
    pool = await open_pool(engine.url, "spine_worker", "test", 4)
    released: set[str] = set()
    recorder = Recorder(pool, Mock(), DatabaseClock(), 0.01, lambda job: released.add(job.id), Mock())
    running = asyncio.create_task(recorder.run())
    try:
        yield recorder, released
    finally:
        running.cancel()
        pool.terminate()


async def _refuse(engine: Engine, *tables: str, condition: str = "attempts::text !~ 'poison'") -> None:
    """Let these tables refuse rows, as a value that no jsonb takes does."""
    for table in tables:
        await engine.pool.execute(f"ALTER TABLE spine.{table} ADD CONSTRAINT refused CHECK ({condition}) NOT VALID")


def _count(outcome: str) -> float:
    return float(results_set_apart(outcome)._value.get())


@pytest.mark.parametrize("verdict", [Delivered(), Failed("http_500", "")], ids=["delivered", "failed"])
async def test_a_refused_result_stands_alone_and_the_others_are_committed(engine: Engine, verdict: Verdict) -> None:
    """Of 100 results one is refused: 99 are written as they are; that one is set apart and written without its response."""
    jobs = await _leased(engine, 100)
    await _refuse(engine, "deliveries_open", "deliveries_closed")
    before = _count("reduced")
    async with _recorder(engine) as (recorder, released):
        for n, job in enumerate(jobs):
            recorder.put(_result(job, POISON if n == 41 else b"ok", verdict))
        await engine.until(lambda: _is(lambda: len(released) == 100))
        assert recorder.uncommitted == 0
    state = "delivered" if isinstance(verdict, Delivered) else "retrying"
    rows = await engine.deliveries(state=state)
    assert len(rows) == 100
    bodies = {row["id"]: row["attempts"][0]["response_body"] for row in rows}
    assert bodies.pop(jobs[41].id) == ""
    assert set(bodies.values()) == {"ok"}
    (apart,) = await engine.pool.fetch("SELECT * FROM spine.results_set_apart")
    assert (apart["delivery_id"], apart["verdict"], apart["recorded"]) == (
        jobs[41].id,
        type(verdict).__name__.lower(),
        True,
    )
    assert POISON in apart["attempt"]
    assert "refused" in apart["error"]
    assert _count("reduced") == before + 1


async def _is(condition: Any) -> bool:
    return bool(condition())


async def test_a_result_that_cannot_be_written_at_all_puts_its_delivery_off(engine: Engine) -> None:
    """Not even the bare attempt can be written: the delivery is due again later, each time later, and dead after eight times."""
    jobs = await _leased(engine, 2)
    await _refuse(engine, "deliveries_closed", condition=f"id <> '{jobs[0].id}' OR state = 'dead'")
    waits = []
    async with _recorder(engine) as (recorder, released):
        recorder.put(_result(jobs[1]))
        for _ in range(PUT_OFF_MAX - 1):
            recorder.put(_result(jobs[0]))
            await engine.until(lambda: _is(lambda: jobs[0].id in released))
            row = await engine.pool.fetchrow(
                "SELECT leased_by, extract(epoch FROM due_at - now()) AS wait_s, attempts FROM spine.deliveries_open"
            )
            assert (row["leased_by"], row["attempts"]) == (None, [])
            waits.append(float(row["wait_s"]))
            released.clear()
        assert waits == sorted(waits)
        assert all(50 * 2**n < wait <= 60 * 2**n for n, wait in enumerate(waits))
        recorder.put(_result(jobs[0]))
        await engine.until(lambda: _is(lambda: jobs[0].id in released))
    (dead,) = await engine.deliveries(state="dead")
    assert (dead["id"], dead["reason"]) == (jobs[0].id, "result_refused")
    assert len(await engine.deliveries(state="delivered")) == 1
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.results_set_apart") == PUT_OFF_MAX
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.events WHERE type = 'delivery.dead_lettered'") == 1


async def test_a_locked_row_holds_up_its_own_result_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results beside one whose row another transaction has locked for long are committed; that one is when the lock ends."""
    monkeypatch.setattr("spine.kernel.database.LOCK_TIMEOUT", "300ms")
    jobs = await _leased(engine, 20)
    async with _recorder(engine) as (recorder, released), engine.pool.acquire() as other:
        async with other.transaction():
            await other.execute("SELECT FROM spine.deliveries_open WHERE id = $1 FOR UPDATE", jobs[7].id)
            for job in jobs:
                recorder.put(_result(job))
            await engine.until(lambda: _is(lambda: len(released) == 19), 120)
            assert jobs[7].id not in released
        await engine.until(lambda: _is(lambda: len(released) == 20))
    assert len(await engine.deliveries(state="delivered")) == 20
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.results_set_apart") == 0


async def test_nothing_is_set_apart_while_the_schema_does_not_fit(engine: Engine) -> None:
    """A missing right or column is no fault of a result: all are kept and written when it is mended."""
    jobs = await _leased(engine, 10)
    await engine.pool.execute("REVOKE INSERT ON spine.deliveries_closed FROM spine_worker")
    async with _recorder(engine) as (recorder, released):
        for job in jobs:
            recorder.put(_result(job))
        await engine.until(lambda: _is(lambda: recorder.uncommitted == 10))
        await asyncio.sleep(0.3)
        assert (recorder.uncommitted, released) == (10, set())
        await engine.pool.execute("GRANT INSERT ON spine.deliveries_closed TO spine_worker")
        await engine.until(lambda: _is(lambda: len(released) == 10))
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.results_set_apart") == 0
