"""Deliveries follow an endpoint that was disabled, enabled or deleted, in bounded steps (promise 4)."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from spine.kernel import ids
from spine.kernel.database import open_pool
from spine.kernel.settings import WorkSettings
from spine.webhooks.endpoint_deliveries import FIRST_STEP
from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.delivery_engine import Engine
from tests.message_engine import until
from tests.receiver import Receiver, ScriptedResponse
from workers.webhooks.endpoint_transitions import EndpointTransitions

ROWS = 20_000
STEP = 700

_INSERT = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at, state, failures)
    SELECT $1, 'dlv_' || $3 || lpad(n::text, 20, '0'), 'evt_' || lpad((n / 3)::text, 26, '0'), 'order.paid', $2,
           CASE WHEN n % 2 = 0 THEN 'infinity' ELSE now() + interval '1 h' END, now() - interval '1 h',
           CASE WHEN n % 2 = 0 THEN 'pending' ELSE 'retrying' END, n % 2
      FROM generate_series(1, $4) n
"""


async def _backlog(
    connection: Any, workspace_id: str, endpoint_id: str, rows: int = ROWS, mark: str = "AAAAAA"
) -> None:
    """Insert parked deliveries and retries in turn; every third event has several."""
    await connection.execute(_INSERT, workspace_id, endpoint_id, mark, rows)


async def _states(connection: Any, endpoint_id: str) -> dict[str, int]:
    rows = await connection.fetch(
        "SELECT coalesce(reason, state) AS state, count(*) FROM spine.deliveries WHERE endpoint_id = $1 GROUP BY 1",
        endpoint_id,
    )
    return {row["state"]: row["count"] for row in rows}


async def _transitions(pool: Any) -> EndpointTransitions:
    """The pipeline with small steps, which a test runs one by one."""
    context: Any = SimpleNamespace(work=WorkSettings(), pool=pool, wakeups=Mock(), wakeup_status=Mock())
    return EndpointTransitions(context, STEP)


async def _run_all(transitions: EndpointTransitions) -> int:
    steps = 0
    while await transitions.run_step():
        steps += 1
    return steps


async def _change(engine: Engine, endpoint_id: str, columns: str, discard_before: str = "NULL") -> None:
    """Change the endpoint's row as the API and the recorder do."""
    async with engine.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            f"UPDATE spine.webhook_endpoints SET {columns}, version = version + 1 WHERE id = $1", endpoint_id
        )
        await connection.execute(
            f"SELECT spine.endpoint_changed($1, $2, {discard_before})", engine.workspace_id, endpoint_id
        )


DISABLED, ENABLED, DELETED = "status = 'disabled'", "status = 'enabled'", "deleted_at = now()"


