"""Idempotency keys against the real database: once, or not at all, and the same answer ever after."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api import Account, Api, Organisation, serve, unique_key

USER = {"name": "Ann", "email": "ann@example.com"}
ENDPOINT = {"url": "http://127.0.0.1:9/", "events": ["order.paid"]}
EVENT = {"type": "order.paid", "data": {"n": 1}}
CREATES = [("/v1/users", USER), ("/v1/webhook_endpoints", ENDPOINT), ("/v1/events", EVENT)]


async def fetch(api: Api, query: str, *values: object) -> Any:
    """One value, read as the database's owner."""
    connection = await asyncpg.connect(api.database_url)
    try:
        return await connection.fetchval(query, *values)
    finally:
        await connection.close()


def count(api: Api, table: str, account: Account) -> int:
    """The workspace's rows of a table."""
    found: int = asyncio.run(
        fetch(api, f"SELECT count(*) FROM spine.{table} WHERE workspace_id = $1", account.workspace_id)
    )
    return found


def same(answer: httpx.Response, first: httpx.Response) -> bool:
    """The very answer again, marked as a replay."""
    return (
        answer.status_code == first.status_code
        and answer.content == first.content
        and answer.headers.get("location") == first.headers.get("location")
        and answer.headers["content-type"] == first.headers["content-type"]
        and answer.headers.get("idempotent-replayed") == "true"
        and answer.headers["request-id"] != first.headers["request-id"]
    )


requests = st.lists(
    st.tuples(
        st.sampled_from("abc"),  # key
        st.sampled_from(["/v1/users", "/v1/users?x=1", "/v1/events"]),
        st.sampled_from(["ann", "bob", "not fit"]),
        st.booleans(),  # in another order of names
        st.sampled_from([None, 1, 4]),  # white space
    ),
    max_size=12,
)


@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(calls=requests)
def test_any_retries_in_any_order(api: Api, calls: list[tuple[str, str, str, bool, int | None]]) -> None:
    """Of any sequence of calls, each key answers its first request for ever and refuses all others (P-06, P-07)."""
    account = api.sign_up().test
    answered: dict[str, tuple[tuple[str, str], httpx.Response]] = {}
    with account.client() as http:
        for key, path, who, backwards, indent in calls:
            body: dict[str, Any] = {"name": who, "email": f"{who}@example.com"}
            if path == "/v1/events":
                body = {"type": "order.paid", "data": {"who": who, "n": [1, {"b": 1, "a": 2}]}}
            if who == "not fit":
                body["unknown"] = 1
            items = list(body.items())
            text = json.dumps(dict(reversed(items) if backwards else items), indent=indent)
            answer = http.post(path, content=text, headers={"Content-Type": "application/json", "Idempotency-Key": key})
            request = (path, who)
            if who == "not fit":  # refused by its schema before the key is looked at, and never stored (X17)
                assert answer.status_code == 422
                assert "idempotent-replayed" not in answer.headers
            elif key not in answered:
                assert answer.status_code in (201, 409)  # 409: that user exists, which is a result too
                assert "idempotent-replayed" not in answer.headers
                answered[key] = (request, answer)
            elif answered[key][0] == request:
                assert same(answer, answered[key][1])
            else:
                assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize(("path", "body"), CREATES, ids=[path for path, _ in CREATES])
async def test_twenty_at_once_are_one(path: str, body: dict[str, Any], api: Api, org: Organisation) -> None:
    """Twenty equal requests at the same time, at two processes: executed once, and all get the same bytes."""
    key = {"Idempotency-Key": unique_key()}
    with serve(api.database_url, api.redis_url) as other:
        elsewhere = Account(other.url, org.test.organisation_id, org.test.workspace_id, org.test.key)
        async with org.test.async_client() as one, elsewhere.async_client() as two:
            answers = await asyncio.gather(
                *(http.post(path, json=body, headers=key) for http in (one, two) for _ in range(10))
            )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    table = path.removeprefix("/v1/")
    assert await fetch(api, f"SELECT count(*) FROM spine.{table} WHERE workspace_id = $1", org.test.workspace_id) == 1


