"""Figure 6: the lateness of retries at 1,000 due per second, and the number of early retries."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.database import Workspace
from bench.environment import Environment
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


async def lateness_s(
    environment: Environment, workspace: Workspace, count: int, per_s: int, wait: Callable[[], Awaitable[None]]
) -> list[float]:
    """Make retries due at `per_s`, with the wakeups that the recorder schedules. Return how late each was, after `wait`."""
    made = await environment.database.insert_events(workspace, count, ["bench.retry"], relayed=True)
    first_due_s = time.time() + _LEAD_S
    await environment.database.pool.execute(_SEED, workspace.id, workspace.endpoints, made, first_due_s, float(per_s))
    due_s = {id: first_due_s + n / per_s for n, id in enumerate(made, 1)}
    environment.database.wake_at(
        "deliver",
        [first_due_s + n * RESOLUTION_MS / 1000 for n in range(count * 1000 // per_s // RESOLUTION_MS + 2)],
    )
    await asyncio.sleep(_LEAD_S)
    await wait()
    times = (await environment.receiver.times()).values()
    return [at - due_s[id] for path in times for id, at in path.items() if id in due_s]


async def measure(environment: Environment) -> None:
    """Measure rows that failed once and become due one per millisecond."""
    late_s: list[float] = []
    p99: list[float] = []
    early = 0
    count = int(RATE * environment.scale.retry_s / 2)

    async def drained() -> None:
        await environment.wait_received(count)
        await environment.wait_drained()

    for turn in range(2):
        workspace = await environment.database.create_workspace()
        await environment.database.create_endpoints(
            workspace, environment.receiver.urls("ok", ENDPOINTS), type="bench.other"
        )
        found = await lateness_s(environment, workspace, count, RATE, drained)
        await environment.reconcile(f"retry, {turn}", workspace)
        await environment.clear()
        p99.append(Latency.of(found).p99_ms)
        late_s += found
        # The database stores microseconds; its rounding does not make a retry early.
        early += sum(wait < -1e-6 for wait in found)
    environment.results.promised["retry_late_p99_ms"] = Spread.of(p99)
    environment.results.promised["retry_early"] = Spread.of([early])
    environment.results.latencies_ms["retries"] = {"lateness": [value * 1000 for value in late_s]}
    environment.results.note("retry", lateness=Latency.of(late_s), due_per_s=RATE)
