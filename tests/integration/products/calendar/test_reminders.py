"""Reminders: when they are due, what they say, and when `appointment.reminder_sent` is emitted (K-09)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api import Api, Organisation
from tests.booking import HOUR, Calendar, days_ahead
from tests.database import owner_connection
from tests.job_engine import job_runner, working
from tests.message_engine import until

PHONE = "+910000000000"
"""A recipient of the sandbox, who is sent everything."""


async def due_at(api: Api, appointment: Any) -> datetime | None:
    """When the appointment's reminder is due; None if none is."""
    async with owner_connection(api) as owner:
        found: datetime | None = await owner.fetchval(
            "SELECT due_at FROM spine.jobs WHERE kind = 'calendar.reminder' AND subject_id = $1", appointment["id"]
        )
    return found


async def run_jobs(api: Api) -> None:
    """Run the jobs that are due. No message is sent."""
    async with job_runner(api) as runner:
        await runner.run_due()


def reminders(calendar: Calendar) -> list[Any]:
    """The reminder messages of the workspace, newest first."""
    found = calendar.http.get("/notifications/v1/messages", params={"limit": 100}).json()["data"]
    return [message for message in found if message["template"] == "appointment_reminder"]


@pytest.fixture
def service(calendar: Calendar) -> str:
    """A service with the usual reminders: a day and an hour before."""
    return calendar.service("ac_service")


async def test_a_reminder_is_sent_when_the_provider_accepts_it(
    api: Api, org: Organisation, calendar: Calendar, service: str
) -> None:
    """A day before, by the test clock, the contact is reminded; the event names the message that a provider accepted."""
    contact_id = calendar.contact(phone=PHONE)
    made = calendar.book(calendar.slot(), contact_id, service=service)
    async with working(api):
        await asyncio.to_thread(calendar.pass_time, days_ahead(3) - datetime.now(UTC) - 25 * HOUR)
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(reminders, calendar) == []
        await asyncio.to_thread(calendar.pass_time, 2 * HOUR)

        async def sent() -> list[Any]:
            return await asyncio.to_thread(calendar.events, "appointment.reminder_sent")

        [event] = await until(sent, "no reminder was sent")
        [message] = await asyncio.to_thread(reminders, calendar)
        assert (event["data"]["id"], event["data"]["message_id"]) == (made["id"], message["id"])
        assert event["data"]["minutes_before"] == 24 * 60
        assert message["status"] in ("sent", "delivered", "read")
        assert message["contact_id"] == contact_id
        await asyncio.to_thread(calendar.pass_time, 23 * HOUR)

        async def both() -> bool:
            return len(await sent()) == 2

        await until(both, "the second reminder was not sent")
    assert [event["data"]["minutes_before"] for event in calendar.events("appointment.reminder_sent")] == [1440, 60]


async def test_nothing_is_emitted_while_no_provider_accepted(api: Api, calendar: Calendar, service: str) -> None:
    """A queued reminder, and one that failed, are no `appointment.reminder_sent`."""
    calendar.book(calendar.slot(), calendar.contact(phone=PHONE), service=service)
    calendar.pass_time(timedelta(days=3))
    await run_jobs(api)
    [message] = reminders(calendar)
    assert message["status"] == "queued"
    for _ in range(3):
        calendar.pass_time(timedelta(minutes=11))
        await run_jobs(api)
    calendar.http.post(f"/notifications/v1/messages/{message['id']}/cancel").raise_for_status()
    await run_jobs(api)
    assert calendar.events("appointment.reminder_sent") == []
    async with owner_connection(api) as owner:
        query = "SELECT count(*) FROM spine.jobs WHERE kind = 'calendar.reminder_sent' AND subject_id = $1"
        assert await owner.fetchval(query, message["id"]) == 0