@pytest.mark.parametrize(("path", "body"), CREATES, ids=[path for path, _ in CREATES])
async def test_a_key_whose_first_request_runs_on_is_in_use(
    path: str, body: dict[str, Any], api: Api, org: Organisation
) -> None:
    """A duplicate waits for the first request; when that takes too long it is 409 with Retry-After, and nothing is stored."""
    key = unique_key()
    other = await asyncpg.connect(api.database_url)
    running = other.transaction()
    await running.start()
    await other.execute(
        "INSERT INTO spine.idempotency_keys (workspace_id, key, fingerprint, expires_at) VALUES ($1, $2, '', now() + interval '1 day')",
        org.test.workspace_id,
        key,
    )
    async with org.test.async_client() as http:
        answer = await http.post(path, json=body, headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
        assert answer.headers["retry-after"] == "1"
        waiting = asyncio.create_task(http.post(path, json=body, headers={"Idempotency-Key": key}))
        await asyncio.sleep(0.2)
        await running.rollback()  # the first request fell over: its duplicate is the first one now
        assert (await waiting).status_code == 201
    await other.close()


async def test_waiting_duplicates_keep_nobody_else_waiting(api: Api, org: Organisation) -> None:
    """However many duplicates wait for one key, they hold no more than one connection: others are served meanwhile."""
    key = unique_key()
    other = await asyncpg.connect(api.database_url)
    running = other.transaction()
    await running.start()
    await other.execute(
        "INSERT INTO spine.idempotency_keys (workspace_id, key, fingerprint, expires_at) VALUES ($1, $2, '', now() + interval '1 day')",
        org.test.workspace_id,
        key,
    )
    async with org.test.async_client() as http:
        duplicates = [
            asyncio.create_task(http.post(path, json=body, headers={"Idempotency-Key": key}))
            for path, body in CREATES
            for _ in range(20)
        ]
        await asyncio.sleep(0.3)
        served = await asyncio.gather(*(http.post("/v1/events", json=EVENT) for _ in range(10)), http.get("/v1/users"))
        assert {answer.status_code for answer in served} == {200, 201}
        assert not any(task.done() for task in duplicates)
        await running.rollback()
        answers = await asyncio.gather(*duplicates)
    await other.close()
    assert sum(answer.status_code == 201 and "idempotent-replayed" not in answer.headers for answer in answers) == 1


def test_the_results_of_rules_are_replayed(http: httpx.Client) -> None:
    """A refusal by a rule is a result: the same 409 or 404 again, even when the rule would say otherwise by now (X17)."""
    http.post("/v1/users", json=USER)
    key = {"Idempotency-Key": unique_key()}
    refused = http.post("/v1/users", json=USER, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (409, "user_exists")
    assert same(http.post("/v1/users", json=USER, headers=key), refused)
    key = {"Idempotency-Key": unique_key()}
    missing = http.post("/v1/replays/rpl_01M7XZQ13PQ2QS290DBGHN958X/pause", headers=key)
    assert missing.status_code == 404
    assert same(http.post("/v1/replays/rpl_01M7XZQ13PQ2QS290DBGHN958X/pause", headers=key), missing)
    key = {"Idempotency-Key": unique_key()}
    reserved = http.post("/v1/events", json={"type": "user.created", "data": {}}, headers=key)
    assert (reserved.status_code, reserved.json()["code"]) == (409, "event_type_reserved")
    assert same(http.post("/v1/events", json={"type": "user.created", "data": {}}, headers=key), reserved)


def test_what_was_never_executed_is_not_stored(http: httpx.Client, org: Organisation) -> None:
    """400, 401, 403 and 422 of a schema leave the key free for the mended request (X17)."""
    key = {"Idempotency-Key": unique_key()}
    narrow = http.post("/v1/api_keys", json={"name": "narrow", "scopes": ["events:read"]}).json()["api_key"]
    with org.test.client("sk_test_nobody") as nobody, org.test.client(narrow) as narrowed:
        assert nobody.post("/v1/users", json=USER, headers=key).status_code == 401
        assert narrowed.post("/v1/users", json=USER, headers=key).status_code == 403
    assert http.post("/v1/users", json={"name": ""}, headers=key).status_code == 422
    assert http.post("/v1/users", content=b"{", headers=key).status_code == 422
    assert http.post("/v1/users", json={"name": "a\0", "email": "a@example.com"}, headers=key).status_code == 422
    assert http.post("/v1/users", json=USER, headers=key).status_code == 201


def test_keys_belong_to_a_workspace(api: Api, org: Organisation) -> None:
    """Two workspaces may use one key for different things, and neither learns of the other (P-02)."""
    key = {"Idempotency-Key": unique_key()}
    for account in (org.test, org.live, api.sign_up().test):
        with account.client() as http:
            answer = http.post("/v1/users", json={**USER, "name": account.workspace_id}, headers=key)
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers


def dump(api: Api) -> str:
    """Everything that stands in the database, as text; bytes as hexadecimal digits."""

    async def read() -> str:
        connection = await asyncpg.connect(api.database_url)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'spine'")
            rows = [await connection.fetch(f"SELECT t::text AS row FROM spine.{name} t") for (name,) in tables]
        finally:
            await connection.close()
        return "\n".join(row["row"] for table in rows for row in table)

    return asyncio.run(read())


def test_no_secret_stands_in_the_database(api: Api, http: httpx.Client) -> None:
    """Keys and webhook secrets are nowhere at rest, neither in their tables nor in stored answers; and they replay."""
    secrets: list[str] = []
    made = http.post("/v1/webhook_endpoints", json={**ENDPOINT, "headers": {"X-Token": "opensesame-4711"}}).json()
    for path, body, field in (
        ("/v1/webhook_endpoints", ENDPOINT, "secret"),
        (f"/v1/webhook_endpoints/{made['id']}/rotate_secret", {}, "secret"),
        ("/v1/api_keys", {"name": "second", "scopes": ["*"]}, "api_key"),
    ):
        key = {"Idempotency-Key": unique_key()}
        first = http.post(path, json=body, headers=key)
        assert same(http.post(path, json=body, headers=key), first)
        secrets.append(first.json()[field])
    rolled = http.post(f"/v1/api_keys/{first.json()['id']}/roll", json={})
    secrets += [rolled.json()["api_key"], made["secret"], "opensesame-4711"]
    everything = dump(api)
    assert made["id"] in everything
    for secret in secrets:
        bare = secret.removeprefix("whsec_")
        assert bare not in everything
        assert bare.encode().hex() not in everything


def test_a_key_is_good_for_24_hours(http: httpx.Client) -> None:
    """At 23:59 the first answer comes again; at 24:01 the same key is a new request (P-08, X3)."""
    key = {"Idempotency-Key": unique_key()}
    first = http.post("/v1/events", json=EVENT, headers=key)
    of_user = http.post("/v1/users", json=USER, headers=key | {"Idempotency-Key": unique_key()})
    user_key = {"Idempotency-Key": of_user.request.headers["Idempotency-Key"]}
    http.post("/v1/test_helpers/clock", json={"advance_s": 24 * 3600 - 60})
    assert same(http.post("/v1/events", json=EVENT, headers=key), first)
    assert same(http.post("/v1/users", json=USER, headers=user_key), of_user)
    http.post("/v1/test_helpers/clock", json={"advance_s": 120})
    anew = http.post("/v1/events", json=EVENT, headers=key)
    assert anew.status_code == 201
    assert "idempotent-replayed" not in anew.headers
    assert anew.json()["id"] != first.json()["id"]
    again = http.post("/v1/users", json={**USER, "name": "Other"}, headers=user_key)
    assert (again.status_code, again.json()["code"]) == (409, "user_exists")


def test_the_clock_keeps_its_own_key(http: httpx.Client) -> None:
    """A retried move of the clock moves it once, however far it went."""
    key = {"Idempotency-Key": unique_key()}
    first = http.post("/v1/test_helpers/clock", json={"advance_s": 200_000}, headers=key)
    assert same(http.post("/v1/test_helpers/clock", json={"advance_s": 200_000}, headers=key), first)


def test_a_rolled_key_replays_and_a_revoked_one_does_not(http: httpx.Client, org: Organisation) -> None:
    """Answers belong to the workspace, not to the API key; but a revoked key is told nothing at all."""
    made = http.post("/v1/api_keys", json={"name": "worker", "scopes": ["*"]}).json()
    key = {"Idempotency-Key": unique_key()}
    with org.test.client(made["api_key"]) as old:
        first = old.post("/v1/users", json=USER, headers=key)
        rolled = http.post(f"/v1/api_keys/{made['id']}/roll", json={"overlap_s": 600}).json()
        assert same(old.post("/v1/users", json=USER, headers=key), first)
        with org.test.client(rolled["api_key"]) as new:
            assert same(new.post("/v1/users", json=USER, headers=key), first)
        http.post(f"/v1/api_keys/{made['id']}/revoke")
        assert old.post("/v1/users", json=USER, headers=key).status_code == 401


BREAKS = {
    "the claim": ("BEFORE INSERT", "idempotency_keys", ""),
    "the row": ("BEFORE INSERT", "users", ""),
    "its event": ("BEFORE INSERT", "events", ""),
    "its outbox row": ("BEFORE INSERT", "outbox", ""),
    "the stored answer": ("BEFORE UPDATE", "idempotency_keys", ""),
}
DEATHS = {
    "an error": "RAISE EXCEPTION 'broken on purpose'",
    "the end of the connection": "PERFORM pg_terminate_backend(pg_backend_pid())",
}


@contextmanager
def broken(api: Api, when: str, table: str, how: str, *, deferred: bool = False) -> Iterator[None]:
    """While the block runs, this step of every transaction fails."""

    def run(*statements: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(api.database_url)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(execute())

    kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
    late = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    run(
        "CREATE FUNCTION public.break_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        f"$$ BEGIN {how}; RETURN NEW; END $$",
        f"CREATE {kind} break_it {when} ON spine.{table} {late} FOR EACH ROW EXECUTE FUNCTION public.break_it()",
    )
    try:
        yield
    finally:
        run(f"DROP TRIGGER break_it ON spine.{table}", "DROP FUNCTION public.break_it()")


def nothing_of(api: Api, account: Account) -> bool:
    """No user, no event, no outbox row and no key of this workspace are there."""
    return not any(count(api, table, account) for table in ("users", "events", "outbox", "idempotency_keys"))


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("step", BREAKS)
def test_a_fault_at_any_step_leaves_nothing(step: str, death: str, api: Api, org: Organisation) -> None:
    """Whichever statement fails: a 5xx, no trace, and the retry with the same key does it all (P-06)."""
    when, table, _ = BREAKS[step]
    key = {"Idempotency-Key": unique_key()}
    with org.test.client() as http:
        with broken(api, when, table, DEATHS[death]):
            answer = http.post("/v1/users", json=USER, headers=key)
            assert answer.status_code == (500 if death == "an error" else 503)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "on purpose" not in answer.text
        assert nothing_of(api, org.test)
        retried = http.post("/v1/users", json=USER, headers=key)
    assert retried.status_code == 201
    assert "idempotent-replayed" not in retried.headers
    assert [count(api, table, org.test) for table in ("users", "events", "outbox", "idempotency_keys")] == [1] * 4


@pytest.mark.parametrize(("path", "table"), [("/v1/users", "users"), ("/v1/events", "outbox")])
def test_a_failing_commit_does_not_answer_201(path: str, table: str, api: Api, org: Organisation) -> None:
    """The answer goes out after the commit: when that fails the caller is told so, and nothing is there."""
    body = USER if table == "users" else EVENT
    key = {"Idempotency-Key": unique_key()}
    with org.test.client() as http:
        with broken(api, "AFTER INSERT", table, DEATHS["an error"], deferred=True):
            assert http.post(path, json=body, headers=key).status_code == 500
        assert nothing_of(api, org.test)
        assert http.post(path, json=body, headers=key).status_code == 201
