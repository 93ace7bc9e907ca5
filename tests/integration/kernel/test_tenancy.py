"""Isolation, enforced in the database and not told by any answer."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from spine.kernel.database import open_engine, open_pool
from tests.api import Account, Api, Organisation
from tests.contract.specification import BEHIND_THE_DOOR, Operation
from tests.one_of_each import Things, make_things

OURS = "n.nspname = 'spine'"
TENANT_TABLES = f"""
    SELECT c.oid::regclass::text AS name, c.relrowsecurity, c.relforcerowsecurity, c.relispartition
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'workspace_id'
     WHERE {OURS} AND c.relkind IN ('r', 'p')
"""
GLOBALLY_UNIQUE = {
    "api_keys: (hash)",
    "workspaces: (organisation_id, env)",
    "workspaces: (organisation_id)",  # the foreign key to what stands above all workspaces
}
"""Looked up before the workspace is known, or the workspaces themselves (wire.md)."""


async def rows(url: str, query: str, *values: object, role: str | None = None) -> list[asyncpg.Record]:
    """What a query answers, to the owner or to another role."""
    connection = await asyncpg.connect(url, server_settings={"role": role} if role else None)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *values)
        return found
    finally:
        await connection.close()


async def test_every_tenant_table_is_forced_under_row_security(module_database: str) -> None:
    """Each table with a workspace_id, partitions included, has row-level security enabled and forced (P-14)."""
    found = await rows(module_database, TENANT_TABLES)
    assert len(found) > 10
    assert [row["name"] for row in found if not (row["relrowsecurity"] and row["relforcerowsecurity"])] == []


async def test_every_tenant_table_has_policies_for_its_own_workspace(module_database: str) -> None:
    """The app role's policies compare workspace_id with the setting, for reading and for writing."""
    for table in await rows(module_database, TENANT_TABLES):
        if table["relispartition"]:
            continue  # reached through their parent only; nobody but the owner has grants on them
        policies = await rows(
            module_database,
            "SELECT pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS checks FROM pg_policy "
            "WHERE polrelid = $1::text::regclass AND 'spine_app'::regrole = ANY (polroles)",
            table["name"],
        )
        assert policies, table["name"]
        for policy in policies:
            for text in (policy["using"], policy["checks"]):
                assert "workspace_id = current_setting('app.ws'::text, true)" in text, table["name"]


async def test_keys_lead_with_the_workspace(module_database: str) -> None:
    """Primary keys, unique constraints and foreign keys of tenant tables start with workspace_id: the shape Citus takes."""
    query = f"""
        SELECT t.relname AS table, c.contype::text AS kind,
               (SELECT string_agg(a.attname, ', ' ORDER BY k.n) FROM unnest(c.conkey) WITH ORDINALITY k (num, n)
                  JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num) AS columns
          FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
         WHERE {OURS} AND c.contype IN ('p', 'u', 'f') AND NOT t.relispartition
           AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attname = 'workspace_id')
    """
    odd = {
        f"{row['table']}: ({row['columns']})"
        for row in await rows(module_database, query)
        if row["columns"].split(", ")[0] != "workspace_id"
    }
    assert odd - GLOBALLY_UNIQUE == set()
    unique_indexes = f"""
        SELECT t.relname AS table, pg_get_indexdef(i.indexrelid) AS definition
          FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
         WHERE {OURS} AND i.indisunique AND NOT t.relispartition
           AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = 'workspace_id')
    """
    for row in await rows(module_database, unique_indexes):
        columns = row["definition"].partition(" USING btree ")[2]
        assert columns.startswith("(workspace_id") or f"{row['table']}: {columns}" in GLOBALLY_UNIQUE, row["definition"]


async def test_the_app_role_owns_and_bypasses_nothing(module_database: str) -> None:
    """Neither role is a superuser, bypasses row security, logs in, or owns a table; and the app is no worker (P-14)."""
    roles = await rows(
        module_database,
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin FROM pg_roles "
        "WHERE rolname IN ('spine_app', 'spine_worker')",
    )
    assert len(roles) == 2
    assert not any(value for role in roles for value in list(role.values())[1:])
    owned = await rows(
        module_database,
        "SELECT relname FROM pg_class WHERE relowner IN ('spine_app'::regrole, 'spine_worker'::regrole)",
    )
    assert owned == []
    assert (await rows(module_database, "SELECT pg_has_role('spine_app', 'spine_worker', 'member') AS x"))[0][
        "x"
    ] is False


