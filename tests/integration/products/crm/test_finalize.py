"""Finalizing a call: lead, interests, call and appointment at once or not at all (C-06, C-07, X6)."""

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
import httpx
import pytest
from sqlalchemy import event as engine_event

from tests.api import Account, Api, Organisation, unique_key
from tests.booking import Calendar, counts_are_true
from tests.database import owner_connection
from tests.message_engine import NotificationsClient

PHONE: Final = "+919876543210"
WRITTEN: Final = (
    "leads",
    "interests",
    "calls",
    "appointments",
    "contacts",
    "events",
    "outbox",
    "jobs",
    "timeline_entries",
    "idempotency_keys",
)


@pytest.fixture
def crm(http: httpx.Client) -> NotificationsClient:
    """The test workspace."""
    return NotificationsClient(http)


def ready(crm: NotificationsClient, channel: str = "voice") -> tuple[str, dict[str, Any]]:
    """Open a session and make a slot and an item. Returns the path of the session, and the body to finalize it with."""
    calendar = Calendar(crm.http)
    session = crm.post("/crm/v1/call_sessions", {"phone": PHONE, "channel": channel})
    item = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]
    service = calendar.service(f"s_{unique_key()}")
    return f"/crm/v1/call_sessions/{session['id']}", {
        "lead": {"source": "inbound call"},
        "interests": [{"catalog_item_id": item, "note": "1.5T"}, {"catalog_item_id": item}],
        "appointment": {"slot_id": calendar.slot(service=service), "service": service},
        "recording_ref": "https://recordings.example.com/1",
        "transcript_ref": "s3://transcripts/1",
        "summary": "Wants an AC.",
    }


async def _counts(api: Api, account: Account) -> dict[str, int]:
    async with owner_connection(api) as owner:
        found = {
            table: await owner.fetchval(
                f"SELECT count(*) FROM spine.{table} WHERE workspace_id = $1", account.workspace_id
            )
            for table in WRITTEN
        }
        found["booked"] = await owner.fetchval(
            "SELECT coalesce(sum(booked), 0) FROM spine.slots WHERE workspace_id = $1", account.workspace_id
        )
    return found


def counts(api: Api, account: Account) -> dict[str, int]:
    """The numbers of the workspace's rows, and of booked places."""
    return asyncio.run(_counts(api, account))


@pytest.mark.parametrize("channel", ["voice", "chat", "kiosk"])
def test_a_call_writes_all_four_at_once(crm: NotificationsClient, http: httpx.Client, channel: str) -> None:
    """The same steps serve any channel; one event holds the ids of lead, interest, call and appointment (C-06 to C-09)."""
    path, body = ready(crm, channel)
    http.patch(f"{path}/fields", json={"city": "Pune"}).raise_for_status()
    answer = crm.post(f"{path}/finalize", body, status=200)
    session = crm.get(path)
    assert (session["status"], session["call_id"]) == ("finalized", answer["call_id"])
    call = crm.get(f"/crm/v1/calls/{answer['call_id']}")
    assert call["id"].startswith("cal_")
    assert answer == call | {
        "call_id": call["id"],
        "interest_id": call["interest_ids"][0],
        "status": "finalized",
    }
    assert (call["channel"], call["fields"], call["recording_ref"]) == (
        channel,
        {"city": "Pune"},
        body["recording_ref"],
    )
    assert (call["transcript_ref"], call["summary"]) == (body["transcript_ref"], body["summary"])
    lead = crm.get(f"/crm/v1/leads/{call['lead_id']}")
    assert (lead["door"], lead["source"], lead["contact_id"]) == (
        "agent_finalize",
        "inbound call",
        session["contact_id"],
    )
    assert [one["id"] for one in lead["interests"]] == call["interest_ids"]
    appointment = crm.get(f"/calendar/v1/appointments/{call['appointment_id']}")
    assert (appointment["booked_via"], appointment["status"], appointment["contact_id"]) == (
        "agent",
        "booked",
        session["contact_id"],
    )
    told = crm.events("call.*", "lead.*", "appointment.*")
    assert sorted(event["type"] for event in told) == [
        "appointment.booked",
        "appointment.created",
        "call.finalized",
        "lead.created",
    ]
    assert len({event["request_id"] for event in told}) == 1
    (finalized,) = [event["data"] for event in told if event["type"] == "call.finalized"]
    assert finalized == answer
    assert crm.get(f"/crm/v1/calls?contact_id={session['contact_id']}")["data"] == [call]
    assert crm.get(f"/crm/v1/calls?lead_id={lead['id']}&channel={channel}")["data"] == [call]
    assert crm.get("/crm/v1/calls?channel=other")["data"] == []
    kinds = [entry["kind"] for entry in crm.get(f"/crm/v1/leads/{lead['id']}/timeline")["data"]]
    assert kinds == ["lead.created", "call.finalized"]


