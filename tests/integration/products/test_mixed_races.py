"""Races of callers at different doors: REST, the hosted page, a tool and the end of a call compete, and the database referees."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest

from spine.cli.demo.hosted_form import read_form
from tests.api import Account, Api, Organisation, unique_key
from tests.booking import Calendar, counts_are_true, days_ahead
from tests.job_engine import job_runner

CALLERS = 50
Attempt = Callable[[int], Awaitable[int]]
"""One caller's try. Returns the status of the answer."""


class Doors:
    """The doors to one workspace."""

    def __init__(self, account: Account, http: httpx.AsyncClient) -> None:
        self.account = account
        self.http = http

    async def tool(self, name: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """Call a tool. Returns the status of its operation, and its content."""
        body = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": name, "arguments": {**arguments, "idempotency_key": unique_key()}},
        }  # fmt: skip
        answer = await self.http.post("/mcp", json=body, headers={"Accept": "application/json, text/event-stream"})
        assert answer.status_code == 200, answer.text
        result = answer.json()["result"]
        content: dict[str, Any] = result["structuredContent"]
        return int(content["status"]) if result.get("isError") else 201, content

    async def session(self, n: int) -> str:
        """Open a call session. Returns its id."""
        body = {"phone": f"+9198765{n:05}", "channel": "voice"}
        answer = await self.http.post("/crm/v1/call_sessions", json=body)
        return str(answer.raise_for_status().json()["id"])


async def race(attempts: Sequence[Awaitable[int]]) -> list[int]:
    """Run all at once. Returns their statuses; none may be a fault of ours."""
    statuses = list(await asyncio.gather(*attempts))
    assert [status for status in statuses if status >= 500] == []
    return statuses


def calendar_of(account: Account) -> tuple[Calendar, httpx.Client]:
    """Return the calendar of the workspace, and the client that it uses."""
    http = account.client()
    return Calendar(http), http


