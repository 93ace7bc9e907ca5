"""Availability is one query, which an index serves however many slots and appointments there are (P-27)."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event as engine_event

from tests.api import Api, Organisation
from tests.booking import Calendar, days_ahead
from tests.database import owner_connection

_MANY = """
    INSERT INTO spine.slots (workspace_id, id, resource_id, starts_at, ends_at, bookable_until, capacity, booked)
    SELECT $1, 'slt_' || lpad(n::text, 26, '0'), $2, at, at + interval '30 minutes', at, 1, (n % 3 > 0)::int
      FROM (SELECT n, now() + make_interval(mins => 30 * n) AS at FROM generate_series(-5000, 15000) n) s
"""
_BOOKED = """
    INSERT INTO spine.appointments (workspace_id, id, slot_id, resource_id, contact_id, booked_via, starts_at, ends_at,
        begins_at, occupied)
    SELECT workspace_id, 'apt_' || substr(id, 5), id, resource_id, $2, 'api', starts_at, ends_at, starts_at,
           tstzrange(starts_at, ends_at)
      FROM spine.slots WHERE workspace_id = $1 AND booked = 1
"""


@pytest.fixture(scope="module")
def busy(api: Api) -> tuple[Organisation, str]:
    """An organisation with 20,001 slots of one resource, two thirds of them booked. Returns it with the resource's id."""
    org = api.sign_up()
    with org.test.client() as http:
        calendar = Calendar(http)
        resource_id, contact_id = calendar.resource(), calendar.contact()

    async def fill() -> None:
        async with owner_connection(api) as owner:
            await owner.execute(_MANY, org.test.workspace_id, resource_id)
            await owner.execute(_BOOKED, org.test.workspace_id, contact_id)
            await owner.execute("ANALYZE spine.slots, spine.appointments")

    asyncio.run(fill())
    return org, resource_id


def statements_of(api: Api, calendar: Calendar, **query: Any) -> list[tuple[str, Any]]:
    """The statements that one read of availability makes, with their values."""
    found: list[tuple[str, Any]] = []
    engine = api.app.state.platform.engine.sync_engine

    def record(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        found.append((statement, values))

    engine_event.listen(engine, "before_cursor_execute", record)
    try:
        assert len(calendar.get("slots", **query)["data"]) == 25
    finally:
        engine_event.remove(engine, "before_cursor_execute", record)
    return found


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", []) for node in _nodes(part))]


@pytest.mark.parametrize("filters", [(), ("to",), ("resource_id",), ("from", "to", "resource_id")], ids=str)
def test_an_index_serves_the_one_query(api: Api, busy: tuple[Organisation, str], filters: tuple[str, ...]) -> None:
    """A read is one statement; its plan sorts nothing, and reads about as many slots as it shows, one appointment for each."""
    org, resource_id = busy
    known = {
        "from": days_ahead(1).isoformat(),
        "to": days_ahead(300).isoformat(),
        "resource_id": resource_id,
    }
    with org.test.client() as http:
        own = statements_of(api, Calendar(http), **{name: known[name] for name in filters})
    [(begin, _), (statement, values)] = own
    assert begin.startswith("SELECT set_config")
    plan = asyncio.run(_explain(api, org, statement, values))
    run = [node for node in _nodes(plan) if node["Actual Loops"]]
    scans = {node["Relation Name"]: node for node in run if node.get("Relation Name") in ("slots", "appointments")}
    assert scans["slots"]["Index Name"].startswith("slots_available")
    assert scans["appointments"]["Index Name"] == "appointments_of_time"
    assert scans["slots"]["Actual Rows"] <= 60
    assert scans["appointments"]["Actual Rows"] <= 1
    assert "Sort" not in {node["Node Type"] for node in run}


async def _explain(api: Api, org: Organisation, statement: str, values: Any) -> dict[str, Any]:
    connection = await asyncpg.connect(api.database_url, server_settings={"role": "spine_app"})
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('app.ws', $1, true)", org.test.workspace_id)
            rows = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
    finally:
        await connection.close()
    plan: dict[str, Any] = json.loads(rows)[0]["Plan"]
    return plan
