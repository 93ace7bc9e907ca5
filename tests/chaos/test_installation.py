"""A whole installation under faults: events over HTTP while every process of `make up` is killed in turn."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.installation import Up, up
from tests.receiver import Receiver

EVENTS = int(os.environ.get("SPINE_CHAOS_EVENTS", "500"))
SEED = int(os.environ.get("SPINE_CHAOS_SEED", str(random.randrange(10**6))))
_FAULTS = ("api", "worker", "api", "redis", "worker", "postgres", "api", "flush", "worker")
_FAULT_INTERVAL_S = 3.0


async def _post(api: httpx.AsyncClient, n: int) -> str:
    """Post one event until it is accepted. The key is the same each time, so it is accepted once."""
    while True:
        try:
            response = await api.post(
                "/v1/events", json={"type": "order.paid", "data": {"n": n}}, headers={"Idempotency-Key": f"chaos-{n}"}
            )
            if response.status_code == 201:
                return str(response.json()["id"])
            assert response.status_code in (409, 429, 500, 503), response.text
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.2)


def _flush_redis(running: Up) -> None:
    environment = dict(line.split("=", 1) for line in (running.directory / "environment").read_text().splitlines())
    code = f"from redis import Redis; Redis.from_url({environment['REDIS_URL']!r}).flushall()"
    subprocess.run([sys.executable, "-c", code], timeout=20, check=False, capture_output=True)


async def _inject_faults(running: Up, rng: random.Random, done: asyncio.Event) -> list[str]:
    killed: list[str] = []
    for name in _FAULTS:
        if done.is_set():
            break
        await asyncio.sleep(rng.uniform(0.5, 1.0) * _FAULT_INTERVAL_S)
        if name == "flush":
            await asyncio.to_thread(_flush_redis, running)
        else:
            victim = running.children().get(name)
            if victim is None:
                continue
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        killed.append(name)
    return killed


@pytest.mark.timeout(400)
async def test_nothing_accepted_is_lost_while_everything_is_killed(tmp_path: Path) -> None:
    """500 events are posted while API, workers, Redis and Postgres are killed with -9 and Redis is flushed: each accepted
    event arrives at least once. Duplicates are counted and printed.
    """
    rng = random.Random(SEED)
    with up(
        tmp_path / "data", (sys.executable, "-m", "spine.supervisor"), SPINE_WORKERS="2", SPINE_LEASE_S="5"
    ) as running:
        async with (
            Receiver() as receiver,
            # Without a limit: httpx's pool counts connections that broke while they were opened, until it gives out none.
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{running.port}", timeout=10, limits=httpx.Limits(max_connections=None)
            ) as api,
        ):
            made = (
                (await api.post("/v1/signup", json={"name": "Acme", "email": "dev@acme.example"}))
                .raise_for_status()
                .json()
            )
            api.headers["Authorization"] = f"Bearer {made['test']['api_key']}"
            endpoint = {"url": receiver.url("/hook"), "events": ["order.paid"]}
            (
                await api.post("/v1/webhook_endpoints", json=endpoint, headers={"Idempotency-Key": "endpoint"})
            ).raise_for_status()
            done = asyncio.Event()
            faults = asyncio.create_task(_inject_faults(running, rng, done))
            accepted: list[str] = []
            interval_s = len(_FAULTS) * _FAULT_INTERVAL_S / EVENTS

            async def post(n: int) -> None:
                await asyncio.sleep(n * interval_s)
                accepted.append(await _post(api, n))

            await asyncio.gather(*(post(n) for n in range(EVENTS)))
            killed = await faults
            until_s = time.monotonic() + 120
            arrived: set[str] = set()
            while time.monotonic() < until_s and not set(accepted) <= arrived:
                await asyncio.sleep(0.5)
                arrived = {call.event_id for call in receiver.calls}
            duplicates = len(receiver.calls) - len(arrived)
            print(f"seed {SEED}: killed {', '.join(killed)}; accepted {len(accepted)}; duplicates {duplicates}")  # noqa: T201  # the result of the run
            assert len(accepted) == EVENTS
            assert len(set(accepted)) == EVENTS
            assert set(accepted) - arrived == set()
            assert len(killed) >= 5
