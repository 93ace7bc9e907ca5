"""Tables that grow: a large backlog beside new events, an hour's worth of events, ten million deliveries of history."""

import asyncio
from typing import Any

from bench.costs import Meter
from bench.figures.accept import accepted_ids
from bench.figures.backlog import settle, wait_due
from bench.figures.first_byte import in_turn, waits_s
from bench.rig import Rig
from bench.shapes.drained import drained
from bench.stats import Latency, per_second

_NEW_PER_S = 100
_DRAINING_S = 40
_HOUR_EVENTS = 360_000
_SEGMENTS = 12
_HISTORY = 10_000_000
_HISTORY_STEP = 1_000_000

_SIZES = """
    SELECT pg_relation_size('spine.deliveries_open') AS open_table, pg_indexes_size('spine.deliveries_open') AS open_indexes,
           pg_relation_size('spine.outbox') AS outbox_table, pg_indexes_size('spine.outbox') AS outbox_indexes,
           (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
             WHERE schemaname = 'spine' AND relname IN ('deliveries_open', 'outbox')) AS dead_rows
"""

_HISTORY_PUT = """
    INSERT INTO spine.deliveries_closed
        (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, accepted_at, created_at, xid)
    SELECT $1, 'dlv_' || t.prefix || lpad(n::text, 16, '0'), 'evt_' || t.prefix || lpad(n::text, 16, '0'), 'bench.history',
           'whe_' || lpad((n % 1000)::text, 26, '0'), 'delivered', 1,
           '[{"number": 1, "series": 1, "status_code": 200, "response_body": ""}]', now(), now(), pg_current_xact_id()
      FROM generate_series($2::bigint, $3::bigint) n, (SELECT spine.ulid_time(now()) AS prefix) t
"""


async def draining(rig: Rig) -> None:
    """A million deliveries wait; meanwhile 100 events a second are accepted, and must not wait behind them."""
    old = await rig.database.workspace()
    await rig.database.endpoints(old, rig.receiver.urls("ok/old", 10))
    new = await rig.database.workspace()
    await rig.database.endpoints(new, rig.receiver.urls("ok/new", 10))
    await wait_due(rig.database, old, rig.scale.backlog)
    await settle(rig.database)
    rig.database.wake("deliver")
    await asyncio.sleep(2)
    async with rig.load() as load:
        # As with the first byte, the first second is not looked at: the API opens its connections in it.
        (await load.at_rate(_NEW_PER_S, 1, in_turn(old, "starting"))).require(201)
        calls = (await load.at_rate(_NEW_PER_S, _DRAINING_S, in_turn(new, "draining"))).require(201)
    new.accepted += accepted_ids(calls)
    await asyncio.sleep(2)
    times = await rig.receiver.times("/ok/old")
    came = [at for path in times.values() for at in path.values()]
    waits = [wait for path, found in (await waits_s(rig, new)).items() if "new" in path for wait in found]
    rig.results.over_time.setdefault("draining", {})["old deliveries per second"] = per_second(came, 1.0)
    rig.results.latencies_ms["new events beside a million old ones"] = {"first byte": [wait * 1000 for wait in waits]}
    rig.results.note("draining", new_events=Latency.of(waits), old_per_s=len(came) / (max(came) - min(came)))
    await rig.database.clear()
    await rig.quiet()


async def hour(rig: Rig) -> None:
    """As many events as an hour at 100 a second has, as fast as they go: cost and size of the live tables must stay flat."""
    workspace = await rig.database.workspace()
    await rig.database.endpoints(workspace, rig.receiver.urls("ok", 10))
    types = [f"bench.t{n}" for n in range(10)]
    found: list[dict[str, Any]] = []
    events = _HOUR_EVENTS // _SEGMENTS
    for _ in range(_SEGMENTS):
        meter = Meter(rig.installation, rig.database)
        await meter.start()
        await rig.database.events(workspace, events, types)
        rig.database.wake("relay")
        await rig.received(len(workspace.accepted))
        await rig.drained()
        cost = await meter.stop(events)
        sizes = dict(await rig.database.pool.fetchrow(_SIZES))
        found.append({"worker_us": cost.cpu_us["worker"], "postgres_us": cost.cpu_us["postgres"], **sizes})
    await rig.settle("an hour's worth", workspace)
    rig.results.note("hour", **{name: [segment[name] for segment in found] for name in found[0]})
    for picture, names in (("hour-cost", ("worker_us", "postgres_us")), ("hour-bytes", ("open_table", "open_indexes"))):
        rig.results.over_time[picture] = {
            name: [(float(n), float(segment[name])) for n, segment in enumerate(found)] for name in names
        }
    await rig.sweep_out()


async def history(rig: Rig) -> None:
    """The same backlog before and after ten million deliveries have gone into the history of the same day."""
    urls = rig.receiver.urls("ok", 10)
    await drained(rig, "history empty", urls, rig.scale.drained)
    past = await rig.database.workspace()
    for first in range(0, _HISTORY, _HISTORY_STEP):
        await rig.database.pool.execute(_HISTORY_PUT, past.id, first, first + _HISTORY_STEP - 1)
    await rig.database.pool.execute("CHECKPOINT")
    await drained(rig, "history of 10,000,000", urls, rig.scale.drained)
    rig.results.note(
        "history",
        postgres_us_before=rig.results.costs["history empty"].cpu_us["postgres"],
        postgres_us_after=rig.results.costs["history of 10,000,000"].cpu_us["postgres"],
    )
