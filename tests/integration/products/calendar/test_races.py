"""Races: many callers at once, through every door; the database decides, and nobody gets a 5xx (K-01, K-02, K-06, K-13)."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

import products.calendar
import spine.kernel.public_slugs
from tests.api import Api, Organisation
from tests.booking import HOUR, Calendar, counts_are_true, days_ahead
from tests.database import owner_connection

CALLERS = 50
RETRIED = "transaction retried"
"""What the API logs after a deadlock, which it retries once."""
DOORS = ("agent", "page", "api", "staff")


async def _all(org: Organisation, calls: list[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
    """Make these calls at once. Returns the responses in the same order."""
    async with org.test.async_client() as http:
        return list(await asyncio.gather(*(http.post(f"/calendar/v1/{path}", json=body) for path, body in calls)))


def _bookings(slots: list[str], contact_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (
            "appointments",
            {
                "slot_id": slots[n % len(slots)],
                "contact_id": contact_id,
                "booked_via": DOORS[n % len(DOORS)],
            },
        )
        for n in range(CALLERS)
    ]


def _codes(answers: list[httpx.Response]) -> Counter[Any]:
    return Counter(
        answer.status_code if answer.status_code < 400 else (answer.status_code, answer.json()["code"])
        for answer in answers
    )


@pytest.mark.parametrize("capacity", [1, 3])
async def test_a_slot_is_won_as_often_as_it_has_places(
    api: Api, org: Organisation, calendar: Calendar, capacity: int
) -> None:
    """Of 50 callers at once, through mixed doors, exactly as many win as the slot has places; the others get 409."""
    slot_id, contact_id = calendar.slot(capacity=capacity), calendar.contact()
    answers = await _all(org, _bookings([slot_id], contact_id))
    assert _codes(answers) == {201: capacity, (409, "slot_unavailable"): CALLERS - capacity}
    assert calendar.get(f"slots/{slot_id}")["booked"] == capacity
    assert len(calendar.events("appointment.booked")) == capacity
    assert await counts_are_true(api)


@pytest.mark.parametrize("capacity", [1, 3])
async def test_overlapping_slots_of_one_resource_have_one_winner(
    api: Api, org: Organisation, calendar: Calendar, capacity: int
) -> None:
    """50 callers over 8 overlapping slots of one person: one slot wins, and fills to its capacity at most."""
    start = days_ahead(3)
    slots = calendar.slots(calendar.resource(), *(start + n * HOUR / 10 for n in range(8)), capacity=capacity)
    answers = await _all(org, _bookings(slots, calendar.contact()))
    codes = _codes(answers)
    assert set(codes) == {201, (409, "slot_unavailable")}
    assert 1 <= codes[201] <= capacity
    booked = [slot for slot in (calendar.get(f"slots/{id}") for id in slots) if slot["booked"]]
    assert len(booked) == 1
    assert await counts_are_true(api)


async def test_crossing_reschedules_do_not_deadlock(
    api: Api, org: Organisation, calendar: Calendar, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 reschedules that cross between four slots: no deadlock, not even one that a retry would hide, and no 5xx (K-06)."""
    contact_id = calendar.contact()
    slots = [calendar.slot(capacity=50) for _ in range(4)]
    made = [calendar.book(slots[n % 4], contact_id)["id"] for n in range(100)]
    moves = [
        (f"appointments/{id}/reschedule", {"slot_id": slots[(n + 1 + n // 4 % 3) % 4]}) for n, id in enumerate(made)
    ]
    capsys.readouterr()
    answers = await _all(org, moves)
    assert RETRIED not in capsys.readouterr().out
    assert set(_codes(answers)) <= {200, (409, "slot_unavailable")}
    assert _codes(answers)[200] >= 50
    assert await counts_are_true(api)
    booked = [calendar.get(f"appointments/{id}") for id in made]
    assert {one["status"] for one in booked} == {"booked"}
    assert [one["slot_id"] for one in booked] == [
        body["slot_id"] if answer.status_code == 200 else slots[n % 4]
        for n, (answer, (_, body)) in enumerate(zip(answers, moves, strict=True))
    ]


async def test_moves_into_full_slots_keep_the_old_ones(api: Api, org: Organisation, calendar: Calendar) -> None:
    """Reschedules into slots that fill up meanwhile: whoever loses the new slot keeps the old one (K-06)."""
    contact_id, targets = calendar.contact(), [calendar.slot(capacity=3) for _ in range(2)]
    made = [calendar.book(calendar.slot(), contact_id) for _ in range(20)]
    calls = [(f"appointments/{one['id']}/reschedule", {"slot_id": targets[n % 2]}) for n, one in enumerate(made)]
    answers = await _all(org, calls + _bookings(targets, contact_id)[:20])
    assert set(_codes(answers)) <= {200, 201, (409, "slot_unavailable")}
    assert sum(answer.status_code < 300 for answer in answers) == 6
    assert await counts_are_true(api)
    for one, answer in zip(made, answers, strict=False):
        if answer.status_code == 409:
            assert calendar.get(f"appointments/{one['id']}") == one


async def test_swaps_into_overlapping_slots_do_not_deadlock(
    api: Api, org: Organisation, calendar: Calendar, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reschedules, bookings and cancellations that meet in the overlapping slots of one person: one holds the time at last."""
    contact_id, target = calendar.contact(), calendar.resource()
    start = days_ahead(3)
    overlapping = calendar.slots(target, *(start + n * HOUR / 10 for n in range(6)))
    elsewhere = [calendar.book(calendar.slot(), contact_id)["id"] for _ in range(30)]
    calls = [(f"appointments/{id}/reschedule", {"slot_id": overlapping[n % 6]}) for n, id in enumerate(elsewhere)]
    calls += _bookings(overlapping, contact_id)[:30]
    calls += [(f"appointments/{id}/cancel", {"reason": "rain"}) for id in elsewhere[:10]]
    capsys.readouterr()
    answers = await _all(org, calls)
    assert RETRIED not in capsys.readouterr().out
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    assert await counts_are_true(api)
    assert sum(calendar.get(f"slots/{id}")["booked"] for id in overlapping) <= 1


async def test_moves_into_the_time_of_one_resource_take_turns(
    api: Api, org: Organisation, calendar: Calendar, capsys: pytest.CaptureFixture[str]
) -> None:
    """40 reschedules into as many overlapping slots of one person: one wins, the others keep their slots, none deadlocks."""
    contact_id, start = calendar.contact(), days_ahead(3)
    overlapping = calendar.slots(calendar.resource(), *(start + n * HOUR / 60 for n in range(40)))
    elsewhere = [calendar.slot() for _ in overlapping]
    made = [calendar.book(id, contact_id)["id"] for id in elsewhere]
    moves = [(f"appointments/{id}/reschedule", {"slot_id": slot}) for id, slot in zip(made, overlapping, strict=True)]
    capsys.readouterr()
    answers = await _all(org, moves)
    assert RETRIED not in capsys.readouterr().out
    assert _codes(answers) == {200: 1, (409, "slot_unavailable"): 39}
    assert sum(calendar.get(f"slots/{id}")["booked"] for id in elsewhere) == 39
    assert await counts_are_true(api)


async def test_a_move_waits_for_the_resource_and_a_booking_does_not(
    api: Api, org: Organisation, calendar: Calendar
) -> None:
    """While another move holds the new resource, a reschedule into it waits, and a booking in it goes through (K-06)."""
    resource_id, contact_id = calendar.resource(), calendar.contact()
    target, other = calendar.slots(resource_id, days_ahead(3), days_ahead(4))
    id = calendar.book(calendar.slot(), contact_id)["id"]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with owner_connection(api) as owner, owner_connection(api) as observer, org.test.async_client() as http:
        async with owner.transaction():
            await owner.execute("SELECT FROM spine.calendar_resources WHERE id = $1 FOR NO KEY UPDATE", resource_id)
            path = f"/calendar/v1/appointments/{id}/reschedule"
            move = asyncio.create_task(http.post(path, json={"slot_id": target}))
            while not await observer.fetchval(waiting):
                assert not move.done()
                await asyncio.sleep(0.01)
            body = {"slot_id": other, "contact_id": contact_id}
            assert (await http.post("/calendar/v1/appointments", json=body)).status_code == 201
            assert not move.done()
        assert (await move).status_code == 200


async def test_a_freed_slot_has_one_winner_again(api: Api, org: Organisation, calendar: Calendar) -> None:
    """While one cancels, 49 try to book: at most one gets the slot, and after that it is booked again at once (K-07)."""
    slot_id, contact_id = calendar.slot(), calendar.contact()
    made = calendar.book(slot_id, contact_id)
    cancel = (f"appointments/{made['id']}/cancel", {"reason": "rain"})
    answers = await _all(org, [cancel, *_bookings([slot_id], contact_id)[1:]])
    assert answers[0].status_code == 200
    won = _codes(answers[1:])[201]
    assert won <= 1
    calendar.book(slot_id, contact_id, status=409 if won else 201)
    assert await counts_are_true(api)


async def test_an_appointment_is_cancelled_once(api: Api, org: Organisation, calendar: Calendar) -> None:
    """50 cancellations and reschedules of one appointment: one cancellation wins, and the place is given back once."""
    slots = calendar.slots(calendar.resource(), days_ahead(3), days_ahead(4))
    id = calendar.book(slots[0])["id"]
    calls = [
        (f"appointments/{id}/cancel", {"reason": "rain"})
        if n % 2
        else (f"appointments/{id}/reschedule", {"slot_id": slots[n // 2 % 2]})
        for n in range(CALLERS)
    ]
    answers = await _all(org, calls)
    assert Counter(answer.status_code for answer in answers[1::2])[200] == 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert [calendar.get(f"slots/{slot_id}")["booked"] for slot_id in slots] == [0, 0]
    assert len(calendar.events("appointment.cancelled")) == 1


def test_no_lock_is_in_the_way_of_a_booking() -> None:
    """No module of the calendar uses Redis or an advisory lock: the database's rows and constraints decide (K-03, X11)."""
    modules = [*Path(products.calendar.__path__[0]).glob("*.py"), Path(spine.kernel.public_slugs.__file__)]
    assert len(modules) > 10
    for module in modules:
        source = module.read_text().lower()
        assert "redis" not in source, module.name
        assert "advisory" not in source, module.name
        assert "asyncio.lock" not in source, module.name