@pytest.fixture
async def worker_pool(engine: Engine) -> AsyncIterator[Any]:
    """A pool with the role and the settings of a worker."""
    pool = await open_pool(engine.url, "spine_worker", "test", 2)
    yield pool
    pool.terminate()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(DISABLED, {"held": ROWS}), (DELETED, {"endpoint_deleted": ROWS})],
    ids=["disabled", "deleted"],
)
async def test_a_change_moves_no_row_and_each_step_a_bounded_number(
    engine: Engine, worker_pool: Any, columns: str, expected: dict[str, int]
) -> None:
    """The change itself moves nothing. Each step moves as many rows as its limit, in one transaction, until all have followed."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    other = await engine.endpoint("http://127.0.0.1:9/other")
    await _backlog(engine.pool, engine.workspace_id, endpoint.id)
    await _backlog(engine.pool, engine.workspace_id, other.id, 10, "BBBBBB")
    before = {"pending": ROWS // 2, "retrying": ROWS // 2}
    await _change(engine, endpoint.id, columns)
    assert await _states(engine.pool, endpoint.id) == before
    transitions = await _transitions(worker_pool)
    followed = 0
    while await transitions.run_step():
        now_followed = sum(
            count for state, count in (await _states(engine.pool, endpoint.id)).items() if state in expected
        )
        assert now_followed - followed <= STEP
        followed = now_followed
    assert await _states(engine.pool, endpoint.id) == expected
    assert await _states(engine.pool, other.id) == {"pending": 5, "retrying": 5}
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.endpoint_transitions") == 0


async def test_an_enabled_endpoints_deliveries_are_parked_step_by_step(engine: Engine, worker_pool: Any) -> None:
    """Held deliveries of an enabled endpoint are parked; their failures stay."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _backlog(engine.pool, engine.workspace_id, endpoint.id)
    transitions = await _transitions(worker_pool)
    await _change(engine, endpoint.id, DISABLED)
    await _run_all(transitions)
    await _change(engine, endpoint.id, ENABLED)
    assert await _run_all(transitions) == ROWS // STEP + 1
    assert await _states(engine.pool, endpoint.id) == {"pending": ROWS // 2, "retrying": ROWS // 2}
    assert await engine.pool.fetchval("SELECT bool_and(due_at = 'infinity') FROM spine.deliveries_open")


async def test_an_endpoint_that_is_changed_again_meanwhile_ends_in_its_last_state(
    engine: Engine, worker_pool: Any
) -> None:
    """Disabled, enabled, disabled, each in the middle of the walk before: every delivery is held in the end, none twice or lost."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _backlog(engine.pool, engine.workspace_id, endpoint.id)
    transitions = await _transitions(worker_pool)
    for columns in (DISABLED, ENABLED, DISABLED, ENABLED):
        await _change(engine, endpoint.id, columns)
        for _ in range(7):
            await transitions.run_step()
    await _change(engine, endpoint.id, DISABLED)
    await _run_all(transitions)
    assert await _states(engine.pool, endpoint.id) == {"held": ROWS}
    await _change(engine, endpoint.id, ENABLED)
    await _run_all(transitions)
    assert sum((await _states(engine.pool, endpoint.id)).values()) == ROWS
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.deliveries_open WHERE state = 'held'") == 0


async def test_what_was_held_is_discarded_also_if_it_was_not_held_yet(engine: Engine, worker_pool: Any) -> None:
    """Enabled without what was held, in the middle of the walk that holds: older events are dead letters, newer ones stay.

    Until the walk ends, a claim sees deliveries of older events as those of a disabled endpoint.
    """
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _backlog(engine.pool, engine.workspace_id, endpoint.id)
    transitions = await _transitions(worker_pool)
    await _change(engine, endpoint.id, DISABLED)
    for _ in range(3):
        await transitions.run_step()
    await _change(engine, endpoint.id, ENABLED, "now()")
    assert await engine.pool.fetchval(
        "SELECT discard_before <= now() FROM spine.webhook_endpoints WHERE id = $1", endpoint.id
    )
    await engine.pool.execute(
        "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
        "VALUES ($1, $2, $3, 'order.paid', $4, 'infinity', clock_timestamp())",
        engine.workspace_id, ids.mint("dlv"), ids.mint("evt"), endpoint.id,
    )  # fmt: skip
    await _change(engine, endpoint.id, DISABLED)
    await _run_all(transitions)
    assert await _states(engine.pool, endpoint.id) == {"held": 1, "held_discarded": ROWS}
    await _change(engine, endpoint.id, ENABLED)
    await _run_all(transitions)
    assert await _states(engine.pool, endpoint.id) == {"pending": 1, "held_discarded": ROWS}
    assert (
        await engine.pool.fetchval("SELECT discard_before FROM spine.webhook_endpoints WHERE id = $1", endpoint.id)
        is None
    )


async def test_a_claim_holds_what_an_enabled_endpoint_has_still_to_discard(engine: Engine, receiver: Receiver) -> None:
    """A due delivery of an event that is to be discarded is not sent, even before the walk has reached it."""
    endpoint = await engine.endpoint(receiver.url("/hook"), ["nothing.*"])
    (event_id,) = await engine.publish()
    await engine.pool.execute("DELETE FROM spine.outbox")
    await engine.pool.execute(
        "UPDATE spine.webhook_endpoints SET discard_before = now() + interval '1 h' WHERE id = $1", endpoint.id
    )
    await engine.pool.execute(
        "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
        "VALUES ($1, $2, $3, 'order.paid', $4, now(), now())",
        engine.workspace_id, ids.mint("dlv"), event_id, endpoint.id,
    )  # fmt: skip
    async with engine.running_worker():
        await engine.until(
            lambda: engine.pool.fetchval(
                "SELECT count(*) = 1 FROM spine.deliveries_open WHERE due_at IS NULL OR due_at = 'infinity'"
            )
        )
    assert receiver.count["/hook"] == 0


async def test_a_walk_goes_on_after_its_worker_was_killed(engine: Engine, worker_pool: Any) -> None:
    """A step that is cut off is undone whole; another worker goes on where the last one that committed ended."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _backlog(engine.pool, engine.workspace_id, endpoint.id)
    await _change(engine, endpoint.id, DISABLED)
    transitions = await _transitions(worker_pool)
    for _ in range(5):
        await transitions.run_step()
    place = await engine.pool.fetchrow("SELECT event_id, delivery_id, moved FROM spine.endpoint_transitions")
    assert place["moved"] == 5 * STEP
    async with worker_pool.acquire() as killed:
        await killed.execute("BEGIN")
        await killed.fetch("SELECT * FROM spine.endpoint_follow($1, $2, $3)", engine.workspace_id, endpoint.id, STEP)
        assert not await transitions.run_step()  # nobody waits for the other's step
        await engine.pool.execute("SELECT pg_terminate_backend($1, 5000)", killed.get_server_pid())
    assert await engine.pool.fetchrow("SELECT event_id, delivery_id, moved FROM spine.endpoint_transitions") == place
    left = (ROWS - 5 * STEP) // STEP + 1
    assert await _run_all(await _transitions(worker_pool)) == left
    assert await _states(engine.pool, endpoint.id) == {"held": ROWS}


async def test_leased_deliveries_are_left_to_their_worker(engine: Engine, worker_pool: Any) -> None:
    """A delivery whose attempt is under way is not moved, so its result is recorded."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _backlog(engine.pool, engine.workspace_id, endpoint.id, 10)
    await engine.pool.execute(
        "UPDATE spine.deliveries_open SET leased_by = 'me', due_at = now() + interval '30 s' WHERE failures = 1"
    )
    transitions = await _transitions(worker_pool)
    for columns in (DISABLED, DELETED):
        await _change(engine, endpoint.id, columns)
        await _run_all(transitions)
    assert await _states(engine.pool, endpoint.id) == {"retrying": 5, "endpoint_deleted": 5}


async def test_workspaces_take_turns(engine: Engine, worker_pool: Any) -> None:
    """The long walk of one workspace does not delay that of another, and a walk that fails waits by itself."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _backlog(engine.pool, engine.workspace_id, endpoint.id)
    await _change(engine, endpoint.id, DISABLED)
    other = Engine(engine.url, engine.redis_url, engine.pool)
    await other.create_workspace()
    quiet = await other.endpoint("http://127.0.0.1:9/quiet")
    await _backlog(engine.pool, other.workspace_id, quiet.id, 10, "CCCCCC")
    await _change(other, quiet.id, DISABLED)
    transitions = await _transitions(worker_pool)
    for _ in range(2):
        await transitions.run_step()
    assert await _states(engine.pool, quiet.id) == {"held": 10}
    await engine.pool.execute(
        f"ALTER TABLE spine.deliveries_open ADD CONSTRAINT broken CHECK (NOT (endpoint_id = '{endpoint.id}' AND state = 'held')) NOT VALID"
    )
    await _change(other, quiet.id, ENABLED)
    for _ in range(2):
        await transitions.run_step()
    assert await _states(engine.pool, quiet.id) == {"pending": 5, "retrying": 5}
    row = await engine.pool.fetchrow("SELECT failures, error, due_at > now() AS waits FROM spine.endpoint_transitions")
    assert (row["failures"], row["error"], row["waits"]) == (1, "CheckViolationError", True)
    await engine.pool.execute("ALTER TABLE spine.deliveries_open DROP CONSTRAINT broken")
    await engine.pool.execute("UPDATE spine.endpoint_transitions SET due_at = now()")
    await _run_all(transitions)
    assert await _states(engine.pool, endpoint.id) == {"held": ROWS}


async def test_a_410_with_a_backlog_is_recorded_at_once_and_the_rest_follows(
    engine: Engine, receiver: Receiver
) -> None:
    """The recorder's transaction disables the endpoint and moves no other row; workers hold the backlog afterwards, unsent."""
    endpoint = await engine.endpoint(receiver.url("/gone"), ["thing.*"])
    receiver.always("/gone", ScriptedResponse(410))
    await _backlog(engine.pool, engine.workspace_id, endpoint.id)
    await engine.pool.execute("UPDATE spine.deliveries_open SET due_at = now() + interval '1 h', state = 'retrying'")
    async with engine.running_worker():
        await engine.publish()
        await engine.until_states(dead=1, held=ROWS)

        async def followed() -> bool:
            return bool(await engine.pool.fetchval("SELECT count(*) = 0 FROM spine.endpoint_transitions"))

        await until(followed, "the end of the walk was not recorded")  # the step after the last rows finds no more
    assert receiver.count["/gone"] == 1


async def test_the_request_moves_a_bounded_number_itself(api: Api, org: Organisation) -> None:
    """PATCH, enable and DELETE move at most their first step; the rest waits for the workers, and nothing is lost."""
    rows = 3 * FIRST_STEP
    async with org.test.async_client() as http, owner_connection(api) as owner:
        made = await http.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/", "events": ["order.paid"]})
        id = made.json()["id"]
        path = f"/v1/webhook_endpoints/{id}"
        await _backlog(owner, org.test.workspace_id, id, rows)
        assert (await http.patch(path, json={"status": "disabled"})).status_code == 200
        assert (await _states(owner, id))["held"] == FIRST_STEP
        assert (await http.post(f"{path}/enable", json={"held": "none"})).status_code == 200
        assert (await _states(owner, id))["held_discarded"] == FIRST_STEP
        assert (await http.delete(path)).status_code == 200
        found = await _states(owner, id)
        assert (found["held_discarded"], found["endpoint_deleted"], sum(found.values())) == (
            FIRST_STEP,
            FIRST_STEP,
            rows,
        )
        pool = await open_pool(api.database_url, "spine_worker", "test", 1)
        await _run_all(await _transitions(pool))
        pool.terminate()
        assert await _states(owner, id) == {"held_discarded": FIRST_STEP, "endpoint_deleted": 2 * FIRST_STEP}


async def test_the_sweep_finds_held_deliveries_that_no_walk_reached(engine: Engine, worker_pool: Any) -> None:
    """Deliveries that a relay held just before the endpoint was enabled are released; those of disabled endpoints stay."""
    enabled = [await engine.endpoint("http://127.0.0.1:9/") for _ in range(3)]
    disabled = await engine.endpoint("http://127.0.0.1:9/", status="disabled")
    for n, endpoint in enumerate((*enabled, disabled)):
        await _backlog(engine.pool, engine.workspace_id, endpoint.id, 10, f"DDDDD{n}")
    await engine.pool.execute("UPDATE spine.deliveries_open SET state = 'held', due_at = NULL")
    transitions = await _transitions(worker_pool)
    await transitions.sweep()
    await asyncio.gather(*(transitions.run_step() for _ in range(3)))
    await _run_all(transitions)
    for endpoint in enabled:
        assert await _states(engine.pool, endpoint.id) == {"pending": 5, "retrying": 5}
    assert await _states(engine.pool, disabled.id) == {"held": 10}
