"""Slots: created all or none, given more room, closed."""

from typing import Any

import pytest

from products.calendar.slot_models import MAX_SLOTS
from tests.api import Api, Organisation
from tests.booking import HOUR, Calendar, days_ahead
from tests.database import count_rows

START = days_ahead(3)


def slot(resource_id: str, **more: Any) -> dict[str, Any]:
    """A slot of an hour."""
    return {
        "resource_id": resource_id,
        "starts_at": START.isoformat(),
        "ends_at": (START + HOUR).isoformat(),
        **more,
    }


def test_slots_are_created_in_the_order_of_the_request(calendar: Calendar) -> None:
    """The answer has every slot, and each has its event; a slot is read back as it was answered."""
    calendar.service("ac_service")
    resource_id = calendar.resource()
    rows = [slot(resource_id, capacity=n + 1, service="ac_service", metadata={"n": str(n)}) for n in range(4)]
    made = calendar.post("slots", {"slots": rows})["data"]
    assert [one["capacity"] for one in made] == [1, 2, 3, 4]
    assert {(one["status"], one["booked"], one["service"]) for one in made} == {("open", 0, "ac_service")}
    assert [calendar.get(f"slots/{one['id']}") for one in made] == made
    assert sorted(event["data"]["id"] for event in calendar.events("slot.created")) == sorted(o["id"] for o in made)


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"resource_id": "rsc_01J9X000000000000000000000"}, "resource_id", "reference_not_found"),
        ({"resource_id": "x"}, "resource_id", "reference_not_found"),
        ({"service": "unknown"}, "service", "reference_not_found"),
        ({"service": "long"}, "ends_at", "slot_too_short"),
        ({"ends_at": START.isoformat()}, "ends_at", "invalid_times"),
        ({"ends_at": (START - HOUR).isoformat()}, "ends_at", "invalid_times"),
        ({"ends_at": (START + 32 * 24 * HOUR).isoformat()}, "ends_at", "slot_too_long"),
        ({"starts_at": "9999-12-30T00:00:00Z", "ends_at": "9999-12-31T23:00:00Z"}, "ends_at", "too_far_ahead"),
        ({"capacity": 0}, "capacity", None),
        ({"capacity": 10_001}, "capacity", None),
        ({"capacity": "3"}, "capacity", None),
        ({"starts_at": "tomorrow"}, "starts_at", None),
        ({"starts_at": "2027-01-01T10:00:00"}, "starts_at", None),
        ({"color": "red"}, "color", None),
    ],
)
async def test_one_wrong_slot_refuses_all_by_its_name(
    api: Api, org: Organisation, calendar: Calendar, change: dict[str, Any], field: str, code: str | None
) -> None:
    """The error names the slot's place and field, and nothing is created."""
    calendar.service("long", duration_min=61)
    resource_id = calendar.resource()
    rows = [slot(resource_id), slot(resource_id) | change, slot(resource_id)]
    refused = calendar.post("slots", {"slots": rows}, status=422)
    assert refused["param"] == f"slots.1.{field}"
    assert code is None or refused["code"] == code
    assert await count_rows(api, "slots", org.test) == 0


def test_every_wrong_slot_is_named(calendar: Calendar) -> None:
    """All faults are told at once."""
    rows = [slot("x"), slot(calendar.resource()), slot("y", service="unknown")]
    refused = calendar.post("slots", {"slots": rows}, status=422)
    assert [error["param"] for error in refused["errors"]] == [
        "slots.0.resource_id", "slots.2.resource_id", "slots.2.service"
    ]  # fmt: skip


def test_a_request_creates_so_many_slots_at_most(calendar: Calendar) -> None:
    """500 slots are created by one request, and one more is refused."""
    resource_id = calendar.resource()
    assert len(calendar.post("slots", {"slots": [slot(resource_id)] * MAX_SLOTS})["data"]) == MAX_SLOTS
    for rows in ([], [slot(resource_id)] * (MAX_SLOTS + 1)):
        assert calendar.post("slots", {"slots": rows}, status=422)["param"] == "slots"


def test_more_room_is_released(calendar: Calendar) -> None:
    """A raised capacity emits `slot.released` with the new places; a lowered one does not, and never below what is booked."""
    slot_id = calendar.slot(capacity=2)
    for _ in range(2):
        calendar.book(slot_id)

    def change(capacity: int, status: int = 200) -> Any:
        answer = calendar.http.patch(f"/calendar/v1/slots/{slot_id}", json={"capacity": capacity})
        assert answer.status_code == status, answer.text
        return answer.json()

    assert change(5) | {"capacity": 5, "status": "open"} == change(5)
    assert [event["data"]["released"] for event in calendar.events("slot.released")] == [3]
    assert change(2)["status"] == "full"
    refused = change(1, 409)
    assert (refused["code"], refused["param"]) == ("capacity_in_use", "capacity")
    assert len(calendar.events("slot.released")) == 1
    assert len(calendar.events("slot.updated")) == 2


def test_a_stale_change_is_refused(calendar: Calendar) -> None:
    """A booking changes the slot's version, so a PATCH with the version before is 409 `version_conflict`."""
    slot_id = calendar.slot(capacity=2)
    before = calendar.get(f"slots/{slot_id}")["version"]
    calendar.book(slot_id)
    answer = calendar.http.patch(
        f"/calendar/v1/slots/{slot_id}", json={"capacity": 3}, headers={"If-Match": f'"{before}"'}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "version_conflict")


def test_a_slot_is_closed_once_and_keeps_its_appointments(calendar: Calendar) -> None:
    """Closing emits `slot.closed`; what is booked stays booked; a second close is 409; a closed slot is not released."""
    slot_id = calendar.slot(capacity=2)
    made = calendar.book(slot_id)
    closed = calendar.post(f"slots/{slot_id}/close", status=200)
    assert (closed["status"], closed["booked"]) == ("closed", 1)
    assert calendar.get(f"appointments/{made['id']}") == made
    assert calendar.post(f"slots/{slot_id}/close", status=409)["code"] == "illegal_transition"
    calendar.http.patch(f"/calendar/v1/slots/{slot_id}", json={"capacity": 9}).raise_for_status()
    assert [event["type"] for event in calendar.events("slot.closed", "slot.released")] == ["slot.closed"]
