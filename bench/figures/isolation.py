"""Figure 4: what 18 healthy receivers notice of a neighbour that hangs and of one that refuses connections."""

import socket

from bench.figures.accept import accepted_ids
from bench.figures.first_byte import in_turn, waits_s
from bench.rig import Rig
from bench.stats import Latency, Spread, ratios

RATE = 200
ENDPOINTS = 20
ROUNDS = 5
"""However short: one that met a stall of the machine must not decide."""


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def window(rig: Rig, *, sick: bool, turn: int, for_s: float) -> list[float]:
    """Seconds to the first byte of the events to the 18, at the same load with and without the two others being sick."""
    workspace = await rig.database.workspace()
    others = [f"http://127.0.0.1:{closed_port()}/refused", rig.receiver.url("/hang/0")]
    if not sick:
        others = rig.receiver.urls("ok/other", 2)
    await rig.database.endpoints(workspace, [*rig.receiver.urls("ok", ENDPOINTS - 2), *others])
    async with rig.load() as load:
        calls = (await load.at_rate(RATE, for_s, in_turn(workspace, f"isolation-{turn}-{sick}"))).require(201)
    workspace.accepted += accepted_ids(calls)
    healthy = sum(1 for n in range(len(calls.answers)) if n % ENDPOINTS < ENDPOINTS - 2)

    async def healthy_came() -> int:
        times = await rig.receiver.times("/ok/")
        return sum(len(came) for path, came in times.items() if "other" not in path)

    while await healthy_came() < healthy:
        await rig.received(healthy)
    if not sick:
        await rig.drained()
    waits = await waits_s(rig, workspace)
    name = f"isolation, {'with two sick' if sick else 'all healthy'}, {turn}"
    await rig.settle(name, workspace)
    await rig.sweep_out()
    await rig.receiver.cut()
    return [wait for path, found in waits.items() if path.startswith("/ok/") and "other" not in path for wait in found]


async def measure(rig: Rig) -> None:
    """All healthy, two sick, in turn."""
    every: dict[bool, list[float]] = {False: [], True: []}
    p99: dict[bool, list[float]] = {False: [], True: []}
    await window(rig, sick=False, turn=0, for_s=min(1.5, rig.scale.isolation_s))
    for turn in range(1, ROUNDS + 1):
        for sick in (False, True):
            waits = await window(rig, sick=sick, turn=turn, for_s=rig.scale.isolation_s)
            every[sick] += waits
            p99[sick].append(Latency.of(waits).p99_ms)
    rig.results.promised["isolation_ratio"] = ratios(p99[True], p99[False])
    rig.results.latencies_ms["isolation"] = {
        "all healthy": [value * 1000 for value in every[False]],
        "one hangs, one refuses": [value * 1000 for value in every[True]],
    }
    rig.results.note(
        "isolation",
        healthy=Latency.of(every[False]),
        with_sick=Latency.of(every[True]),
        p99_healthy_ms=Spread.of(p99[False]),
        p99_with_sick_ms=Spread.of(p99[True]),
        events_per_s=RATE,
    )
