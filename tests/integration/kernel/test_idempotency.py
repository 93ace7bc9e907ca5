"""Idempotency keys against the real database: a request runs once or not at all, and its response is replayed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api import Account, Api, Organisation, serve, unique_key
from tests.database import count_rows, owner_connection

USER = {"name": "Ann", "email": "ann@example.com"}
ENDPOINT = {"url": "http://127.0.0.1:9/", "events": ["order.paid"]}
EVENT = {"type": "order.paid", "data": {"n": 1}}
CREATES = [("/v1/users", USER), ("/v1/webhook_endpoints", ENDPOINT), ("/v1/events", EVENT)]
every_create = pytest.mark.parametrize(("path", "body"), CREATES, ids=[path for path, _ in CREATES])


def new_key() -> dict[str, str]:
    """The header with a new Idempotency-Key."""
    return {"Idempotency-Key": unique_key()}


@asynccontextmanager
async def running_request(api: Api, account: Account, key: dict[str, str]) -> AsyncIterator[Any]:
    """The open transaction of a first request, which has claimed the key."""
    async with owner_connection(api) as owner:
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute(
            "INSERT INTO spine.idempotency_keys (workspace_id, key, fingerprint, expires_at) "
            "VALUES ($1, $2, '', now() + interval '1 day')",
            account.workspace_id,
            key["Idempotency-Key"],
        )
        yield transaction


def is_replay(answer: httpx.Response, first: httpx.Response) -> bool:
    """True if the response equals the first one and is marked as a replay."""
    same = answer.status_code == first.status_code and answer.content == first.content
    same_headers = all(answer.headers.get(name) == first.headers.get(name) for name in ("location", "content-type"))
    marked = answer.headers.get("idempotent-replayed") == "true"
    return same and same_headers and marked and answer.headers["request-id"] != first.headers["request-id"]


def is_first(answer: httpx.Response, status: int = 201) -> bool:
    """True if the response has this status and is not a replay."""
    return answer.status_code == status and "idempotent-replayed" not in answer.headers


requests = st.lists(
    st.tuples(
        st.sampled_from("abc"),  # key
        st.sampled_from(["/v1/users", "/v1/users?x=1", "/v1/events"]),
        st.sampled_from(["ann", "bob", "not fit"]),
        st.booleans(),  # fields in reverse order
        st.sampled_from([None, 1, 4]),  # white space
    ),
    max_size=12,
)


@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(calls=requests)
def test_any_sequence_of_retries(api: Api, calls: list[tuple[str, str, str, bool, int | None]]) -> None:
    """In any sequence of requests, a key replays its first request and refuses every other one (P-06, P-07)."""
    account = api.sign_up().test
    answered: dict[str, tuple[tuple[str, str], httpx.Response]] = {}
    with account.client() as http:
        for key, path, who, reverse, indent in calls:
            body: dict[str, Any] = {"name": who, "email": f"{who}@example.com"}
            if path == "/v1/events":
                body = {"type": "order.paid", "data": {"who": who, "n": [1, {"b": 1, "a": 2}]}}
            if who == "not fit":
                body["unknown"] = 1
            items = list(body.items())
            text = json.dumps(dict(reversed(items) if reverse else items), indent=indent)
            answer = http.post(path, content=text, headers={"Content-Type": "application/json", "Idempotency-Key": key})
            request = (path, who)
            if who == "not fit":  # refused by its schema before the claim, and never stored (X17)
                assert is_first(answer, 422)
            elif key not in answered:
                assert is_first(answer) or is_first(answer, 409)  # 409: that user exists, which is a result too
                answered[key] = (request, answer)
            elif answered[key][0] == request:
                assert is_replay(answer, answered[key][1])
            else:
                assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")


@every_create
async def test_twenty_equal_requests_run_once(path: str, body: dict[str, Any], api: Api, org: Organisation) -> None:
    """Of twenty equal requests at the same time, at two processes, one is executed and all get the same bytes."""
    key = new_key()
    with serve(api.database_url, api.redis_url) as other:
        elsewhere = Account(other.url, org.test.organisation_id, org.test.workspace_id, org.test.key)
        async with org.test.async_client() as one, elsewhere.async_client() as two:
            answers = await asyncio.gather(
                *(http.post(path, json=body, headers=key) for http in (one, two) for _ in range(10))
            )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum(map(is_first, answers)) == 1
    assert await count_rows(api, path.removeprefix("/v1/"), org.test) == 1


@every_create
async def test_a_key_of_a_running_request_is_in_use(
    path: str, body: dict[str, Any], api: Api, org: Organisation
) -> None:
    """A duplicate waits for the first request; after the wait limit it is 409 with Retry-After, and nothing is stored."""
    key = new_key()
    async with running_request(api, org.test, key) as transaction, org.test.async_client() as http:
        answer = await http.post(path, json=body, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
        assert answer.headers["retry-after"] == "1"
        waiting = asyncio.create_task(http.post(path, json=body, headers=key))
        await asyncio.sleep(0.2)
        await transaction.rollback()  # the first request failed: its duplicate is the first one now
        assert (await waiting).status_code == 201


async def test_waiting_duplicates_block_no_other_request(api: Api, org: Organisation) -> None:
    """However many duplicates wait for one key, they hold at most one connection, and other requests are served."""
    key = new_key()
    async with running_request(api, org.test, key) as transaction, org.test.async_client() as http:
        duplicates = [
            asyncio.create_task(http.post(path, json=body, headers=key)) for path, body in CREATES for _ in range(20)
        ]
        await asyncio.sleep(0.3)
        served = await asyncio.gather(*(http.post("/v1/events", json=EVENT) for _ in range(10)), http.get("/v1/users"))
        assert {answer.status_code for answer in served} == {200, 201}
        assert not any(task.done() for task in duplicates)
        await transaction.rollback()
        answers = await asyncio.gather(*duplicates)
    assert sum(map(is_first, answers)) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/users", USER, 409, "user_exists"),
        ("/v1/replays/rpl_01M7XZQ13PQ2QS290DBGHN958X/pause", None, 404, "not_found"),
        ("/v1/events", {"type": "user.created", "data": {}}, 409, "event_type_reserved"),
    ],
    ids=["409", "404", "409 of an event"],
)
def test_results_of_rules_are_replayed(path: str, body: Any, status: int, code: str, http: httpx.Client) -> None:
    """A refusal by a rule is a result: the same 409 or 404 is replayed (X17)."""
    key = new_key()
    http.post("/v1/users", json=USER)
    refused = http.post(path, json=body, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert is_replay(http.post(path, json=body, headers=key), refused)


def test_requests_that_never_ran_are_not_stored(http: httpx.Client, org: Organisation) -> None:
    """401, 403 and the 422 of a schema leave the key unused, so the corrected request may use it (X17)."""
    key = new_key()
    narrow = http.post("/v1/api_keys", json={"name": "narrow", "scopes": ["events:read"]}).json()["api_key"]
    with org.test.client("sk_test_nobody") as nobody, org.test.client(narrow) as narrowed:
        assert nobody.post("/v1/users", json=USER, headers=key).status_code == 401
        assert narrowed.post("/v1/users", json=USER, headers=key).status_code == 403
    assert http.post("/v1/users", json={"name": ""}, headers=key).status_code == 422
    assert http.post("/v1/users", content=b"{", headers=key).status_code == 422
    assert http.post("/v1/users", json={"name": "a\0", "email": "a@example.com"}, headers=key).status_code == 422
    assert http.post("/v1/users", json=USER, headers=key).status_code == 201


def test_keys_are_scoped_to_a_workspace(api: Api, org: Organisation) -> None:
    """Two workspaces may use one key for different requests, and neither sees the other's (P-02)."""
    key = new_key()
    for account in (org.test, org.live, api.sign_up().test):
        with account.client() as http:
            answer = http.post("/v1/users", json={**USER, "name": account.workspace_id}, headers=key)
        assert is_first(answer)