async def test_definer_functions_are_few_and_have_a_fixed_path(module_database: str) -> None:
    """Whatever runs with another role's rights has a fixed search_path, and is not for everybody to call (conventions 2.4)."""
    found = await rows(
        module_database,
        f"SELECT p.proname, p.proconfig, p.proacl::text AS acl FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        f"WHERE {OURS} AND p.prosecdef",
    )
    assert found
    for function in found:
        assert "search_path=pg_catalog" in (function["proconfig"] or []), function["proname"]
        assert function["acl"] is not None, function["proname"]
        assert "{=X" not in function["acl"], function["proname"]
        assert ",=X" not in function["acl"], function["proname"]


async def test_views_ask_in_the_name_of_who_asks(module_database: str) -> None:
    """A view that ran with its owner's rights would show every workspace (conventions 2.5)."""
    views = await rows(
        module_database,
        f"SELECT c.relname, c.reloptions FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE {OURS} AND c.relkind IN ('v', 'm')",
    )
    assert [view["relname"] for view in views if "security_invoker=true" not in (view["reloptions"] or [])] == []


@pytest.mark.parametrize("setting", [None, "", "wsp_00000000000000000000000000"])
async def test_the_app_role_sees_nothing_without_its_workspace(
    setting: str | None, api: Api, org: Organisation
) -> None:
    """With no workspace set, an empty one or a strange one, every tenant table is empty and takes nothing (P-14)."""
    await asyncio.to_thread(make_things, org.test, api.database_url)
    connection = await asyncpg.connect(api.database_url, server_settings={"role": "spine_app"})
    try:
        if setting is not None:
            await connection.execute("SELECT set_config('app.ws', $1, false)", setting)
        for table in await connection.fetch(TENANT_TABLES):
            if not table["relispartition"]:
                assert await connection.fetchval(f"SELECT count(*) FROM {table['name']}") == 0, table["name"]
        assert await connection.fetchval("SELECT count(*) FROM spine.deliveries") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(
                "INSERT INTO spine.users (workspace_id, id, name, email) VALUES ($1, 'usr_x', 'x', 'x')",
                org.test.workspace_id,
            )
    finally:
        await connection.close()


async def test_a_setting_does_not_outlive_its_transaction(api: Api, org: Organisation) -> None:
    """The pools of a served API hold no connection that still sees a workspace (conventions 2.5)."""
    async with org.test.async_client() as http:
        await asyncio.gather(
            *(http.post("/v1/users", json={"name": "x", "email": f"u{n}@example.com"}) for n in range(20))
        )
        await asyncio.gather(*(http.post("/v1/events", json={"type": "order.paid", "data": {}}) for _ in range(20)))
    left = await rows(
        api.database_url,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'",
    )
    assert left[0][0] == 0


@pytest.fixture(scope="module")
def foreign(api: Api) -> Things:
    """One of everything in somebody else's test workspace."""
    return make_things(api.sign_up("Other").test, api.database_url)


def shape(answer: httpx.Response) -> dict[str, Any]:
    """All of an answer but what differs between any two."""
    body = {**answer.json(), "request_id": "-"}
    volatile = {"request-id", "date", "ratelimit"}
    return {
        "status": answer.status_code,
        "body": body,
        "headers": {name: value for name, value in answer.headers.items() if name not in volatile},
    }


OF_ONE = [operation for operation in BEHIND_THE_DOOR if operation.of_one]


def ask(http: httpx.Client, operation: Operation, path: str) -> dict[str, Any]:
    """What the operation answers at this path."""
    body = operation.body()
    return shape(http.request(operation.method, path, **({} if body is None else {"json": body})))


