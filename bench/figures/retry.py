"""Figure 6: how late retries are at 1,000 due per second, and whether any comes before its time."""

import asyncio
import time

from bench.rig import Rig
from bench.stats import Latency, Spread
from spine.kernel.wakeups import RESOLUTION_MS

RATE = 1_000
ENDPOINTS = 20
_LEAD_S = 1.0

_SEED = """
    INSERT INTO spine.deliveries_open
        (workspace_id, id, event_id, type, endpoint_id, accepted_at, state, failures, due_at)
    SELECT $1, 'dlv_' || substr(u.event_id, 5), u.event_id, 'bench.retry', ($2::text[])[1 + n % cardinality($2)], now(),
           'retrying', 1, to_timestamp($4 + n / $5::float8)
      FROM unnest($3::text[]) WITH ORDINALITY AS u (event_id, n)
"""


async def measure(rig: Rig) -> None:
    """Rows that have failed once fall due one per millisecond; their bells ring as the recorder has them rung."""
    late_s: list[float] = []
    p99: list[float] = []
    early = 0
    for turn in range(2):
        workspace = await rig.database.workspace()
        await rig.database.endpoints(workspace, rig.receiver.urls("ok", ENDPOINTS), type="bench.other")
        count = int(RATE * rig.scale.retry_s / 2)
        made = await rig.database.events(workspace, count, ["bench.retry"], relayed=True)
        first_due_s = time.time() + _LEAD_S
        await rig.database.pool.execute(_SEED, workspace.id, workspace.endpoints, made, first_due_s, float(RATE))
        due_s = {id: first_due_s + n / RATE for n, id in enumerate(made, 1)}
        rig.database.wake_at(
            "deliver",
            [first_due_s + n * RESOLUTION_MS / 1000 for n in range(count * 1000 // RATE // RESOLUTION_MS + 2)],
        )
        await asyncio.sleep(_LEAD_S)
        await rig.received(count)
        await rig.drained()
        found = [at - due_s[id] for path in (await rig.receiver.times()).values() for id, at in path.items()]
        await rig.settle(f"retry, {turn}", workspace)
        await rig.sweep_out()
        p99.append(Latency.of(found).p99_ms)
        late_s += found
        # The database keeps microseconds; its own rounding is not haste.
        early += sum(wait < -1e-6 for wait in found)
    rig.results.promised["retry_late_p99_ms"] = Spread.of(p99)
    rig.results.promised["retry_early"] = Spread.of([early])
    rig.results.latencies_ms["retries"] = {"lateness": [value * 1000 for value in late_s]}
    rig.results.note("retry", lateness=Latency.of(late_s), due_per_s=RATE)
