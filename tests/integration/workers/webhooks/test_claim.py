"""Claims: how many rows a look takes, and that nothing waits for ever behind what is parked."""

from unittest.mock import Mock

from spine.kernel import ids
from spine.kernel.settings import WorkSettings
from tests.delivery_engine import Engine
from workers.heartbeat import Heartbeat
from workers.webhooks.claim import Claimer
from workers.webhooks.endpoint_queues import EndpointQueues

MANY = 5000

_WAIT_DUE = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, accepted_at, due_at)
    SELECT $1, id, $3, 'thing.happened', $4, now(), now() - interval '1 hour' + n * interval '1 ms'
      FROM unnest($2::text[]) WITH ORDINALITY AS u (id, n)
"""


async def _wait_due(engine: Engine, endpoint_id: str, count: int) -> None:
    (event_id,) = await engine.publish()
    made = [ids.mint("dlv") for _ in range(count)]
    await engine.pool.execute(_WAIT_DUE, engine.workspace_id, made, event_id, endpoint_id)


async def test_a_claim_is_small_but_where_it_parks(engine: Engine) -> None:
    """What is sent is claimed in small batches; a stretch of rows whose lane is full is left behind in a few looks."""
    full = await engine.endpoint("http://127.0.0.1:9/full", max_in_flight=1)
    await _wait_due(engine, full.id, MANY)
    behind = await engine.endpoint("http://127.0.0.1:9/behind")
    await _wait_due(engine, behind.id, 1)
    await engine.pool.execute("UPDATE spine.deliveries_open SET due_at = now() WHERE endpoint_id = $1", behind.id)
    heartbeat = Heartbeat(engine.pool, "me")
    heartbeat.live_workers = frozenset({"me"})
    queues, release = EndpointQueues(heartbeat, 4096, 10**9), Mock()
    claims = Claimer(engine.pool, queues, WorkSettings(), "me", Mock(), release, Mock())
    await claims.claim_due()
    first = queues.held + release.call_count
    looks = 1
    while not any(job.endpoint_id == behind.id for job in queues.job) and looks < MANY:
        await claims.claim_due()
        looks += 1
    await claims.close()
    assert first == 128
    assert looks < 10
