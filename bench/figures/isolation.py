"""Figure 4: the effect of a hanging receiver and of a refusing one on 18 healthy receivers."""

import socket

from bench.environment import Environment
from bench.figures.accept import accepted_ids
from bench.figures.first_byte import latencies_s, round_robin
from bench.stats import Latency, Spread, ratios

RATE = 200
ENDPOINTS = 20
ROUNDS = 5
"""Also in a quick run, so that one stall of the machine does not decide the result."""


def closed_port() -> int:
    """Return a port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def window(environment: Environment, *, sick: bool, turn: int, for_s: float) -> list[float]:
    """Return the seconds to the first byte at the 18 receivers, at the same load with healthy or sick other two."""
    workspace = await environment.database.create_workspace()
    others = [f"http://127.0.0.1:{closed_port()}/refused", environment.receiver.url("/hang/0")]
    if not sick:
        others = environment.receiver.urls("ok/other", 2)
    await environment.database.create_endpoints(workspace, [*environment.receiver.urls("ok", ENDPOINTS - 2), *others])
    async with environment.load() as load:
        calls = (await load.open_loop(RATE, for_s, round_robin(workspace, f"isolation-{turn}-{sick}"))).require(201)
    workspace.accepted += accepted_ids(calls)
    healthy = sum(1 for n in range(len(calls.responses)) if n % ENDPOINTS < ENDPOINTS - 2)

    async def count_healthy() -> int:
        times = await environment.receiver.times("/ok/")
        return sum(len(came) for path, came in times.items() if "other" not in path)

    while await count_healthy() < healthy:
        await environment.wait_received(healthy)
    if not sick:
        await environment.wait_drained()
    waits = await latencies_s(environment, workspace)
    name = f"isolation, {'with two sick' if sick else 'all healthy'}, {turn}"
    await environment.reconcile(name, workspace)
    await environment.clear()
    await environment.receiver.cut()
    return [wait for path, found in waits.items() if path.startswith("/ok/") and "other" not in path for wait in found]


async def measure(environment: Environment) -> None:
    """Measure with all receivers healthy and with two sick, in turn."""
    every: dict[bool, list[float]] = {False: [], True: []}
    p99: dict[bool, list[float]] = {False: [], True: []}
    await window(environment, sick=False, turn=0, for_s=min(1.5, environment.scale.isolation_s))
    for turn in range(1, ROUNDS + 1):
        for sick in (False, True):
            waits = await window(environment, sick=sick, turn=turn, for_s=environment.scale.isolation_s)
            every[sick] += waits
            p99[sick].append(Latency.of(waits).p99_ms)
    environment.results.promised["isolation_ratio"] = ratios(p99[True], p99[False])
    environment.results.latencies_ms["isolation"] = {
        "all healthy": [value * 1000 for value in every[False]],
        "one hangs, one refuses": [value * 1000 for value in every[True]],
    }
    environment.results.note(
        "isolation",
        healthy=Latency.of(every[False]),
        with_sick=Latency.of(every[True]),
        p99_healthy_ms=Spread.of(p99[False]),
        p99_with_sick_ms=Spread.of(p99[True]),
        events_per_s=RATE,
    )