async def dump(api: Api) -> str:
    """All rows of the database as text, with bytes as hexadecimal digits."""
    async with owner_connection(api) as owner:
        tables = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'spine'")
        rows = [await owner.fetch(f"SELECT t::text AS row FROM spine.{name} t") for (name,) in tables]
    return "\n".join(row["row"] for table in rows for row in table)


def test_the_database_holds_no_plain_secret(api: Api, http: httpx.Client) -> None:
    """No API key and no webhook secret is stored in plain, neither in tables nor in stored responses; and they replay."""
    secrets: list[str] = []
    made = http.post("/v1/webhook_endpoints", json={**ENDPOINT, "headers": {"X-Token": "opensesame-4711"}}).json()
    for path, body, field in (
        ("/v1/webhook_endpoints", ENDPOINT, "secret"),
        (f"/v1/webhook_endpoints/{made['id']}/rotate_secret", {}, "secret"),
        ("/v1/api_keys", {"name": "second", "scopes": ["*"]}, "api_key"),
    ):
        key = new_key()
        first = http.post(path, json=body, headers=key)
        assert is_replay(http.post(path, json=body, headers=key), first)
        secrets.append(first.json()[field])
    rolled = http.post(f"/v1/api_keys/{first.json()['id']}/roll", json={})
    secrets += [rolled.json()["api_key"], made["secret"], "opensesame-4711"]
    everything = asyncio.run(dump(api))
    assert made["id"] in everything
    for secret in secrets:
        bare = secret.removeprefix("whsec_")
        assert bare not in everything
        assert bare.encode().hex() not in everything


