"""Tenant isolation: the database enforces it, and no response reveals other workspaces."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from spine.kernel.database import open_engine, open_pool
from tests.api import Account, Api, Organisation
from tests.contract.specification import AUTHENTICATED, Operation
from tests.one_of_each import OneOfEach, create_one_of_each

OURS = "n.nspname = 'spine'"
TENANT_TABLES = f"""
    SELECT c.oid::regclass::text AS name, c.relrowsecurity, c.relforcerowsecurity, c.relispartition
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'workspace_id'
     WHERE {OURS} AND c.relkind IN ('r', 'p')
"""
GLOBALLY_UNIQUE = {
    "api_key_hashes: (hash)",
    "public_slugs: (kind, slug)",
    "workspaces: (organisation_id, env)",
    "workspaces: (organisation_id)",  # the foreign key to organisations, which have no workspace
}
"""Unique in the three directories alone: of the hashes of API keys, of public slugs, and of workspaces."""


async def rows(url: str, query: str, *values: object, role: str | None = None) -> list[asyncpg.Record]:
    """The result of a query, run as the owner or as another role."""
    connection = await asyncpg.connect(url, server_settings={"role": role} if role else None)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *values)
        return found
    finally:
        await connection.close()


async def test_every_tenant_table_has_row_security_for_its_own_workspace(module_database: str) -> None:
    """Each table with a workspace_id, partitions included, has row-level security enabled and forced (P-14).

    The app role's policies compare workspace_id with the setting, for reading and for writing. Partitions need no policy:
    only the owner has grants on them.
    """
    policies = await rows(
        module_database,
        "SELECT polrelid::regclass::text AS name, pg_get_expr(polqual, polrelid) AS using, "
        "pg_get_expr(polwithcheck, polrelid) AS checks FROM pg_policy WHERE 'spine_app'::regrole = ANY (polroles)",
    )
    tables = await rows(module_database, TENANT_TABLES)
    assert len(tables) > 10
    for table in tables:
        assert table["relrowsecurity"], table["name"]
        assert table["relforcerowsecurity"], table["name"]
        own = [policy for policy in policies if policy["name"] == table["name"]]
        assert own or table["relispartition"], table["name"]
        for text in (text for policy in own for text in (policy["using"], policy["checks"])):
            assert "workspace_id = current_setting('app.ws'::text, true)" in text, table["name"]


async def test_keys_start_with_the_workspace(module_database: str) -> None:
    """Primary keys, unique keys and foreign keys of tenant tables start with workspace_id, as Citus requires."""
    keys = await rows(
        module_database,
        f"""
        SELECT t.relname AS table, split_part(pg_get_indexdef(i.indexrelid), ' USING btree ', 2) AS columns
          FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'workspace_id'
         WHERE {OURS} AND i.indisunique AND NOT t.relispartition
        UNION ALL
        SELECT t.relname, substring(pg_get_constraintdef(c.oid) FROM '^FOREIGN KEY ([(][^)]*[)])')
          FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'workspace_id'
         WHERE {OURS} AND c.contype = 'f' AND NOT t.relispartition
        """,
    )
    assert len(keys) > 30
    found = {f"{key['table']}: {key['columns']}" for key in keys if not key["columns"].startswith("(workspace_id")}
    assert found == GLOBALLY_UNIQUE


async def test_the_app_role_owns_and_bypasses_nothing(module_database: str) -> None:
    """Neither role is a superuser, bypasses row security, logs in or owns a table; the app role is no worker (P-14)."""
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
    [member] = await rows(module_database, "SELECT pg_has_role('spine_app', 'spine_worker', 'member') AS found")
    assert member["found"] is False


async def test_definer_functions_are_few_and_have_a_fixed_path(module_database: str) -> None:
    """A SECURITY DEFINER function has a fixed search_path, and PUBLIC must not execute it (conventions 2.4)."""
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


async def test_views_run_with_the_rights_of_the_caller(module_database: str) -> None:
    """Every view is security_invoker: with its owner's rights it would show every workspace (conventions 2.5)."""
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
    """With no workspace set, an empty one or an unknown one, every tenant table is empty and refuses inserts (P-14)."""
    await asyncio.to_thread(create_one_of_each, org.test, api.database_url)
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
    """After requests, no pooled connection of the API is in a transaction that has a workspace set (conventions 2.5)."""
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
def foreign(api: Api) -> OneOfEach:
    """One resource of each kind in another organisation's test workspace."""
    return create_one_of_each(api.sign_up("Other").test, api.database_url)


