"""Scenarios with growing tables: a large backlog beside new events, an hour of events, ten million old deliveries."""

import asyncio
from typing import Any

from bench.costs import Meter
from bench.environment import Environment
from bench.figures.accept import accepted_ids
from bench.figures.backlog import insert_due_deliveries, vacuum
from bench.figures.first_byte import latencies_s, round_robin
from bench.scenarios.drain import measure_drain
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


async def draining(environment: Environment) -> None:
    """Accept 100 events a second while a million deliveries wait. The new events must not wait for the old ones."""
    old = await environment.database.create_workspace()
    await environment.database.create_endpoints(old, environment.receiver.urls("ok/old", 10))
    new = await environment.database.create_workspace()
    await environment.database.create_endpoints(new, environment.receiver.urls("ok/new", 10))
    await insert_due_deliveries(environment.database, old, environment.scale.backlog)
    await vacuum(environment.database)
    environment.database.wake("deliver")
    await asyncio.sleep(2)
    async with environment.load() as load:
        # As for the first byte, the first second does not count, because the API opens its connections in it.
        (await load.open_loop(_NEW_PER_S, 1, round_robin(old, "starting"))).require(201)
        calls = (await load.open_loop(_NEW_PER_S, _DRAINING_S, round_robin(new, "draining"))).require(201)
    new.accepted += accepted_ids(calls)
    await asyncio.sleep(2)
    times = await environment.receiver.times("/ok/old")
    came = [at for path in times.values() for at in path.values()]
    waits = [wait for path, found in (await latencies_s(environment, new)).items() if "new" in path for wait in found]
    environment.results.over_time.setdefault("draining", {})["old deliveries per second"] = per_second(came, 1.0)
    environment.results.latencies_ms["new events beside a million old ones"] = {
        "first byte": [wait * 1000 for wait in waits]
    }
    environment.results.note("draining", new_events=Latency.of(waits), old_per_s=len(came) / (max(came) - min(came)))
    await environment.database.clear()
    await environment.wait_idle()


async def hour(environment: Environment) -> None:
    """Deliver the events of an hour at 100/s as fast as possible. Cost and size of the live tables must stay constant."""
    workspace = await environment.database.create_workspace()
    await environment.database.create_endpoints(workspace, environment.receiver.urls("ok", 10))
    types = [f"bench.t{n}" for n in range(10)]
    found: list[dict[str, Any]] = []
    events = _HOUR_EVENTS // _SEGMENTS
    for _ in range(_SEGMENTS):
        meter = Meter(environment.installation, environment.database)
        await meter.start()
        await environment.database.insert_events(workspace, events, types)
        environment.database.wake("relay")
        await environment.wait_received(len(workspace.accepted))
        await environment.wait_drained()
        cost = await meter.stop(events)
        sizes = dict(await environment.database.pool.fetchrow(_SIZES))
        found.append({"worker_us": cost.cpu_us["worker"], "postgres_us": cost.cpu_us["postgres"], **sizes})
    await environment.reconcile("an hour's worth", workspace)
    environment.results.note("hour", **{name: [segment[name] for segment in found] for name in found[0]})
    for chart, names in (("hour-cost", ("worker_us", "postgres_us")), ("hour-bytes", ("open_table", "open_indexes"))):
        environment.results.over_time[chart] = {
            name: [(float(n), float(segment[name])) for n, segment in enumerate(found)] for name in names
        }
    await environment.clear()


async def history(environment: Environment) -> None:
    """Drain the same backlog before and after ten million deliveries are in the history of the same day."""
    urls = environment.receiver.urls("ok", 10)
    await measure_drain(environment, "history empty", urls, environment.scale.drain_events)
    past = await environment.database.create_workspace()
    for first in range(0, _HISTORY, _HISTORY_STEP):
        await environment.database.pool.execute(_HISTORY_PUT, past.id, first, first + _HISTORY_STEP - 1)
    await environment.database.pool.execute("CHECKPOINT")
    await measure_drain(environment, "history of 10,000,000", urls, environment.scale.drain_events)
    environment.results.note(
        "history",
        postgres_us_before=environment.results.costs["history empty"].cpu_us["postgres"],
        postgres_us_after=environment.results.costs["history of 10,000,000"].cpu_us["postgres"],
    )