def test_a_key_is_good_for_24_hours(http: httpx.Client) -> None:
    """After 23:59 hours the response is replayed; after 24:01 hours the key belongs to a new request (P-08, X3)."""
    key, user_key = new_key(), new_key()
    first = http.post("/v1/events", json=EVENT, headers=key)
    user = http.post("/v1/users", json=USER, headers=user_key)
    http.post("/v1/test_helpers/clock", json={"advance_s": 24 * 3600 - 60})
    assert is_replay(http.post("/v1/events", json=EVENT, headers=key), first)
    assert is_replay(http.post("/v1/users", json=USER, headers=user_key), user)
    http.post("/v1/test_helpers/clock", json={"advance_s": 120})
    second = http.post("/v1/events", json=EVENT, headers=key)
    assert is_first(second)
    assert second.json()["id"] != first.json()["id"]
    again = http.post("/v1/users", json={**USER, "name": "Other"}, headers=user_key)
    assert (again.status_code, again.json()["code"]) == (409, "user_exists")


def test_the_clock_keeps_its_own_key_valid(http: httpx.Client) -> None:
    """A retried advance of the test clock moves it once, even beyond 24 hours."""
    key = new_key()
    first = http.post("/v1/test_helpers/clock", json={"advance_s": 200_000}, headers=key)
    assert is_replay(http.post("/v1/test_helpers/clock", json={"advance_s": 200_000}, headers=key), first)


def test_a_rolled_key_replays_and_a_revoked_one_does_not(http: httpx.Client, org: Organisation) -> None:
    """Stored responses belong to the workspace, not to the API key; a revoked key gets 401 instead."""
    made = http.post("/v1/api_keys", json={"name": "worker", "scopes": ["*"]}).json()
    key = new_key()
    with org.test.client(made["api_key"]) as old:
        first = old.post("/v1/users", json=USER, headers=key)
        rolled = http.post(f"/v1/api_keys/{made['id']}/roll", json={"overlap_s": 600}).json()
        assert is_replay(old.post("/v1/users", json=USER, headers=key), first)
        with org.test.client(rolled["api_key"]) as new:
            assert is_replay(new.post("/v1/users", json=USER, headers=key), first)
        http.post(f"/v1/api_keys/{made['id']}/revoke")
        assert old.post("/v1/users", json=USER, headers=key).status_code == 401
