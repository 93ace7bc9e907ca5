"""The waitlist: offers in the order of joining, claims, expiry and withdrawal."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from products.calendar.waitlist_models import WAITLIST_ENTRY
from tests.api import Api, Organisation
from tests.booking import HOUR, Calendar, counts_are_true, days_ahead
from tests.job_engine import job_runner

START = days_ahead(3)


def window(start: datetime = START, length: timedelta = HOUR) -> dict[str, str]:
    """The time in which a contact wants a slot."""
    return {"from": start.isoformat(), "to": (start + length).isoformat()}


def join(calendar: Calendar, *, status: int = 201, **more: Any) -> Any:
    """Let a new contact join the waitlist."""
    body = {"service": "ac_service", "window": window(), "contact_id": calendar.contact()} | more
    return calendar.post("waitlist_entries", body, status=status)


async def run_jobs(api: Api) -> None:
    """Run all jobs that are due, and those that they schedule."""
    async with job_runner(api) as runner:
        while await runner.run_due():
            pass


def release(calendar: Calendar, appointment: Any) -> None:
    """Give a booked place back."""
    calendar.post(f"appointments/{appointment['id']}/cancel", {"reason": "rain"}, status=200)


def statuses(calendar: Calendar, *entries: Any) -> list[str]:
    """The statuses of these entries by now."""
    return [calendar.get(f"waitlist_entries/{entry['id']}")["status"] for entry in entries]


@pytest.fixture
def full(calendar: Calendar) -> Any:
    """The appointment that fills a slot of the service."""
    calendar.service("ac_service")
    [slot_id] = calendar.slots(calendar.resource(), START, service="ac_service")
    return calendar.book(slot_id)


async def test_a_released_slot_is_offered_in_the_order_of_joining(api: Api, calendar: Calendar, full: Any) -> None:
    """The first who waits gets the offer, with its expiry, and a message; the cancelling request itself offers nothing (K-08)."""
    first = join(calendar, contact_id=calendar.contact(phone="+910000000000"))
    second = join(calendar)
    assert first["window"] == window() | first["window"]
    release(calendar, full)
    assert statuses(calendar, first, second) == ["waiting", "waiting"]
    await run_jobs(api)
    assert statuses(calendar, first, second) == ["offered", "waiting"]
    [offered] = calendar.events("waitlist.offered")
    assert (offered["data"]["id"], offered["data"]["slot_id"]) == (first["id"], full["slot_id"])
    assert offered["actor"] == {"type": "system", "id": "spine"}
    [message_id] = offered["data"]["message_ids"]
    assert calendar.http.get(f"/notifications/v1/messages/{message_id}").json()["template"] == "waitlist_offer"
    assert calendar.available() == [full["slot_id"]]


async def test_a_claim_is_a_booking(api: Api, calendar: Calendar, full: Any) -> None:
    """A claim books the slot for the contact, with the events of any booking, and the entry names the appointment."""
    entry = join(calendar)
    release(calendar, full)
    await run_jobs(api)
    claimed = calendar.post(f"waitlist_entries/{entry['id']}/claim", {"booked_via": "page"}, status=200)
    assert (claimed["status"], claimed["slot_id"], claimed["offer_expires_at"]) == ("booked", full["slot_id"], None)
    made = calendar.get(f"appointments/{claimed['appointment_id']}")
    assert (made["contact_id"], made["slot_id"]) == (entry["contact_id"], full["slot_id"])
    assert (made["service"], made["booked_via"]) == ("ac_service", "page")
    assert [event["type"] for event in calendar.events("waitlist.*")] == [
        "waitlist.joined", "waitlist.offered", "waitlist.booked"
    ]  # fmt: skip
    assert calendar.events("appointment.booked")[-1]["data"] == made
    calendar.pass_time(timedelta(hours=1))
    await run_jobs(api)
    assert statuses(calendar, entry) == ["booked"]


async def test_an_offer_expires_and_the_next_one_is_offered(api: Api, calendar: Calendar, full: Any) -> None:
    """After the service's time an unclaimed offer goes on; whoever let it expire waits on, and is offered the next release."""
    first, second = join(calendar), join(calendar)
    release(calendar, full)
    await run_jobs(api)
    calendar.pass_time(timedelta(minutes=29))
    await run_jobs(api)
    assert statuses(calendar, first, second) == ["offered", "waiting"]
    calendar.pass_time(timedelta(minutes=2))
    late = calendar.post(f"waitlist_entries/{first['id']}/claim", status=409)
    assert (late["code"], late["allowed"]) == ("illegal_transition", ["withdrawn"])
    await run_jobs(api)
    assert statuses(calendar, first, second) == ["waiting", "offered"]
    assert [event["data"]["id"] for event in calendar.events("waitlist.expired")] == [first["id"]]
    calendar.pass_time(timedelta(minutes=31))
    await run_jobs(api)
    assert statuses(calendar, first, second) == ["waiting", "waiting"]
    release(calendar, calendar.book(full["slot_id"]))
    await run_jobs(api)
    assert statuses(calendar, first, second) == ["offered", "waiting"]