@pytest.mark.parametrize("operation", OF_ONE, ids=str)
def test_a_foreign_id_is_like_none(operation: Operation, http: httpx.Client, foreign: Things) -> None:
    """Somebody else's id and one that was never issued get the same answer, to the last header (P-15)."""
    theirs = ask(http, operation, foreign.path(operation.path))
    nobodys = ask(http, operation, operation.random_path())
    assert theirs == nobodys
    assert theirs["status"] == 404


@pytest.fixture(scope="module")
def both(api: Api) -> tuple[Organisation, Things]:
    """An organisation, and one of everything in its test workspace."""
    made = api.sign_up()
    return made, make_things(made.test, api.database_url)


@pytest.mark.parametrize("operation", OF_ONE, ids=str)
def test_a_test_id_under_a_live_key(operation: Operation, both: tuple[Organisation, Things]) -> None:
    """What stands in an organisation's test workspace is not there for its own live key (P-02)."""
    founded, things = both
    with founded.live.client() as http:
        assert ask(http, operation, things.path(operation.path)) == ask(http, operation, operation.random_path())


def test_a_live_id_under_a_test_key(org: Organisation) -> None:
    """What was made live is not there for the test key (P-02)."""
    with org.live.client() as live, org.test.client() as tested:
        user = live.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).json()
        event = live.post("/v1/events", json={"type": "order.paid", "data": {}}).json()
        key = live.post("/v1/api_keys", json={"name": "x", "scopes": ["*"]}).json()
        for path in (f"/v1/users/{user['id']}", f"/v1/events/{event['id']}", f"/v1/api_keys/{key['id']}"):
            assert live.get(path).status_code == 200
            assert tested.get(path).status_code == 404
        for path in ("/v1/users", "/v1/events"):
            assert tested.get(path).json()["data"] == []
        assert [row["id"] for row in live.get("/v1/users").json()["data"]] == [user["id"]]


def test_filters_and_references_do_not_tell(http: httpx.Client, foreign: Things) -> None:
    """In a filter a foreign id finds nothing; as a reference it is unknown: in both like a random one (P-15, W-01)."""
    random = {"endpoint_id": "whe_01M7XZQ13PQ2QS290DBGHN958X", "event_id": "evt_01M7XZQ13PQ2QS290DBGHN958X"}
    theirs = {"endpoint_id": foreign.by_list["webhook_endpoints"], "event_id": foreign.by_list["events"]}
    for name in random:
        for path in ("/v1/deliveries", "/v1/dead_letters"):
            answers = [shape(http.get(path, params={name: ids[name]})) for ids in (random, theirs)]
            assert answers[0] == answers[1]
            assert answers[0]["body"]["data"] == []
    constraint_errors = [
        shape(http.post("/v1/replays", json={"filter": {"endpoint_id": ids["endpoint_id"]}}))
        for ids in (random, theirs)
    ]
    assert constraint_errors[0] == constraint_errors[1]
    assert constraint_errors[0]["status"] == 422
    assert (constraint_errors[0]["body"]["code"], constraint_errors[0]["body"]["param"]) == (
        "reference_not_found",
        "filter.endpoint_id",
    )


def test_unique_texts_are_unique_per_workspace(api: Api, org: Organisation) -> None:
    """What one workspace calls its own is free in every other one: no 409 tells of it (P-15)."""
    accounts: list[Account] = [org.test, org.live, api.sign_up().test]
    for account in accounts:
        with account.client() as http:
            assert http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).status_code == 201
            assert http.post("/v1/event_types", json={"name": "order.paid"}).status_code == 201


async def test_the_pools_connect_as_the_app_role(module_database: str) -> None:
    """What serves requests is the role under row security, never the owner; so this suite meets what callers meet."""
    pool = await open_pool(module_database, "spine_app", "test", 1)
    engine = open_engine(module_database, "spine_app", "test", 1)
    try:
        assert await pool.fetchval("SELECT current_user") == "spine_app"
        async with engine.connect() as connection:
            assert (await connection.exec_driver_sql("SELECT current_user::text")).scalar_one() == "spine_app"
    finally:
        await pool.close()
        await engine.dispose()
