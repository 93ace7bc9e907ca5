"""Reschedules, cancellations and ends of appointments."""

from datetime import timedelta
from typing import Any

import pytest

from products.calendar.appointment_changes import MAX_MOVES
from products.calendar.appointment_models import APPOINTMENT
from tests.booking import HOUR, Calendar, days_ahead

BODIES: dict[str, dict[str, str]] = {"cancel": {"reason": "rain"}, "complete": {}, "no_show": {}}


def two_slots(calendar: Calendar, **more: Any) -> list[str]:
    """Two slots of one resource, three and four days ahead."""
    return calendar.slots(calendar.resource(), days_ahead(3), days_ahead(4), **more)


def test_a_reschedule_wins_the_new_slot_and_releases_the_old(calendar: Calendar) -> None:
    """One transaction: the new slot is taken, the old one free, and the event tells both and the notice's message (K-06)."""
    old, new = two_slots(calendar)
    made = calendar.book(old, calendar.contact(phone="+910000000000"))
    moved = calendar.post(f"appointments/{made['id']}/reschedule", {"slot_id": new}, status=200)
    assert (moved["status"], moved["slot_id"], moved["id"]) == ("booked", new, made["id"])
    assert moved["starts_at"] == calendar.get(f"slots/{new}")["starts_at"]
    assert calendar.available() == [old]
    [released] = calendar.events("slot.released")
    [rescheduled] = calendar.events("appointment.rescheduled")
    assert released["request_id"] == rescheduled["request_id"]
    assert (released["data"]["id"], released["data"]["released"]) == (old, 1)
    data = rescheduled["data"]
    assert (data["from"]["slot_id"], data["to"]["slot_id"]) == (old, new)
    assert (data["from"]["starts_at"], data["to"]["starts_at"]) == (made["starts_at"], moved["starts_at"])
    [message_id] = data["message_ids"]
    message = calendar.http.get(f"/notifications/v1/messages/{message_id}").json()
    assert (message["template"], message["contact_id"]) == ("appointment_rescheduled", made["contact_id"])
    assert moved["history"][0] == made["history"][0]
    entry = moved["history"][1]
    assert (entry["kind"], entry["from_slot_id"], entry["to_slot_id"]) == ("rescheduled", old, new)
    assert entry["message_ids"] == [message_id]


def test_a_lost_new_slot_keeps_the_old_one(calendar: Calendar) -> None:
    """A reschedule into a full, closed, past or overlapping slot is 409 and changes nothing (K-06)."""
    resource_id = calendar.resource()
    start = days_ahead(5)
    old, full, closed, half, past = calendar.slots(
        resource_id, days_ahead(3), start, days_ahead(7), start + HOUR / 2, days_ahead(-1)
    )
    calendar.book(full)
    calendar.post(f"slots/{closed}/close", status=200)
    made = calendar.book(old)
    for slot_id in (full, closed, half, past, old):
        refused = calendar.post(f"appointments/{made['id']}/reschedule", {"slot_id": slot_id}, status=409)
        assert refused["code"] == "slot_unavailable"
    assert calendar.get(f"appointments/{made['id']}") == made
    assert [calendar.get(f"slots/{id}")["booked"] for id in (old, full, closed, half)] == [1, 1, 0, 0]
    assert calendar.events("appointment.rescheduled", "slot.released") == []


def test_an_appointment_moves_into_a_slot_that_overlaps_its_own(calendar: Calendar) -> None:
    """The time that the appointment itself occupies is no obstacle."""
    start = days_ahead(3)
    old, half = calendar.slots(calendar.resource(), start, start + HOUR / 2)
    made = calendar.book(old)
    calendar.post(f"appointments/{made['id']}/reschedule", {"slot_id": half}, status=200)
    assert calendar.available() == []
    calendar.post(f"appointments/{made['id']}/cancel", {"reason": "rain"}, status=200)
    assert calendar.available() == [old, half]


def test_a_reschedule_checks_the_service(calendar: Calendar) -> None:
    """An appointment stays for its service: a slot of another one, or one that is too short, is refused."""
    calendar.service("ac_service")
    calendar.service("massage")
    old, other = calendar.slots(calendar.resource(), days_ahead(3))[0], calendar.slot(service="massage")
    [short] = calendar.slots(calendar.resource(), days_ahead(5), length=HOUR / 2)
    id = calendar.book(old, service="ac_service")["id"]
    for slot_id, code in ((other, "service_mismatch"), (short, "slot_too_short"), ("slt_x", "reference_not_found")):
        assert calendar.post(f"appointments/{id}/reschedule", {"slot_id": slot_id}, status=422)["code"] == code


def test_moves_of_one_appointment_are_bounded(calendar: Calendar) -> None:
    """The history grows with each reschedule, so there are so many at most."""
    slots = two_slots(calendar)
    id = calendar.book(slots[0])["id"]
    for n in range(1, MAX_MOVES + 1):
        calendar.post(f"appointments/{id}/reschedule", {"slot_id": slots[n % 2]}, status=200)
    refused = calendar.post(f"appointments/{id}/reschedule", {"slot_id": slots[1]}, status=409)
    assert refused["code"] == "too_many_reschedules"