async def test_withdrawing_passes_the_offer_on(api: Api, calendar: Calendar, full: Any) -> None:
    """Whoever withdraws is out; an offer that they had goes to the next one at once."""
    first, second, third = join(calendar), join(calendar), join(calendar)
    calendar.post(f"waitlist_entries/{second['id']}/withdraw", status=200)
    release(calendar, full)
    await run_jobs(api)
    calendar.post(f"waitlist_entries/{first['id']}/withdraw", status=200)
    await run_jobs(api)
    assert statuses(calendar, first, second, third) == ["withdrawn", "withdrawn", "offered"]
    assert len(calendar.events("waitlist.withdrawn")) == 2


async def test_only_who_wants_the_slot_is_offered_it(api: Api, calendar: Calendar, full: Any) -> None:
    """Another service, another resource and another time are passed over."""
    calendar.service("massage", duration_min=15)
    others = [
        join(calendar, service="massage"),
        join(calendar, resource_id=calendar.resource()),
        join(calendar, window=window(START - HOUR)),
        join(calendar, window=window(START + HOUR)),
    ]
    entry = join(calendar, resource_id=full["resource_id"])
    release(calendar, full)
    await run_jobs(api)
    assert statuses(calendar, *others, entry) == ["waiting"] * 4 + ["offered"]


async def test_a_slot_for_any_service_is_offered_to_those_that_fit(api: Api, calendar: Calendar) -> None:
    """A slot without a service goes to the first one whose service is not longer than it."""
    calendar.service("long", duration_min=90)
    calendar.service("short", duration_min=30)
    made = calendar.book(calendar.slots(calendar.resource(), START)[0])
    long, short = join(calendar, service="long"), join(calendar, service="short")
    release(calendar, made)
    await run_jobs(api)
    assert statuses(calendar, long, short) == ["waiting", "offered"]


async def test_more_room_is_offered_to_as_many(api: Api, calendar: Calendar, full: Any) -> None:
    """A raised capacity is offered to one waiting contact for each new place, and no more (K-08)."""
    entries = [join(calendar) for _ in range(4)]
    answer = calendar.http.patch(f"/calendar/v1/slots/{full['slot_id']}", json={"capacity": 3})
    assert answer.status_code == 200, answer.text
    [released] = calendar.events("slot.released")
    assert released["data"]["released"] == 2
    await run_jobs(api)
    assert statuses(calendar, *entries) == ["offered", "offered", "waiting", "waiting"]


async def test_a_taken_or_closed_slot_is_not_offered(api: Api, calendar: Calendar, full: Any) -> None:
    """Whoever books first has the slot: nothing is offered then, nor from a slot that was closed."""
    entry = join(calendar)
    release(calendar, full)
    again = calendar.book(full["slot_id"])
    await run_jobs(api)
    release(calendar, again)
    calendar.post(f"slots/{full['slot_id']}/close", status=200)
    await run_jobs(api)
    assert statuses(calendar, entry) == ["waiting"]


async def test_a_claim_of_a_slot_that_is_gone_is_refused(api: Api, calendar: Calendar, full: Any) -> None:
    """An offer is no reservation: if somebody else has booked, the claim is 409 `slot_unavailable`, and the offer stays."""
    entry = join(calendar)
    release(calendar, full)
    await run_jobs(api)
    calendar.book(full["slot_id"])
    assert calendar.post(f"waitlist_entries/{entry['id']}/claim", status=409)["code"] == "slot_unavailable"
    calendar.pass_time(timedelta(hours=1))
    await run_jobs(api)
    assert statuses(calendar, entry) == ["waiting"]


