"""Call sessions: matched, bounded in time, fed field by field, and never half written (C-03 to C-05, C-08)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as engine_event

from products.crm.call_context import SECTION_BYTES
from tests.api import Api, Organisation
from tests.booking import Calendar, days_ahead
from tests.database import count_rows, owner_connection
from tests.job_engine import job_runner
from tests.message_engine import NotificationsClient

PHONE: Final = "+919876543210"
NOBODY: Final = "cs_01J9XAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def crm(http: httpx.Client) -> NotificationsClient:
    """The test workspace."""
    return NotificationsClient(http)


def opened(crm: NotificationsClient, **more: Any) -> Any:
    """Open a call session."""
    return crm.post("/crm/v1/call_sessions", {"phone": PHONE, "channel": "voice"} | more)


def collect(http: httpx.Client, id: str, fields: Any) -> httpx.Response:
    """Collect fields."""
    return http.patch(f"/crm/v1/call_sessions/{id}/fields", json=fields)


@pytest.mark.parametrize("channel", ["voice", "chat", "kiosk_7"])
def test_a_caller_is_new_once(crm: NotificationsClient, channel: str) -> None:
    """The first session of a number makes its contact, each later one finds it; the channel is data (C-03, C-08)."""
    first = opened(crm, channel=channel)
    again = opened(crm, phone="098765 43210", channel=channel)
    assert (first["match"], again["match"]) == ("new", "existing")
    assert first["contact_id"] == again["contact_id"]
    assert (first["status"], first["channel"], first["fields"]) == ("open", channel, {})
    assert crm.get(f"/crm/v1/contacts/{first['contact_id']}")["phone_e164"] == PHONE
    assert crm.get(f"/crm/v1/call_sessions/{first['id']}") == first
    assert [event["data"] for event in crm.events("call_session.opened")] == [first, again]


def test_of_ten_at_once_one_is_new(org: Organisation, api: Api) -> None:
    """Of ten concurrent opens one answers `new`, and there is one contact (C-03)."""

    def one(_: int) -> str:
        with org.test.client() as client:
            return str(opened(NotificationsClient(client))["match"])

    with ThreadPoolExecutor(10) as pool:
        assert sorted(pool.map(one, range(10))) == ["existing"] * 9 + ["new"]
    assert asyncio.run(count_rows(api, "contacts", org.test)) == 1


def test_a_person_without_a_phone_is_matched_by_email(crm: NotificationsClient, http: httpx.Client) -> None:
    """A chat may know an e-mail address only; one of the two must be there."""
    body = {"channel": "chat", "email": "Priya@example.com"}
    assert [crm.post("/crm/v1/call_sessions", body)["match"] for _ in range(2)] == ["new", "existing"]
    assert http.post("/crm/v1/call_sessions", json={"channel": "chat"}).status_code == 422
    assert http.post("/crm/v1/call_sessions", json={"phone": PHONE}).json()["param"] == "channel"


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from(["", "x", "1"]), st.just(1.5))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1, max_size=3), max_size=6))
def test_of_each_field_the_last_value_stays(crm: NotificationsClient, patches: list[dict[str, Any]]) -> None:
    """PATCH merges field by field in their JSON types; what changes is told, no lead is made (C-05)."""
    id = opened(crm)["id"]
    expected: dict[str, Any] = {}
    changed = 0
    for patch in patches:
        before = repr(sorted(expected.items()))
        expected |= patch
        changed += repr(sorted(expected.items())) != before
        answer = collect(crm.http, id, patch)
        assert answer.status_code == 200, answer.text
        assert repr(sorted(answer.json()["fields"].items())) == repr(sorted(expected.items()))
    told = [event for event in crm.events("call_session.fields_collected") if event["data"]["id"] == id]
    assert len(told) == changed
    assert crm.get(f"/crm/v1/call_sessions/{id}")["version"] == 1 + len(told)
    assert crm.get("/crm/v1/leads")["data"] == []


def test_concurrent_patches_lose_no_field(org: Organisation) -> None:
    """Patches of different fields at once are all kept (C-05)."""
    with org.test.client() as client:
        crm = NotificationsClient(client)
        id = opened(crm)["id"]

        def one(n: int) -> int:
            with org.test.client() as mine:
                return collect(mine, id, {f"f{n}": n}).status_code

        with ThreadPoolExecutor(10) as pool:
            assert set(pool.map(one, range(30))) == {200}
        assert crm.get(f"/crm/v1/call_sessions/{id}")["fields"] == {f"f{n}": n for n in range(30)}


@pytest.mark.parametrize(
    "fields",
    [{}, [], {"a": {"b": 1}}, {"a": [1]}, {"": 1}, {"a": "x" * 2001}, {f"f{n}": n for n in range(101)}, "text"],
)
def test_fields_that_are_not_flat_or_too_many_are_refused(http: httpx.Client, fields: Any) -> None:
    """A field is a short text, a number, a boolean or null; a map is neither empty nor large: else 422."""
    id = opened(NotificationsClient(http))["id"]
    answer = collect(http, id, fields)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_session_holds_so_many_fields(crm: NotificationsClient, http: httpx.Client) -> None:
    """Neither by number nor by size do fields grow without end."""
    id = opened(crm)["id"]
    assert collect(http, id, {f"a{n}": n for n in range(100)}).status_code == 200
    assert collect(http, id, {"b": 1}).json()["code"] == "too_many_fields"
    assert collect(http, id, {"a1": "other"}).status_code == 200
    id = opened(crm)["id"]
    assert collect(http, id, {f"a{n}": "x" * 2000 for n in range(17)}).json()["code"] == "too_many_fields"
    assert crm.get(f"/crm/v1/call_sessions/{id}")["fields"] == {}


async def test_a_session_that_is_not_finalized_is_abandoned(api: Api, org: Organisation) -> None:
    """After its time a session is abandoned at once for every reader and writer; its job tells so, once (C-05)."""
    async with job_runner(api) as runner:
        with org.test.client() as client:
            crm = NotificationsClient(client)
            session = opened(crm)
            kept = opened(crm)
            collect(client, session["id"], {"city": "Pune"})
            body = {"lead": {"source": "phone"}}
            crm.post(f"/crm/v1/call_sessions/{kept['id']}/finalize", body, status=200)
            await asyncio.to_thread(crm.advance, 1799)
            await runner.run_due()
            assert crm.get(f"/crm/v1/call_sessions/{session['id']}")["status"] == "open"
            await asyncio.to_thread(crm.advance, 2)
            path = f"/crm/v1/call_sessions/{session['id']}"
            assert crm.get(path)["status"] == "abandoned"
            assert [one["id"] for one in crm.get("/crm/v1/call_sessions?status=abandoned")["data"]] == [session["id"]]
            assert crm.get("/crm/v1/call_sessions?status=open")["data"] == []
            for late in (collect(client, session["id"], {"a": 1}), client.post(f"{path}/finalize", json=body)):
                assert (late.status_code, late.json()["code"], late.json()["allowed"]) == (
                    409,
                    "illegal_transition",
                    [],
                )
            await runner.run_due()
            assert await count_rows(api, "jobs", org.test) == 0
            (told,) = crm.events("call_session.abandoned")
            assert (told["data"]["id"], told["data"]["status"]) == (session["id"], "abandoned")
            assert told["data"]["fields"] == {"city": "Pune"}
            assert crm.get(path)["status"] == "abandoned"
            assert [one["id"] for one in crm.get("/crm/v1/call_sessions?status=finalized")["data"]] == [kept["id"]]
            assert len(crm.get("/crm/v1/leads")["data"]) == 1


def test_the_context_has_all_that_is_known(crm: NotificationsClient, http: httpx.Client) -> None:
    """One answer: contact, open leads and deals, newest timeline rows, appointments, tickets, fields still to ask (C-04)."""
    contact = crm.post("/crm/v1/contacts", {"name": "Priya", "phone": PHONE, "fields": {"city": "Pune"}})["id"]
    item = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]
    of_contact = {"contact_id": contact, "source": "website"}
    lead = crm.post("/crm/v1/leads", of_contact | {"interests": [{"catalog_item_id": item}]})
    closed = crm.post("/crm/v1/leads", of_contact)["id"]
    crm.post(f"/crm/v1/leads/{closed}/move", {"to": "lost", "lost_reason": "price"}, status=200)
    deal = crm.post("/crm/v1/deals", {"contact_id": contact, "value_minor": 100, "currency": "INR"})
    won = crm.post("/crm/v1/deals", {"contact_id": contact, "value_minor": 100, "currency": "INR"})["id"]
    crm.post(f"/crm/v1/deals/{won}/win", {}, status=200)
    calendar = Calendar(http)
    appointment = calendar.book(calendar.slot(), contact)
    ticket = crm.post("/tickets/v1/tickets", {"contact_id": contact, "subject": "No cooling", "source": "voice"})
    schema = [{"name": name} for name in ("name", "city", "email", "size", "budget")]
    session = opened(crm, field_schema=schema)
    collect(http, session["id"], {"size": "1.5T", "budget": None})
    context = crm.get(f"/crm/v1/call_sessions/{session['id']}/context")
    assert context["call_session"]["fields"] == {"size": "1.5T", "budget": None}
    assert context["contact"]["id"] == contact
    assert context["open_leads"] == [lead]
    assert context["open_deals"] == [deal]
    assert [one["id"] for one in context["upcoming_appointments"]] == [appointment["id"]]
    assert [one["id"] for one in context["open_tickets"]] == [ticket["id"]]
    newest = crm.get(f"/crm/v1/contacts/{contact}/timeline?limit=100")["data"][::-1]
    assert context["timeline"] == newest[:20]
    assert [field["name"] for field in context["fields_to_collect"]] == ["email", "budget"]
    assert context["truncated"] == []
    assert http.get(f"/crm/v1/call_sessions/{NOBODY}/context").status_code == 404


def test_the_name_of_a_new_caller_is_to_be_asked(crm: NotificationsClient, http: httpx.Client) -> None:
    """The number stands in for a name that is not known; by default name, e-mail address and interest are asked for."""
    id = opened(crm)["id"]
    asked = crm.get(f"/crm/v1/call_sessions/{id}/context")["fields_to_collect"]
    assert [(field["name"], field["required"]) for field in asked] == [
        ("name", True),
        ("email", False),
        ("interest", True),
    ]
    collect(http, id, {"name": "Priya", "interest": "AC"})
    asked = crm.get(f"/crm/v1/call_sessions/{id}/context")["fields_to_collect"]
    assert [field["name"] for field in asked] == ["email"]


def test_the_context_is_small_and_takes_the_same_queries_for_any_contact(
    crm: NotificationsClient, http: httpx.Client, api: Api
) -> None:
    """Whatever a contact has, its context takes as many statements, and each part has a size (C-04, P-27)."""

    def statements_of(id: str) -> tuple[int, Any]:
        seen: list[str] = []

        def record(_: Any, __: Any, statement: str, *___: Any) -> None:
            seen.append(statement)

        engine = api.app.state.platform.engine.sync_engine
        engine_event.listen(engine, "before_cursor_execute", record)
        try:
            context = crm.get(f"/crm/v1/call_sessions/{id}/context")
        finally:
            engine_event.remove(engine, "before_cursor_execute", record)
        return len(seen), context

    big = {f"f{n}": "x" * 3000 for n in range(20)}
    contact = crm.post("/crm/v1/contacts", {"name": "Priya", "phone": PHONE, "fields": big})["id"]
    calendar = Calendar(http)
    item = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]

    def add_one_of_each(day: int) -> None:
        interests = [{"catalog_item_id": item, "note": "n" * 500}] * 30
        crm.post("/crm/v1/leads", {"contact_id": contact, "source": "website", "interests": interests})
        crm.post("/crm/v1/deals", {"contact_id": contact, "value_minor": 1, "currency": "INR"})
        calendar.book(calendar.slots(calendar.resource(), days_ahead(day + 1))[0], contact)
        crm.post("/tickets/v1/tickets", {"contact_id": contact, "subject": "s", "source": "voice", "topic": "ac"})

    add_one_of_each(0)
    id = opened(crm)["id"]
    few, context = statements_of(id)
    assert context["truncated"] == ["contact.fields", "open_leads"]
    for day in range(1, 13):
        add_one_of_each(day)
        crm.post(f"/crm/v1/contacts/{contact}", {"fields": big | {"day": day}}, status=200, method="PATCH")
    many, context = statements_of(id)
    assert many == few
    assert [len(context[part]) for part in ("open_deals", "upcoming_appointments", "open_tickets")] == [10, 10, 10]
    assert len(context["timeline"]) == 20
    assert context["contact"]["fields"] == {}
    assert len(str(context)) < 8 * SECTION_BYTES


def test_others_see_nothing(crm: NotificationsClient, org: Organisation, api: Api) -> None:
    """A foreign session is not there, for any of its calls (P-15)."""
    id = opened(crm)["id"]
    path = f"/crm/v1/call_sessions/{id}"
    for other in (org.live, api.sign_up().test):
        with other.client() as http:
            assert http.get(path).status_code == 404
            assert http.get(f"{path}/context").status_code == 404
            assert collect(http, id, {"a": 1}).status_code == 404
            assert http.post(f"{path}/finalize", json={"lead": {"source": "x"}}).status_code == 404


async def test_the_tables_mirror_the_states(api: Api, org: Organisation) -> None:
    """No row of the CRM can have a state that the table of states does not have."""
    with org.test.client() as client:
        opened(NotificationsClient(client))
    async with owner_connection(api) as owner:
        for status in ("finalized", "gone"):  # a finalized one has its call
            with pytest.raises(Exception, match="call_sessions"):
                await owner.execute("UPDATE spine.call_sessions SET status = $1", status)
