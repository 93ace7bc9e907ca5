"""Figure 5: claims per second with a million waiting deliveries and with ten thousand, and the memory of the worker."""

import itertools
from collections.abc import Sequence

from bench.database import Database, Workspace
from bench.environment import Environment
from bench.stats import Spread, per_second
from bench.usage import memory_bytes

SMALL = 10_000
ENDPOINTS = 10

_SEED = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, accepted_at, due_at)
    SELECT $1, 'dlv_' || spine_now || lpad(n::text, 16, '0'), event_id, 'bench.backlog', endpoint_id, now(),
           now() - interval '1 hour' + n * interval '1 microsecond'
      FROM (SELECT event_id, endpoint_id, row_number() OVER (ORDER BY e, w) AS n
              FROM unnest($2::text[]) WITH ORDINALITY AS event (event_id, e),
                   unnest($3::text[]) WITH ORDINALITY AS endpoint (endpoint_id, w)) u,
           (SELECT spine.ulid_time(now()) AS spine_now) t
"""


async def insert_due_deliveries(database: Database, workspace: Workspace, count: int) -> None:
    """Insert at least `count` due deliveries of the workspace, in the order in which the relay inserts them."""
    events = await database.insert_events(
        workspace, -(-count // len(workspace.endpoints)), ["bench.backlog"], relayed=True
    )
    await database.pool.execute(_SEED, workspace.id, events, workspace.endpoints)


async def vacuum(database: Database) -> None:
    """Bring the tables into the state of an old backlog: pages written, rows marked as committed, old log segments to reuse.

    A new log segment is filled with zeros first, and every commit waits for that.
    """
    for statement in ("VACUUM (ANALYZE) spine.deliveries_open", "VACUUM (ANALYZE) spine.events", "CHECKPOINT"):
        await database.pool.execute(statement)


async def _workspace(environment: Environment, urls: Sequence[str]) -> Workspace:
    workspace = await environment.database.create_workspace()
    await environment.database.create_endpoints(workspace, urls)
    return workspace


async def engine_rates(environment: Environment, count: int, windows: int) -> tuple[list[float], list[int]]:
    """Return the deliveries per second in successive windows of a backlog of `count`, and the worker's memory."""
    sample_size = environment.scale.sample_size
    workspace = await _workspace(environment, environment.receiver.urls("ok", ENDPOINTS))
    environment.worker.pause()
    await insert_due_deliveries(environment.database, workspace, count)
    await vacuum(environment.database)
    memory = [memory_bytes(environment.worker.pid)]
    environment.worker.resume()
    environment.database.wake("deliver")
    wanted = sample_size * windows
    await environment.wait_received(wanted)
    memory.append(memory_bytes(environment.worker.pid))
    came = sorted(at for path in (await environment.receiver.times()).values() for at in path.values())
    environment.results.over_time.setdefault("backlog", {})[f"{count:,} waiting"] = per_second(came, 0.25)
    await environment.database.clear()
    await environment.wait_idle()
    edges = [came[n * sample_size] for n in range(windows)] + [came[wanted - 1]]
    return [sample_size / (end - start) for start, end in itertools.pairwise(edges)], memory


async def measure(environment: Environment) -> None:
    """Measure the rate with a small, a large and a small backlog."""
    small, memory_small = await engine_rates(environment, SMALL, 1)
    large, memory_large = await engine_rates(environment, environment.scale.backlog, environment.scale.rounds)
    again, _ = await engine_rates(environment, SMALL, 1)
    below = Spread.of([*small, *again])
    environment.results.promised["backlog_ratio"] = Spread.of(rate / below.median for rate in large)
    environment.results.note(
        "backlog",
        waiting=environment.scale.backlog,
        rate_small_per_s=below,
        rate_large_per_s=Spread.of(large),
        worker_bytes_small=memory_small,
        worker_bytes_large=memory_large,
    )
