"""Promise 1 under fire: workers killed with -9, Redis emptied and killed, Postgres crashed, while events come in.

A short run stands in `make test`; `make chaos` adds a long one. SPINE_CHAOS_S and SPINE_CHAOS_EVENTS set its length,
SPINE_CHAOS_SEED repeats a run's faults.
"""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests.breakable_servers import Servers, servers_to_break
from tests.delivery_engine import Engine, running_engine
from tests.receiver import Receiver, ScriptedResponse

LONG_S = float(os.environ.get("SPINE_CHAOS_S", "300"))
LONG_EVENTS = int(os.environ.get("SPINE_CHAOS_EVENTS", "5000"))
SHORT_S = 30.0
SHORT_EVENTS = 500
SEED = int(os.environ.get("SPINE_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
ENDPOINTS = 3
WORKERS = 2
SETTLE_S = 240


@dataclass(frozen=True)
class Run:
    """How long events come in, and how many."""

    seconds: float
    events: int


async def _accept_all(engine: Engine, run: Run, accepted: list[str]) -> None:
    """Accept events one by one; only what was committed counts, and what was not is tried again as a new event."""
    for _ in range(run.events):
        while True:
            try:
                accepted += await engine.publish()
                break
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.2)
        await asyncio.sleep(run.seconds / run.events)


async def _keep_workers(engine: Engine) -> None:
    """What a supervisor does: a worker that is gone is started again."""
    while True:
        while len(engine.alive) < WORKERS:
            engine.start_worker(sweep_s=1, lease_s=5)
        await asyncio.sleep(0.2)


async def _break_things(engine: Engine, servers: Servers, run: Run, faults: Counter[str]) -> None:
    chance = random.Random(SEED)
    while True:
        await asyncio.sleep(chance.uniform(0.5, 1.5) * SHORT_S / 14)
        fault = chance.choice(["worker", "worker", "worker", "flush", "redis", "postgres"])
        faults[fault] += 1
        if fault == "worker" and engine.alive:
            chance.choice(engine.alive).send_signal(signal.SIGKILL)
        elif fault == "flush":
            await servers.flush_redis()
        elif fault == "redis":
            await servers.redis.kill()
            await asyncio.sleep(chance.uniform(0, SHORT_S / 20))
            await servers.redis.start()
        elif fault == "postgres":
            await servers.postgres.kill()
            await asyncio.sleep(chance.uniform(0, SHORT_S / 40))
            await servers.postgres.start()


async def _fire(engine: Engine, servers: Servers, run: Run, faults: Counter[str]) -> list[str]:
    accepted: list[str] = []
    keeping = asyncio.create_task(_keep_workers(engine))
    breaking = asyncio.create_task(_break_things(engine, servers, run, faults))
    await _accept_all(engine, run, accepted)
    breaking.cancel()
    await asyncio.gather(breaking, return_exceptions=True)
    await servers.postgres.kill()
    await servers.redis.kill()
    await servers.postgres.start()
    await servers.redis.start()
    try:
        await _settle(engine)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    return accepted


async def _settle(engine: Engine) -> None:
    """Wait, with the clock moved on for what waits, until nothing is open any more."""
    left = "SELECT (SELECT count(*) FROM spine.outbox) + (SELECT count(*) FROM spine.deliveries_open)"
    async with asyncio.timeout(SETTLE_S):
        while True:
            try:
                await engine.advance(60)
                if await engine.pool.fetchval(left) == 0:
                    return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pass
            await asyncio.sleep(0.5)


async def _survive(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    faults: Counter[str] = Counter()
    async with (
        servers_to_break(tmp_path) as servers,
        Receiver() as receiver,
        running_engine(servers.database_url, servers.redis_url) as engine,
    ):
        for n in range(ENDPOINTS):
            receiver.script(
                f"/{n}",
                *(
                    ScriptedResponse(chance.choice([200, 200, 200, 500]), chance.choice([0, 0, 0.3]))
                    for _ in range(run.events)
                ),
            )
            await engine.endpoint(receiver.url(f"/{n}"))
        accepted = await _fire(engine, servers, run, faults)
        rows = await engine.deliveries()
    got = {f"/{n}": Counter(call.event_id for call in receiver.to(f"/{n}")) for n in range(ENDPOINTS)}
    missing = {path: [id for id in accepted if id not in calls] for path, calls in got.items()}
    again = sum(receiver.count.values()) - sum(len(row["attempts"]) for row in rows)
    with capsys.disabled():
        sys.stdout.write(
            f"\nchaos seed {SEED}: {len(accepted)} events, {dict(faults)}, calls not in the ledger: {again}\n"
        )
    assert missing == {path: [] for path in got}
    # A commit whose answer was lost on the way counts as well: its event is there although nobody was told.
    committed = {row["event_id"] for row in rows}
    assert set(accepted) <= committed
    assert Counter(row["state"] for row in rows) == {"delivered": len(committed) * ENDPOINTS}
    assert len({(row["event_id"], row["endpoint_id"]) for row in rows}) == len(rows)


@pytest.mark.timeout(SHORT_S + SETTLE_S + 60)
async def test_nothing_accepted_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every committed event reaches every endpoint that matched it, at least once, whatever is killed (promise 1)."""
    await _survive(Run(SHORT_S, SHORT_EVENTS), tmp_path, capsys)


@pytest.mark.long
@pytest.mark.timeout(LONG_S + SETTLE_S + 60)
async def test_nothing_accepted_is_lost_in_a_long_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise 1, for as long as SPINE_CHAOS_S says."""
    await _survive(Run(LONG_S, LONG_EVENTS), tmp_path, capsys)