def test_what_was_not_asked_for_is_null(crm: NotificationsClient) -> None:
    """Without interests and appointment the event has null for them, and only for them (C-07)."""
    path, body = ready(crm)
    answer = crm.post(f"{path}/finalize", {"lead": body["lead"]}, status=200)
    assert (answer["interest_ids"], answer["interest_id"], answer["appointment_id"]) == ([], None, None)
    assert answer["lead_id"]
    assert answer["call_id"]


def test_a_session_is_finalized_once(crm: NotificationsClient, http: httpx.Client) -> None:
    """The second time is 409 `illegal_transition`; nothing can be collected any more; the same key answers the same."""
    path, body = ready(crm)
    key = {"Idempotency-Key": unique_key()}
    first = http.post(f"{path}/finalize", json=body, headers=key)
    assert first.status_code == 200
    assert http.post(f"{path}/finalize", json=body, headers=key).json() == first.json()
    for late in (http.post(f"{path}/finalize", json=body), http.patch(f"{path}/fields", json={"a": 1})):
        assert (late.status_code, late.json()["code"]) == (409, "illegal_transition")
    assert len(crm.events("call.finalized")) == 1


def test_a_lost_slot_leaves_the_session_open_for_another(
    crm: NotificationsClient, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """409 `slot_unavailable` writes nothing but the stored answer; another slot then goes through (C-06)."""
    path, body = ready(crm)
    calendar = Calendar(http)
    calendar.book(body["appointment"]["slot_id"])
    before = counts(api, org.test)
    lost = http.post(f"{path}/finalize", json=body)
    assert (lost.status_code, lost.json()["code"]) == (409, "slot_unavailable")
    assert counts(api, org.test) == before | {"idempotency_keys": before["idempotency_keys"] + 1}
    assert crm.get(path)["status"] == "open"
    other = {"slot_id": calendar.slot(service=body["appointment"]["service"])}
    assert http.post(f"{path}/finalize", json=body | {"appointment": other}).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"interests": [{"catalog_item_id": "itm_01J9XAAAAAAAAAAAAAAAAAAAAA"}]}, "interests.0.catalog_item_id"),
        ({"appointment": {"slot_id": "slt_01J9XAAAAAAAAAAAAAAAAAAAAA"}}, "appointment.slot_id"),
        ({"lead": {"source": "call", "owner_id": "usr_01J9XAAAAAAAAAAAAAAAAAAAAA"}}, "owner_id"),
        ({"lead": {}}, "lead.source"),
    ],
)
def test_a_wrong_reference_is_named_and_writes_nothing(
    crm: NotificationsClient, http: httpx.Client, change: Any, param: str
) -> None:
    """422 names the field, and the session stays open."""
    path, body = ready(crm)
    answer = http.post(f"{path}/finalize", json=body | change)
    assert (answer.status_code, answer.json()["param"]) == (422, param)
    assert crm.get("/crm/v1/leads")["data"] == []
    assert crm.get(path)["status"] == "open"


@contextmanager
def crash_at(api: Api, number: int, when: str) -> Iterator[list[str]]:
    """Let the API fail at its statement of this number, before it is executed or after. Yields the statements so far."""
    engine = api.app.state.platform.engine.sync_engine
    seen: list[str] = []

    def crash(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement)
        if len(seen) == number:
            raise OSError("the connection is lost")

    engine_event.listen(engine, when, crash)
    try:
        yield seen
    finally:
        engine_event.remove(engine, when, crash)


@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute"])
def test_a_fault_at_any_statement_leaves_nothing_half_written(
    crm: NotificationsClient, http: httpx.Client, api: Api, org: Organisation, when: str
) -> None:
    """Whatever statement fails, nothing is there; the retry with the same key writes all, told once (C-06, C-07)."""
    path, body = ready(crm)
    before = counts(api, org.test)
    key = {"Idempotency-Key": unique_key()}
    for number in itertools.count(1):
        with crash_at(api, number, when) as seen:
            answer = http.post(f"{path}/finalize", json=body, headers=key)
        if answer.status_code == 200:
            break
        assert answer.status_code == 503
        assert counts(api, org.test) == before, seen[-1]
    assert number > 15
    after = counts(api, org.test)
    assert {table: after[table] - before[table] for table in ("leads", "interests", "calls", "appointments")} == {
        "leads": 1,
        "interests": 2,
        "calls": 1,
        "appointments": 1,
    }
    assert after["booked"] - before["booked"] == 1
    assert [event["data"]["call_id"] for event in crm.events("call.finalized")] == [answer.json()["call_id"]]
    assert http.post(f"{path}/finalize", json=body, headers=key).json() == answer.json()
    assert counts(api, org.test) == after


