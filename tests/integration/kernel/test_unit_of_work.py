"""The unit of work against the real database: a fault at any statement, or at the commit, writes nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.api import Account, Api, Organisation, unique_key
from tests.database import count_rows, owner_connection

USER = {"name": "Ann", "email": "ann@example.com"}
EVENT = {"type": "order.paid", "data": {"n": 1}}
STEPS = {
    "the claim": ("BEFORE INSERT", "idempotency_keys"),
    "the row": ("BEFORE INSERT", "users"),
    "its event": ("BEFORE INSERT", "events"),
    "its outbox row": ("BEFORE INSERT", "outbox"),
    "the stored response": ("BEFORE UPDATE", "idempotency_keys"),
}
FAULTS = {
    "an error": "RAISE EXCEPTION 'broken on purpose'",
    "a lost connection": "PERFORM pg_terminate_backend(pg_backend_pid())",
}
WRITTEN = ("users", "events", "outbox", "idempotency_keys")


@contextmanager
def failing_trigger(api: Api, when: str, table: str, fault: str, *, deferred: bool = False) -> Iterator[None]:
    """Make this step of every transaction fail until the block ends."""

    async def execute(*statements: str) -> None:
        async with owner_connection(api) as owner:
            for statement in statements:
                await owner.execute(statement)

    kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
    deferrable = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    body = f"BEGIN {fault}; RETURN NEW; END"
    function = f"FUNCTION public.break_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $${body}$$"
    trigger = f"break_it {when} ON spine.{table} {deferrable} FOR EACH ROW EXECUTE FUNCTION public.break_it()"
    asyncio.run(execute(f"CREATE {function}", f"CREATE {kind} {trigger}"))
    try:
        yield
    finally:
        asyncio.run(execute(f"DROP TRIGGER break_it ON spine.{table}", "DROP FUNCTION public.break_it()"))


def written(api: Api, account: Account) -> list[int]:
    """The numbers of users, events, outbox rows and idempotency keys of this workspace."""
    return [asyncio.run(count_rows(api, table, account)) for table in WRITTEN]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_at_any_step_writes_nothing(step: str, fault: str, api: Api, org: Organisation) -> None:
    """If any statement fails, the response is 5xx, nothing is written, and a retry with the same key succeeds (P-06)."""
    key = {"Idempotency-Key": unique_key()}
    with org.test.client() as http:
        with failing_trigger(api, *STEPS[step], FAULTS[fault]):
            answer = http.post("/v1/users", json=USER, headers=key)
            assert answer.status_code == (500 if fault == "an error" else 503)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "on purpose" not in answer.text
        assert written(api, org.test) == [0] * 4
        retried = http.post("/v1/users", json=USER, headers=key)
    assert retried.status_code == 201
    assert "idempotent-replayed" not in retried.headers
    assert written(api, org.test) == [1] * 4


@pytest.mark.parametrize(("path", "body", "table"), [("/v1/users", USER, "users"), ("/v1/events", EVENT, "outbox")])
def test_a_failing_commit_is_not_201(path: str, body: dict[str, Any], table: str, api: Api, org: Organisation) -> None:
    """The response is sent after the commit: if the commit fails, it is 500 and nothing is written."""
    key = {"Idempotency-Key": unique_key()}
    with org.test.client() as http:
        with failing_trigger(api, "AFTER INSERT", table, FAULTS["an error"], deferred=True):
            assert http.post(path, json=body, headers=key).status_code == 500
        assert written(api, org.test) == [0] * 4
        assert http.post(path, json=body, headers=key).status_code == 201
