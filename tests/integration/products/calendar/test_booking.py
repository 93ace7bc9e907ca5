"""Bookings: who gets a slot, who does not, and what is committed with it."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event as engine_event

from tests.api import Api, Organisation, client
from tests.booking import HOUR, Calendar, days_ahead


def test_the_printed_call_books_a_slot(api: Api, org: Organisation, calendar: Calendar) -> None:
    """The page's call, word by word but for ids and the host, answers 201 with an `apt_` (K-04)."""
    calendar.service("ac_service")
    slot_id, contact_id = calendar.slot(), calendar.contact()
    with client(api.url, None) as anybody:
        answer = anybody.post(
            "/calendar/v1/appointments",
            headers={
                "Authorization": f"Bearer {org.test.key}",
                "Idempotency-Key": "9f2c-4d1a-...-e7b3",
                "Content-Type": "application/json",
            },
            content=f'{{ "slot_id": "{slot_id}", "contact_id": "{contact_id}", "service": "ac_service" }}',
        )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"].startswith("apt_")
    assert answer.headers["location"] == f"/calendar/v1/appointments/{made['id']}"
    assert calendar.get(f"appointments/{made['id']}") == made
    assert (made["slot_id"], made["contact_id"], made["service"]) == (slot_id, contact_id, "ac_service")
    assert (made["status"], made["booked_via"]) == ("booked", "api")
    assert [entry["kind"] for entry in made["history"]] == ["booked"]


def test_a_booking_emits_two_events_of_one_transaction(calendar: Calendar) -> None:
    """`appointment.created` and `appointment.booked`, with two ids and one request id (X1, K-05)."""
    made = calendar.book(calendar.slot(), booked_via="staff")
    created, booked = calendar.events("appointment.created", "appointment.booked")
    assert (created["type"], booked["type"]) == ("appointment.created", "appointment.booked")
    assert created["id"] != booked["id"]
    assert created["request_id"] == booked["request_id"]
    assert created["data"] == booked["data"] == made
    assert made["booked_via"] == "staff"


@pytest.mark.parametrize("door", ["agent", "page", "api", "staff"])
def test_every_door_is_named(calendar: Calendar, door: str) -> None:
    """An appointment says through which door it was booked (K-05)."""
    assert calendar.book(calendar.slot(), booked_via=door)["booked_via"] == door


def test_a_full_slot_is_unavailable(calendar: Calendar) -> None:
    """A slot takes as many appointments as its capacity says, and the next one is 409 `slot_unavailable`."""
    slot_id = calendar.slot(capacity=2)
    calendar.book(slot_id)
    assert calendar.get(f"slots/{slot_id}")["status"] == "open"
    calendar.book(slot_id)
    assert calendar.get(f"slots/{slot_id}") | {"status": "full", "booked": 2} == calendar.get(f"slots/{slot_id}")
    refused = calendar.book(slot_id, status=409)
    assert (refused["code"], refused["param"]) == ("slot_unavailable", "slot_id")


def test_a_past_and_a_closed_slot_are_unavailable(calendar: Calendar) -> None:
    """Slots that have begun or are closed cannot be booked; the test clock moves the start as rules see it."""
    resource_id = calendar.resource()
    past, soon, closed = calendar.slots(resource_id, days_ahead(-1), days_ahead(2), days_ahead(9))
    calendar.post(f"slots/{closed}/close", status=200)
    for slot_id in (past, closed):
        assert calendar.book(slot_id, status=409)["code"] == "slot_unavailable"
    calendar.pass_time(timedelta(days=3))
    assert calendar.book(soon, status=409)["code"] == "slot_unavailable"
    assert soon not in calendar.available()


def test_overlapping_slots_of_one_resource_cannot_both_be_booked(calendar: Calendar) -> None:
    """One resource is in one place at a time; another resource, and the time right after, are free (K-02)."""
    start = days_ahead(4)
    one, other = calendar.resource(), calendar.resource()
    first, half, after = calendar.slots(one, start, start + HOUR / 2, start + HOUR)
    [elsewhere] = calendar.slots(other, start)
    calendar.book(first)
    assert calendar.book(half, status=409)["code"] == "slot_unavailable"
    calendar.book(after)
    calendar.book(elsewhere)
    assert calendar.get(f"slots/{half}")["booked"] == 0