async def test_the_first_reminder_is_the_longest_that_is_to_come(api: Api, calendar: Calendar) -> None:
    """Booked more than a day ahead: a day before; nearer: an hour before; without reminders: never."""
    calendar.service("usual")
    calendar.service("quiet", reminder_minutes=[])
    calendar.service("own", reminder_minutes=[5, 120])
    now = datetime.now(UTC)
    far, near, soon = now + timedelta(days=3), now + timedelta(hours=5), now + timedelta(minutes=30)
    for service, start, before in (
        ("usual", far, timedelta(days=1)),
        ("usual", near, HOUR),
        ("usual", soon, None),
        ("quiet", far, None),
        ("own", far, 2 * HOUR),
        ("own", soon, timedelta(minutes=5)),
    ):
        [slot_id] = calendar.slots(calendar.resource(), start)
        made = calendar.book(slot_id, service=service)
        assert await due_at(api, made) == (None if before is None else start - before), (service, before)


async def test_a_reschedule_moves_the_reminder_and_a_cancellation_drops_it(
    api: Api, calendar: Calendar, service: str
) -> None:
    """The reminder is recomputed from the new start; without a reminder to come there is none; cancelled: none."""
    starts = days_ahead(3), days_ahead(9), datetime.now(UTC) + timedelta(minutes=30)
    first, later, soon = calendar.slots(calendar.resource(), *starts)
    made = calendar.book(first, calendar.contact(phone=PHONE), service=service)
    assert await due_at(api, made) == starts[0] - 24 * HOUR
    calendar.post(f"appointments/{made['id']}/reschedule", {"slot_id": later}, status=200)
    assert await due_at(api, made) == starts[1] - 24 * HOUR
    calendar.post(f"appointments/{made['id']}/reschedule", {"slot_id": soon}, status=200)
    assert await due_at(api, made) is None
    calendar.post(f"appointments/{made['id']}/reschedule", {"slot_id": first}, status=200)
    refused = calendar.post(f"appointments/{made['id']}/reschedule", {"slot_id": first}, status=409)
    assert refused["code"] == "slot_unavailable"
    assert await due_at(api, made) == starts[0] - 24 * HOUR
    calendar.post(f"appointments/{made['id']}/cancel", {"reason": "rain"}, status=200)
    assert await due_at(api, made) is None
    calendar.pass_time(timedelta(days=12))
    await run_jobs(api)
    assert reminders(calendar) == []


async def test_a_contact_without_an_address_is_not_reminded(api: Api, calendar: Calendar, service: str) -> None:
    """The contact's timeline says why no reminder was sent."""
    contact_id = calendar.contact()
    made = calendar.book(calendar.slot(), contact_id, service=service)
    calendar.pass_time(timedelta(days=3))
    await run_jobs(api)
    timeline = calendar.http.get(f"/crm/v1/contacts/{contact_id}/timeline").json()["data"]
    assert timeline[-1]["kind"] == "appointment.reminder_not_sent"
    assert timeline[-1]["detail"]["appointment_id"] == made["id"]
    assert timeline[-1]["detail"]["code"]


@pytest.mark.parametrize(
    ("starts_at", "told"),
    [
        ("2027-03-28T00:30:00Z", "Sun 28 Mar 2027, 01:30 CET"),
        ("2027-03-28T01:30:00Z", "Sun 28 Mar 2027, 03:30 CEST"),
        ("2027-10-31T00:30:00Z", "Sun 31 Oct 2027, 02:30 CEST"),
        ("2027-10-31T01:30:00Z", "Sun 31 Oct 2027, 02:30 CET"),
    ],
)
async def test_a_reminder_gives_the_resources_wall_clock(
    api: Api, calendar: Calendar, service: str, starts_at: str, told: str
) -> None:
    """Across a change of the clocks the stored instant stays, and the text says the local time with its offset's name."""
    start = datetime.fromisoformat(starts_at)
    [slot_id] = calendar.slots(calendar.resource(time_zone="Europe/Berlin"), start)
    made = calendar.book(slot_id, calendar.contact(phone=PHONE), service=service)
    assert made["starts_at"] == starts_at
    assert await due_at(api, made) == start - timedelta(hours=24)
    calendar.pass_time(start - datetime.now(UTC) - 20 * HOUR)
    await run_jobs(api)
    async with owner_connection(api) as owner:
        vars = await owner.fetchval("SELECT vars::text FROM spine.messages WHERE id = $1", reminders(calendar)[0]["id"])
    assert f'"starts": "{told}"' in vars