async def test_two_waiters_and_the_door_have_one_winner(
    api: Api, org: Organisation, calendar: Calendar, full: Any
) -> None:
    """Two waiting contacts with an offer of one place, and bookings beside them, 50 calls at once: one wins (K-08)."""
    entries, contact_id, slot_id = [join(calendar), join(calendar)], calendar.contact(), full["slot_id"]
    calendar.http.patch(f"/calendar/v1/slots/{slot_id}", json={"capacity": 3}).raise_for_status()
    await run_jobs(api)
    assert statuses(calendar, *entries) == ["offered", "offered"]
    calendar.book(slot_id)
    async with org.test.async_client() as http:
        calls = [
            http.post("/calendar/v1/appointments", json={"slot_id": slot_id, "contact_id": contact_id})
            if n % 3 == 2
            else http.post(f"/calendar/v1/waitlist_entries/{entries[n % 3]['id']}/claim", json={})
            for n in range(50)
        ]
        answers = await asyncio.gather(*calls)
    assert sorted(answer.status_code for answer in answers)[1:] == [409] * 49
    assert sum(answer.status_code in (200, 201) for answer in answers) == 1
    assert await counts_are_true(api)


async def test_many_released_slots_are_offered_once_each(api: Api, calendar: Calendar) -> None:
    """However many workers run, each released slot has one offer, and no contact has two."""
    calendar.service("ac_service")
    made = [
        calendar.book(slot_id)
        for slot_id in calendar.slots(calendar.resource(), *(START + n * HOUR for n in range(8)), service="ac_service")
    ]
    entries = [join(calendar, window=window(START, 8 * HOUR)) for _ in range(10)]
    for one in made:
        release(calendar, one)
    async with job_runner(api) as one_runner, job_runner(api) as other:
        for _ in range(4):
            await asyncio.gather(one_runner.run_due(), other.run_due())
    offered = [entry for entry in (calendar.get(f"waitlist_entries/{e['id']}") for e in entries) if entry["slot_id"]]
    assert len(offered) == len({entry["slot_id"] for entry in offered}) == 8


@pytest.mark.parametrize("state", WAITLIST_ENTRY.states)
async def test_every_transition_that_the_table_lacks_is_refused(
    api: Api, calendar: Calendar, full: Any, state: str
) -> None:
    """Claim and withdraw work from the states that the table says, and from no other: 409 with what is allowed."""
    actions = {"booked": "claim", "withdrawn": "withdraw"}
    for to, action in actions.items():
        calendar.service(f"for_{to}")
        [slot_id] = calendar.slots(calendar.resource(), START, service=f"for_{to}")
        entry = join(calendar, service=f"for_{to}")
        if state in ("offered", "booked"):
            release(calendar, calendar.book(slot_id))
            await run_jobs(api)
        if state in actions:
            calendar.post(f"waitlist_entries/{entry['id']}/{actions[state]}", status=200)
        assert statuses(calendar, entry) == [state]
        allowed = to in WAITLIST_ENTRY.states[state]
        answer = calendar.post(f"waitlist_entries/{entry['id']}/{action}", status=200 if allowed else 409)
        if not allowed:
            assert answer["code"] == "illegal_transition"
            assert answer["allowed"] == (["withdrawn"] if state == "waiting" else [])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"service": "unknown"}, "service"),
        ({"resource_id": "rsc_01J9X000000000000000000000"}, "resource_id"),
        ({"resource_id": "x"}, "resource_id"),
        ({"contact_id": "ctc_01J9X000000000000000000000"}, "contact_id"),
        ({"contact_id": "x"}, "contact_id"),
        ({"window": window(days_ahead(-3))}, "window.to"),
        ({"window": window(START, -HOUR)}, "window"),
        ({"window": {"from": START.isoformat()}}, "window.to"),
    ],
)
def test_a_wrong_entry_is_refused_by_field(calendar: Calendar, full: Any, change: dict[str, Any], param: str) -> None:
    """References that lead nowhere and impossible windows are 422 with the field."""
    assert join(calendar, status=422, **change)["param"] == param


def test_entries_are_listed_by_what_they_are_about(calendar: Calendar, full: Any) -> None:
    """The list is newest first, and filtered by contact, status, service and resource."""
    one, other = join(calendar), join(calendar, resource_id=full["resource_id"])
    calendar.post(f"waitlist_entries/{one['id']}/withdraw", status=200)

    def listed(**query: str) -> list[str]:
        return [row["id"] for row in calendar.get("waitlist_entries", **query)["data"]]

    assert listed() == listed(service="ac_service") == [other["id"], one["id"]]
    assert listed(contact_id=one["contact_id"]) == listed(status="withdrawn") == [one["id"]]
    assert listed(resource_id=full["resource_id"]) == [other["id"]]
    assert listed(contact_id=one["contact_id"], status="waiting") == []