def shape(response: httpx.Response) -> dict[str, Any]:
    """A response without the values that differ between any two responses."""
    body = {**response.json(), "request_id": "-"}
    volatile = {"request-id", "date", "ratelimit"}
    return {
        "status": response.status_code,
        "body": body,
        "headers": {name: value for name, value in response.headers.items() if name not in volatile},
    }


OF_ONE = [operation for operation in AUTHENTICATED if operation.of_one]


def call(http: httpx.Client, operation: Operation, path: str) -> dict[str, Any]:
    """The response of the operation at this path."""
    body = operation.body()
    return shape(http.request(operation.method, path, **({} if body is None else {"json": body})))


@pytest.fixture(scope="module")
def live_and_test(api: Api) -> tuple[Account, OneOfEach]:
    """The live account of an organisation, and one resource of each kind in its test workspace."""
    made = api.sign_up()
    return made.live, create_one_of_each(made.test, api.database_url)


@pytest.mark.parametrize("operation", OF_ONE, ids=str)
def test_an_invisible_id_is_like_an_unknown_id(
    operation: Operation, http: httpx.Client, foreign: OneOfEach, live_and_test: tuple[Account, OneOfEach]
) -> None:
    """An invisible id gets the same response, to the last header, as an id that was never issued: 404.

    That holds for another organisation's ids (P-15), and for ids of one's own test workspace under a live key (P-02).
    """
    live, tested = live_and_test
    with live.client() as live_http:
        for caller, existing in ((http, foreign), (live_http, tested)):
            unknown = call(caller, operation, operation.random_path())
            assert call(caller, operation, existing.path(operation.path)) == unknown
            assert unknown["status"] == 404


def test_a_live_id_under_a_test_key(org: Organisation) -> None:
    """Resources of the live workspace do not exist for the test key (P-02)."""
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


def test_filters_and_references_reveal_nothing(http: httpx.Client, foreign: OneOfEach) -> None:
    """A foreign id in a filter finds nothing and as a reference is not found, like a random id (P-15, W-01)."""
    random = {"endpoint_id": "whe_01M7XZQ13PQ2QS290DBGHN958X", "event_id": "evt_01M7XZQ13PQ2QS290DBGHN958X"}
    theirs = {"endpoint_id": foreign.by_collection["webhook_endpoints"], "event_id": foreign.by_collection["events"]}
    for name in random:
        for path in ("/v1/deliveries", "/v1/dead_letters"):
            responses = [shape(http.get(path, params={name: ids[name]})) for ids in (random, theirs)]
            assert responses[0] == responses[1]
            assert responses[0]["body"]["data"] == []
    unknown, hidden = (
        shape(http.post("/v1/replays", json={"filter": {"endpoint_id": ids["endpoint_id"]}}))
        for ids in (random, theirs)
    )
    assert hidden == unknown
    body = unknown["body"]
    assert (unknown["status"], body["code"], body["param"]) == (422, "reference_not_found", "filter.endpoint_id")


def test_names_are_unique_per_workspace_only(api: Api, org: Organisation) -> None:
    """A unique value of one workspace is free in every other one, so no 409 reveals it (P-15)."""
    accounts: list[Account] = [org.test, org.live, api.sign_up().test]
    for account in accounts:
        with account.client() as http:
            assert http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).status_code == 201
            assert http.post("/v1/event_types", json={"name": "order.paid"}).status_code == 201


async def test_the_pools_connect_as_the_app_role(module_database: str) -> None:
    """The API connects as the role under row-level security, never as the owner, in production as in these tests."""
    pool = await open_pool(module_database, "spine_app", "test", 1)
    engine = open_engine(module_database, "spine_app", "test", 1)
    try:
        assert await pool.fetchval("SELECT current_user") == "spine_app"
        async with engine.connect() as connection:
            assert (await connection.exec_driver_sql("SELECT current_user::text")).scalar_one() == "spine_app"
    finally:
        await pool.close()
        await engine.dispose()