def test_a_cancellation_needs_a_reason_and_frees_the_place_at_once(calendar: Calendar) -> None:
    """The next read shows the slot, and the next booking of the same person wins it again (K-07)."""
    slot_id, contact_id = calendar.slot(), calendar.contact(phone="+910000000000")
    made = calendar.book(slot_id, contact_id)
    for body in ({}, {"reason": " "}, {"reason": None}):
        assert calendar.post(f"appointments/{made['id']}/cancel", body, status=422)["param"] == "reason"
    for _ in range(3):
        gone = calendar.post(f"appointments/{made['id']}/cancel", {"reason": "rain"}, status=200)
        assert (gone["status"], gone["cancel_reason"]) == ("cancelled", "rain")
        assert calendar.available() == [slot_id]
        made = calendar.book(slot_id, contact_id)
        assert calendar.available() == []
    cancelled = calendar.events("appointment.cancelled")
    assert [event["data"]["cancel_reason"] for event in cancelled] == ["rain"] * 3
    assert [event["request_id"] for event in calendar.events("slot.released")] == [e["request_id"] for e in cancelled]
    [message_id] = cancelled[0]["data"]["message_ids"]
    message = calendar.http.get(f"/notifications/v1/messages/{message_id}").json()
    assert message["template"] == "appointment_cancelled"


def test_a_contact_without_an_address_is_no_obstacle(calendar: Calendar) -> None:
    """Whoever cannot be told can still be rescheduled and cancelled; there is no message then."""
    old, new = two_slots(calendar)
    id = calendar.book(old)["id"]
    calendar.post(f"appointments/{id}/reschedule", {"slot_id": new}, status=200)
    calendar.post(f"appointments/{id}/cancel", {"reason": "rain"}, status=200)
    events = calendar.events("appointment.rescheduled", "appointment.cancelled")
    assert [event["data"]["message_ids"] for event in events] == [[], []]


def test_an_end_comes_after_the_start_only(calendar: Calendar) -> None:
    """Completed and no-show are 409 before the start, by the test clock; a no-show is flagged for follow-up (K-10)."""
    slot_id = calendar.slot(capacity=2)
    kept, missed = calendar.book(slot_id), calendar.book(slot_id)
    for made, action in ((kept, "complete"), (missed, "no_show")):
        refused = calendar.post(f"appointments/{made['id']}/{action}", status=409)
        assert (refused["code"], refused["allowed"]) == ("illegal_transition", ["cancelled"])
    calendar.pass_time(timedelta(days=5))
    done = calendar.post(f"appointments/{kept['id']}/complete", status=200)
    assert (done["status"], done["follow_up"]) == ("completed", False)
    gone = calendar.post(f"appointments/{missed['id']}/no_show", status=200)
    assert (gone["status"], gone["follow_up"], gone["history"][-1]["kind"]) == ("no_show", True, "no_show")
    assert [event["data"] for event in calendar.events("appointment.completed", "appointment.no_show")] == [done, gone]


@pytest.mark.parametrize("state", APPOINTMENT.states)
def test_every_transition_that_the_table_lacks_is_refused(calendar: Calendar, state: str) -> None:
    """After the start each action works from `booked` and from no other state: 409 with what is allowed."""
    actions = {"cancelled": "cancel", "completed": "complete", "no_show": "no_show"}
    slot_id, spare = calendar.slot(capacity=9), calendar.slot()
    made = {to: calendar.book(slot_id)["id"] for to in actions}
    calendar.pass_time(timedelta(days=3, hours=12))
    for to, id in made.items():
        if state != "booked":
            calendar.post(f"appointments/{id}/{actions[state]}", BODIES[actions[state]], status=200)
        allowed = to in APPOINTMENT.states[state]
        answer = calendar.post(f"appointments/{id}/{actions[to]}", BODIES[actions[to]], status=200 if allowed else 409)
        if not allowed:
            assert (answer["code"], answer["allowed"]) == ("illegal_transition", [])
            refused = calendar.post(f"appointments/{id}/reschedule", {"slot_id": spare}, status=409)
            assert refused["code"] == "illegal_transition"


def test_a_past_slot_is_not_released(calendar: Calendar) -> None:
    """`slot.released` says that a place can be booked: it is not emitted for a slot that has begun or is closed."""
    past, closed = two_slots(calendar)
    gone, other = calendar.book(past)["id"], calendar.book(closed)["id"]
    calendar.post(f"slots/{closed}/close", status=200)
    calendar.post(f"appointments/{other}/cancel", {"reason": "rain"}, status=200)
    calendar.pass_time(timedelta(days=3, hours=20))
    calendar.post(f"appointments/{gone}/cancel", {"reason": "rain"}, status=200)
    assert calendar.events("slot.released") == []
    assert calendar.get(f"slots/{closed}") | {"booked": 0, "status": "closed"} == calendar.get(f"slots/{closed}")


def test_an_unknown_appointment_is_404(calendar: Calendar) -> None:
    """Every action answers 404 for an id that is not there."""
    for action, body in {**BODIES, "reschedule": {"slot_id": calendar.slot()}}.items():
        calendar.post(f"appointments/apt_01J9X000000000000000000000/{action}", body, status=404)
