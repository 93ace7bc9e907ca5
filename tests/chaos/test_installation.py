"""A whole installation under fire: calls over HTTP, everything that `make up` started killed in turn, nothing lost."""

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
_KILLED = ("api", "worker", "api", "redis", "worker", "postgres", "api", "flush", "worker")
_EVERY_S = 4.0


async def _post(api: httpx.AsyncClient, n: int) -> str:
    """Send one event until it is accepted; always the same key, so it is accepted once."""
    while True:
        try:
            answer = await api.post(
                "/v1/events", json={"type": "order.paid", "data": {"n": n}}, headers={"Idempotency-Key": f"chaos-{n}"}
            )
            if answer.status_code == 201:
                return str(answer.json()["id"])
            assert answer.status_code in (409, 429, 500, 503), answer.text
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.2)


def _redis_cli(running: Up) -> None:
    environment = dict(line.split("=", 1) for line in (running.directory / "environment").read_text().splitlines())
    code = f"from redis import Redis; Redis.from_url({environment['REDIS_URL']!r}).flushall()"
    subprocess.run([sys.executable, "-c", code], timeout=20, check=False, capture_output=True)


async def _havoc(running: Up, chance: random.Random, done: asyncio.Event) -> list[str]:
    told: list[str] = []
    for name in _KILLED:
        if done.is_set():
            break
        await asyncio.sleep(chance.uniform(0.5, 1.0) * _EVERY_S)
        if name == "flush":
            await asyncio.to_thread(_redis_cli, running)
        else:
            victim = running.children().get(name)
            if victim is None:
                continue
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        told.append(name)
    return told


@pytest.mark.timeout(400)
async def test_nothing_accepted_is_lost_while_everything_is_killed(tmp_path: Path) -> None:
    """500 events go in while API, workers, Redis and Postgres are killed with -9 and Redis is emptied: each accepted one
    arrives at least once. Duplicates are counted and printed.
    """
    chance = random.Random(SEED)
    with up(
        tmp_path / "data", (sys.executable, "-m", "spine.supervisor"), SPINE_WORKERS="2", SPINE_LEASE_S="5"
    ) as running:
        async with (
            Receiver() as receiver,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", timeout=10) as api,
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
            havoc = asyncio.create_task(_havoc(running, chance, done))
            accepted: list[str] = []
            pace_s = len(_KILLED) * _EVERY_S / EVENTS

            async def one(n: int) -> None:
                await asyncio.sleep(n * pace_s)
                accepted.append(await _post(api, n))

            await asyncio.gather(*(one(n) for n in range(EVENTS)))
            killed = await havoc
            end = time.monotonic() + 120
            arrived: set[str] = set()
            while time.monotonic() < end and not set(accepted) <= arrived:
                await asyncio.sleep(0.5)
                arrived = {call.event_id for call in receiver.calls}
            extra = len(receiver.calls) - len(arrived)
            print(f"seed {SEED}: killed {', '.join(killed)}; accepted {len(accepted)}; duplicates {extra}")  # noqa: T201  # the point of the run
            assert len(accepted) == EVENTS
            assert len(set(accepted)) == EVENTS
            assert set(accepted) - arrived == set()
            assert len(killed) >= 5
