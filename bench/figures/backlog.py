"""Figure 5: claims a second while a million deliveries wait, against ten thousand; and the memory of the worker."""

import itertools
from collections.abc import Sequence

from bench.rig import Rig
from bench.stats import Spread, per_second
from bench.tenant import Database, Workspace
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


async def wait_due(database: Database, workspace: Workspace, count: int) -> None:
    """So many due deliveries, no two of the same event and endpoint, in the order in which events bring them about."""
    events = await database.events(workspace, -(-count // ENDPOINTS), ["bench.backlog"], relayed=True)
    await database.pool.execute(_SEED, workspace.id, events, workspace.endpoints)


async def settle(database: Database) -> None:
    """A backlog has lain for a while, which seeding leaves undone: its pages are written, its rows known to be committed, and
    there are old segments of the log to write over. A new one is filled with zeros first, and every commit waits for that.
    """
    for statement in ("VACUUM (ANALYZE) spine.deliveries_open", "VACUUM (ANALYZE) spine.events", "CHECKPOINT"):
        await database.pool.execute(statement)


async def _workspace(rig: Rig, urls: Sequence[str]) -> Workspace:
    workspace = await rig.database.workspace()
    await rig.database.endpoints(workspace, urls)
    return workspace


async def engine_rates(rig: Rig, count: int, windows: int) -> tuple[list[float], list[int]]:
    """Deliveries per second in successive windows, from a backlog of `count`; and the worker's memory."""
    looked_at = rig.scale.looked_at
    workspace = await _workspace(rig, rig.receiver.urls("ok", ENDPOINTS))
    rig.worker.pause()
    await wait_due(rig.database, workspace, count)
    await settle(rig.database)
    memory = [memory_bytes(rig.worker.pid)]
    rig.worker.resume()
    rig.database.wake("deliver")
    wanted = looked_at * windows
    await rig.received(wanted)
    memory.append(memory_bytes(rig.worker.pid))
    came = sorted(at for path in (await rig.receiver.times()).values() for at in path.values())
    rig.results.over_time.setdefault("backlog", {})[f"{count:,} waiting"] = per_second(came, 0.25)
    await rig.database.clear()
    await rig.quiet()
    edges = [came[n * looked_at] for n in range(windows)] + [came[wanted - 1]]
    return [looked_at / (end - start) for start, end in itertools.pairwise(edges)], memory


async def measure(rig: Rig) -> None:
    """Small, large, small: the engine's rate with each."""
    small, memory_small = await engine_rates(rig, SMALL, 1)
    large, memory_large = await engine_rates(rig, rig.scale.backlog, rig.scale.rounds)
    again, _ = await engine_rates(rig, SMALL, 1)
    below = Spread.of([*small, *again])
    rig.results.promised["backlog_ratio"] = Spread.of(rate / below.median for rate in large)
    rig.results.note(
        "backlog",
        waiting=rig.scale.backlog,
        rate_small_per_s=below,
        rate_large_per_s=Spread.of(large),
        worker_bytes_small=memory_small,
        worker_bytes_large=memory_large,
    )
