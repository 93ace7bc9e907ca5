"""Claims: the number of rows per claim, and that parked rows do not block the rows behind them."""

from unittest.mock import Mock

from spine.kernel import ids
from spine.kernel.settings import WorkSettings
from tests.delivery_engine import Engine
from workers.heartbeat import Heartbeat
from workers.webhooks.claim import Claimer
from workers.webhooks.endpoint_queues import EndpointQueues

MANY = 5000

_INSERT_DUE = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, accepted_at, due_at)
    SELECT $1, id, $3, 'thing.happened', $4, now(), now() - interval '1 hour' + n * interval '1 ms'
      FROM unnest($2::text[]) WITH ORDINALITY AS u (id, n)
"""


async def _insert_due(engine: Engine, endpoint_id: str, count: int) -> None:
    (event_id,) = await engine.publish()
    delivery_ids = [ids.mint("dlv") for _ in range(count)]
    await engine.pool.execute(_INSERT_DUE, engine.workspace_id, delivery_ids, event_id, endpoint_id)


async def test_claims_are_small_unless_they_park(engine: Engine) -> None:
    """A claim leases 128 rows. Rows of a full endpoint queue are parked in a few larger claims, so the rows behind follow."""
    full = await engine.endpoint("http://127.0.0.1:9/full", max_in_flight=1)
    await _insert_due(engine, full.id, MANY)
    other = await engine.endpoint("http://127.0.0.1:9/other")
    await _insert_due(engine, other.id, 1)
    await engine.pool.execute("UPDATE spine.deliveries_open SET due_at = now() WHERE endpoint_id = $1", other.id)
    heartbeat = Heartbeat(engine.pool, "me")
    heartbeat.live_workers = frozenset({"me"})
    queues, release = EndpointQueues(heartbeat, 4096, 10**9), Mock()
    claimer = Claimer(engine.pool, queues, WorkSettings(), "me", Mock(), release, Mock())
    await claimer.claim_due()
    first = queues.held + release.call_count
    claims = 1
    while not any(job.endpoint_id == other.id for job in queues.jobs) and claims < MANY:
        await claimer.claim_due()
        claims += 1
    await claimer.close()
    assert first == 128
    assert claims < 10