@pytest.mark.parametrize("capacity", [1, 3])
async def test_one_slot_has_as_many_winners_as_seats(api: Api, org: Organisation, capacity: int) -> None:
    """50 callers over REST, page, tool and finalize want one slot: its capacity wins, the others get 409, nothing is half-written."""
    calendar, client = calendar_of(org.test)
    with client:
        service = await asyncio.to_thread(calendar.service)
        slot_id = await asyncio.to_thread(lambda: calendar.slot(service=service, capacity=capacity))
        page = await asyncio.to_thread(
            calendar.post, "booking_pages", {"slug": f"races-{org.test.workspace_id[-8:].lower()}-{capacity}",
            "brand": {"name": "Acme", "color": "#224466"}, "services": [service]},
        )  # fmt: skip
        contacts = [await asyncio.to_thread(calendar.contact) for _ in range(CALLERS)]
    async with org.test.async_client() as http:
        doors = Doors(org.test, http)
        sessions = [await doors.session(n) for n in range(CALLERS // 4 + 1)]
        path = httpx.URL(page["url"]).path
        forms = [read_form((await http.get(path, params={"service": service})).text) for _ in range(CALLERS // 4 + 1)]

        async def by_rest(n: int) -> int:
            body = {"slot_id": slot_id, "contact_id": contacts[n], "service": service}
            return (await http.post("/calendar/v1/appointments", json=body)).status_code

        async def by_tool(n: int) -> int:
            return (await doors.tool("calendar_book", slot_id=slot_id, contact_id=contacts[n], service=service))[0]

        async def by_page(n: int) -> int:
            typed = {"name": f"Caller {n}", "phone": f"+9187654{n:05}", "email": "", "slot": slot_id}
            answer = await http.post(path, data=forms[n // 4] | typed, headers={"Origin": org.test.url})
            return 201 if answer.status_code == 303 else answer.status_code

        async def by_call(n: int) -> int:
            body = {"lead": {"source": "phone"}, "appointment": {"slot_id": slot_id, "service": service}}
            return (await http.post(f"/crm/v1/call_sessions/{sessions[n // 4]}/finalize", json=body)).status_code

        kinds: list[Attempt] = [by_rest, by_tool, by_page, by_call]
        statuses = await race([kinds[n % 4](n) for n in range(CALLERS)])
        leads = (await http.get("/crm/v1/leads", params={"limit": 100})).json()["data"]
        appointments = (await http.get("/calendar/v1/appointments", params={"limit": 100})).json()["data"]
    winners = [status for status in statuses if status in (200, 201)]
    assert len(winners) == len(appointments) == capacity
    assert {status for status in statuses if status not in (200, 201)} == {409}
    assert len(leads) == len([one for one in appointments if one["booked_via"] == "agent"])
    assert await counts_are_true(api)


async def test_crossing_reschedules_never_block_each_other(api: Api, org: Organisation) -> None:
    """Appointments that change places in both directions at once: no deadlock, no fault, and every count is true."""
    calendar, client = calendar_of(org.test)
    with client:
        resource_id = await asyncio.to_thread(calendar.resource)
        starts = [days_ahead(3) + timedelta(hours=2 * n) for n in range(2)]
        slots = await asyncio.to_thread(lambda: calendar.slots(resource_id, *starts, capacity=CALLERS * 2))
        booked = [(await asyncio.to_thread(calendar.book, slots[n % 2]))["id"] for n in range(CALLERS)]
    async with org.test.async_client() as http:

        async def move(n: int) -> int:
            body = {"slot_id": slots[(n + 1) % 2]}
            return (await http.post(f"/calendar/v1/appointments/{booked[n]}/reschedule", json=body)).status_code

        statuses = await race([move(n) for n in range(CALLERS)])
    assert statuses == [200] * CALLERS
    assert await counts_are_true(api)


async def test_one_owner_per_ticket(org: Organisation) -> None:
    """50 claims of one unassigned ticket over REST and the tool: one owner, one `ticket.assigned`."""
    with org.test.client() as client:
        contact_id = client.post("/crm/v1/contacts", json={"name": "Meera"}).json()["id"]
        users = [
            client.post("/v1/users", json={"name": f"U{n}", "email": f"u{n}@example.com"}).json()["id"]
            for n in range(CALLERS)
        ]
        ticket = client.post(
            "/tickets/v1/tickets", json={"contact_id": contact_id, "subject": "Part delayed", "source": "api"}
        ).json()
    async with org.test.async_client() as http:
        doors = Doors(org.test, http)

        async def by_rest(n: int) -> int:
            body = {"owner_id": users[n], "only_unassigned": True}
            return (await http.post(f"/tickets/v1/tickets/{ticket['id']}/assign", json=body)).status_code

        async def by_tool(n: int) -> int:
            status, _ = await doors.tool("tickets_triage", id=ticket["id"], owner_id=users[n], only_unassigned=True)
            return status

        statuses = await race([(by_rest if n % 2 else by_tool)(n) for n in range(CALLERS)])
        events = (await http.get("/v1/events", params={"type": "ticket.assigned"})).json()["data"]
    assert len([status for status in statuses if status in (200, 201)]) == 1
    assert len(events) == 1


async def test_one_draft_invoice_per_milestone(api: Api, org: Organisation) -> None:
    """50 callers over REST and the tool reach one milestone, and three workers run its consumer: one event, one draft."""
    with org.test.client() as client:
        owner_id = client.post("/v1/users", json={"name": "Asha", "email": "asha@example.com"}).json()["id"]
        project = client.post("/works/v1/projects", json={"name": "Fit-out", "owner_id": owner_id}).json()
        milestone = client.post(
            "/works/v1/milestones",
            json={"project_id": project["id"], "name": "Done", "position": 1, "billing": {"amount_minor": 100, "currency": "INR"}},
        ).json()  # fmt: skip
    async with org.test.async_client() as http:
        doors = Doors(org.test, http)

        async def by_rest(n: int) -> int:
            return (await http.post(f"/works/v1/milestones/{milestone['id']}/reach", json={})).status_code

        async def by_tool(n: int) -> int:
            return (await doors.tool("works_reach_milestone", id=milestone["id"]))[0]

        statuses = await race([(by_rest if n % 2 else by_tool)(n) for n in range(CALLERS)])
        async with job_runner(api) as one, job_runner(api) as two, job_runner(api) as three:
            await asyncio.gather(one.run_due(), two.run_due(), three.run_due())
        invoices = (await http.get("/billing/v1/invoices")).json()["data"]
        events = (await http.get("/v1/events", params={"type": ["milestone.reached", "invoice.drafted"]})).json()[
            "data"
        ]
    assert len([status for status in statuses if status in (200, 201)]) == 1
    assert [event["type"] for event in events] == ["milestone.reached", "invoice.drafted"]
    assert len(invoices) == 1