def test_a_lost_connection_or_commit_leaves_nothing_half_written(
    crm: NotificationsClient, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """A backend that dies in the middle, or a commit that fails, is 5xx with nothing written; the retry succeeds (C-07)."""
    path, body = ready(crm)
    before = counts(api, org.test)
    key = {"Idempotency-Key": unique_key()}

    async def execute(*statements: str) -> None:
        async with owner_connection(api) as owner:
            for statement in statements:
                await owner.execute(statement)

    for fault, table, timing in (
        ("PERFORM pg_terminate_backend(pg_backend_pid())", "calls", "TRIGGER break_it BEFORE INSERT ON spine.calls"),
        (
            "RAISE EXCEPTION 'on purpose'",
            "calls",
            "CONSTRAINT TRIGGER break_it AFTER INSERT ON spine.calls DEFERRABLE INITIALLY DEFERRED",
        ),
    ):
        function = "FUNCTION public.break_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        kind, _, rest = timing.partition("break_it")
        asyncio.run(
            execute(
                f"CREATE {function} $$BEGIN {fault}; RETURN NEW; END$$",
                f"CREATE {kind} break_it {rest} FOR EACH ROW EXECUTE FUNCTION public.break_it()",
            )
        )
        try:
            assert http.post(f"{path}/finalize", json=body, headers=key).status_code in (500, 503)
        finally:
            asyncio.run(execute(f"DROP TRIGGER break_it ON spine.{table}", "DROP FUNCTION public.break_it()"))
        assert counts(api, org.test) == before
    assert http.post(f"{path}/finalize", json=body, headers=key).status_code == 200
    assert len(crm.events("call.finalized")) == 1


def test_agents_and_others_race_for_one_slot(org: Organisation, api: Api) -> None:
    """Of sessions that are finalized at once and bookings by API one wins the slot; losers wrote nothing (K-11, C-06)."""
    with org.test.client() as client:
        crm = NotificationsClient(client)
        paths = []
        for _ in range(10):
            path, body = ready(crm)
            paths.append(path)
        contact = crm.get(paths[0])["contact_id"]
        slot_id = body["appointment"]["slot_id"]

        def race(n: int) -> tuple[int, Any]:
            with org.test.client() as mine:
                if n % 2:
                    answer = mine.post(f"{paths[n // 2]}/finalize", json=body)
                else:
                    answer = mine.post("/calendar/v1/appointments", json={"slot_id": slot_id, "contact_id": contact})
                return answer.status_code, answer.json()

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(race, range(20)))
        assert len([status for status, _ in answers if status in (200, 201)]) == 1
        assert {(status, answer["code"]) for status, answer in answers if status >= 400} == {(409, "slot_unavailable")}
        won_by_agent = any(status == 200 for status, _ in answers)
        assert len(crm.get("/crm/v1/leads")["data"]) == int(won_by_agent)
        statuses = [crm.get(path)["status"] for path in paths]
        assert statuses.count("open") == 10 - int(won_by_agent)
    assert asyncio.run(counts_are_true(api))


def test_of_many_finalizations_of_one_session_one_wins(org: Organisation) -> None:
    """A session that is finalized from many sides at once gives one call, one lead and one event (C-07)."""
    with org.test.client() as client:
        crm = NotificationsClient(client)
        path, body = ready(crm)

        def one(_: int) -> str:
            with org.test.client() as mine:
                answer = mine.post(f"{path}/finalize", json=body | {"appointment": None})
                return str(answer.json().get("code", answer.status_code))

        with ThreadPoolExecutor(20) as pool:
            assert sorted(pool.map(one, range(50))) == ["200"] + ["illegal_transition"] * 49
        assert len(crm.events("call.finalized")) == 1
        assert len(crm.get("/crm/v1/leads")["data"]) == 1


async def test_no_column_holds_a_recording(api: Api) -> None:
    """Recordings and transcripts are references: no column of the CRM takes bytes."""
    async with owner_connection(api) as owner:
        found: list[asyncpg.Record] = await owner.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'spine' "
            "AND data_type = 'bytea' AND table_name IN ('calls', 'call_sessions', 'leads', 'deals', 'interests')"
        )
    assert found == []