def test_a_buffer_keeps_the_time_after_an_appointment_free(calendar: Calendar) -> None:
    """A service's buffer counts as booked: not the next slot but the one after it is available."""
    calendar.service("deep_clean", buffer_min=30)
    start = days_ahead(4)
    first, second, third = calendar.slots(calendar.resource(), start, start + HOUR, start + 2 * HOUR)
    calendar.book(first, service="deep_clean")
    assert calendar.book(second, status=409)["code"] == "slot_unavailable"
    assert calendar.available() == [third]


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"slot_id": "slt_01J9X000000000000000000000"}, "reference_not_found", "slot_id"),
        ({"slot_id": "nonsense"}, "reference_not_found", "slot_id"),
        ({"contact_id": "ctc_01J9X000000000000000000000"}, "reference_not_found", "contact_id"),
        ({"contact_id": "nonsense"}, "reference_not_found", "contact_id"),
        ({"service": "unknown"}, "reference_not_found", "service"),
        ({"service": "massage"}, "service_mismatch", "service"),
        ({"booked_via": "fax"}, "validation_failed", "booked_via"),
    ],
)
def test_a_wrong_reference_is_named(calendar: Calendar, change: dict[str, Any], code: str, param: str) -> None:
    """Unknown references are 422 with the field; nothing of the booking stays, so the slot is still free."""
    calendar.service("ac_service")
    calendar.service("massage")
    slot_id = calendar.slot(service="ac_service")
    body = {"slot_id": slot_id, "contact_id": calendar.contact(), "service": "ac_service"} | change
    refused = calendar.post("appointments", body, status=422)
    assert (refused["code"], refused["param"]) == (code, param)
    assert calendar.get(f"slots/{slot_id}")["booked"] == 0


def test_objects_of_other_workspaces_are_unknown(calendar: Calendar, org: Organisation) -> None:
    """A slot and a contact of another workspace answer exactly as unknown ones do (W-01)."""
    with org.live.client() as live:
        theirs = Calendar(live)
        slot_id, contact_id = theirs.slot(), theirs.contact()
    mine = calendar.slot()
    for body, param in (({"slot_id": slot_id}, "slot_id"), ({"slot_id": mine, "contact_id": contact_id}, "contact_id")):
        refused = calendar.post("appointments", {"contact_id": calendar.contact()} | body, status=422)
        assert (refused["code"], refused["param"]) == ("reference_not_found", param)


def test_a_service_that_does_not_fit_is_refused(calendar: Calendar) -> None:
    """A slot for any service takes only those that are not longer than it."""
    calendar.service("long", duration_min=90)
    assert calendar.book(calendar.slot(), service="long", status=422)["code"] == "slot_too_short"


def test_the_slots_service_is_booked_by_default(calendar: Calendar) -> None:
    """An appointment without a service is for the slot's."""
    calendar.service("ac_service")
    assert calendar.book(calendar.slot(service="ac_service"))["service"] == "ac_service"
    assert calendar.book(calendar.slot())["service"] is None


def test_a_repeated_call_books_once(calendar: Calendar) -> None:
    """The same key and body answer the same appointment, and the slot is taken once."""
    slot_id, contact_id = calendar.slot(capacity=5), calendar.contact()
    answers = [
        calendar.http.post(
            "/calendar/v1/appointments",
            headers={"Idempotency-Key": "same"},
            json={"slot_id": slot_id, "contact_id": contact_id},
        )
        for _ in range(3)
    ]
    assert len({answer.content for answer in answers}) == 1
    assert calendar.get(f"slots/{slot_id}")["booked"] == 1


def test_a_booking_takes_few_statements(api: Api, calendar: Calendar) -> None:
    """A booking reads the terms, counts, inserts and schedules the reminder, and that is all beside what any request does."""
    calendar.service("ac_service")
    body = {"slot_id": calendar.slot(), "contact_id": calendar.contact(), "service": "ac_service"}
    statements: list[str] = []
    engine = api.app.state.platform.engine.sync_engine

    def record(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    engine_event.listen(engine, "before_cursor_execute", record)
    try:
        calendar.post("appointments", body)
    finally:
        engine_event.remove(engine, "before_cursor_execute", record)
    own = [one for one in statements if "idempotency_claim" not in one and "unit_finish" not in one]
    assert [one.split()[0] for one in own] == [
        "SAVEPOINT", "SELECT", "SAVEPOINT", "UPDATE", "INSERT", "RELEASE", "INSERT", "RELEASE"
    ]  # fmt: skip


def test_appointments_are_listed_by_what_they_are_about(calendar: Calendar) -> None:
    """The list is newest first, and filtered by contact, slot, resource, service, status and start."""
    calendar.service("ac_service")
    one, other = calendar.resource(), calendar.resource()
    near, far = calendar.slots(one, days_ahead(2), days_ahead(20))
    [elsewhere] = calendar.slots(other, days_ahead(2))
    contact_id = calendar.contact()
    first = calendar.book(near, contact_id, service="ac_service")["id"]
    second = calendar.book(far, contact_id)["id"]
    third = calendar.book(elsewhere)["id"]

    def listed(**query: str) -> list[str]:
        return [row["id"] for row in calendar.get("appointments", **query)["data"]]

    assert listed() == [third, second, first]
    assert listed(contact_id=contact_id) == [second, first]
    assert listed(slot_id=elsewhere) == [third]
    assert listed(resource_id=one) == [second, first]
    assert listed(resource_id=one, service="ac_service") == [first]
    assert listed(status="cancelled") == []
    assert listed(contact_id=contact_id, **{"from": days_ahead(10).isoformat()}) == [second]
    assert listed(to=days_ahead(10).isoformat()) == [third, first]
