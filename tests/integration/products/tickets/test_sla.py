"""SLA policies and breaches: by the clock, once a cycle, never while a ticket is pending (T-09, T-10)."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api import Api, Organisation
from tests.database import count_rows
from tests.job_engine import job_runner
from tests.tickets_client import TicketsClient

HOUR_S = 3600


@pytest.fixture
def tickets(http: httpx.Client) -> TicketsClient:
    """The test workspace, with a policy of two hours for normal tickets and of one for urgent ones."""
    made = TicketsClient(http)
    made.post("sla_policies", priority="normal", threshold_s=2 * HOUR_S)
    made.post("sla_policies", priority="urgent", threshold_s=HOUR_S)
    return made


async def run_jobs(api: Api) -> None:
    """Run whatever is due."""
    async with job_runner(api) as runner:
        await runner.run_due()


def breaches(tickets: TicketsClient, ticket: Any) -> list[Any]:
    """Return the ticket's breaches."""
    return tickets.events("ticket.sla_breached", of=ticket["id"])


def due_in(ticket: Any, since: str) -> timedelta:
    """Return how long after a time the ticket is due."""
    return datetime.fromisoformat(ticket["sla"]["due_at"]) - datetime.fromisoformat(since)


async def test_three_runners_breach_a_ticket_once(api: Api, tickets: TicketsClient) -> None:
    """Three runners at once, over and over: one event at the threshold, none before and none after (T-10)."""
    ticket = tickets.ticket()
    assert abs(due_in(ticket, ticket["created_at"]) - timedelta(hours=2)) < timedelta(minutes=1)
    async with job_runner(api) as one, job_runner(api) as two, job_runner(api) as three:
        runners = (one, two, three)
        await asyncio.gather(*(runner.run_due() for runner in runners))
        assert breaches(tickets, ticket) == []
        await asyncio.to_thread(tickets.advance, 2 * HOUR_S)
        await asyncio.gather(*(runner.run_due() for runner in runners))
        await asyncio.to_thread(tickets.advance, 10 * HOUR_S)
        await asyncio.gather(*(runner.run_due() for runner in runners))
    (event,) = breaches(tickets, ticket)
    assert event["actor"] == {"type": "system", "id": "spine"}
    shown = tickets.get(f"tickets/{ticket['id']}")
    assert shown["sla"]["breached_at"] == event["data"]["sla"]["breached_at"] is not None
    assert tickets.get(f"tickets/{ticket['id']}/timeline")["data"][-1]["kind"] == "ticket.sla_breached"


async def test_a_threshold_of_two_seconds(api: Api, org: Organisation) -> None:
    """The real clock breaches a ticket too: threshold 2 s, three sweepers, one event (T-10)."""
    with org.live.client() as http:
        live = TicketsClient(http)
        live.post("sla_policies", priority="low", threshold_s=2)
        ticket = live.ticket(priority="low")
        async with job_runner(api) as one, job_runner(api) as two, job_runner(api) as three:
            until_s = time.monotonic() + 60
            while not breaches(live, ticket) and time.monotonic() < until_s:
                await asyncio.gather(*(runner.run_due() for runner in (one, two, three)))
                await asyncio.sleep(0.1)
            await asyncio.gather(*(runner.run_due() for runner in (one, two, three)))
        (event,) = breaches(live, ticket)
        age = datetime.fromisoformat(event["data"]["sla"]["breached_at"]) - datetime.fromisoformat(ticket["created_at"])
        assert age > timedelta(seconds=1.9)


async def test_the_clock_stands_still_while_pending(api: Api, tickets: TicketsClient) -> None:
    """A pending ticket keeps what is left, however long it waits, and goes on from there (T-10)."""
    ticket = tickets.ticket()
    path = f"tickets/{ticket['id']}"
    await asyncio.to_thread(tickets.advance, 1.5 * HOUR_S)
    pending = tickets.post(f"{path}/transition", to="pending", reason="waits for the contact")
    assert pending["sla"]["due_at"] is None
    assert 0.49 * HOUR_S < pending["sla"]["remaining_s"] <= 0.5 * HOUR_S
    await asyncio.to_thread(tickets.advance, 100 * HOUR_S)
    await run_jobs(api)
    assert breaches(tickets, ticket) == []
    back = tickets.post(f"{path}/transition", to="open", reason="answered")
    assert abs(due_in(back, back["updated_at"]) - timedelta(seconds=pending["sla"]["remaining_s"])) < timedelta(
        seconds=1
    )
    await asyncio.to_thread(tickets.advance, 0.48 * HOUR_S)
    await run_jobs(api)
    assert breaches(tickets, ticket) == []
    await asyncio.to_thread(tickets.advance, 0.02 * HOUR_S)
    await run_jobs(api)
    assert len(breaches(tickets, ticket)) == 1


async def test_the_clock_stops_at_resolved_and_restarts_at_reopened(api: Api, tickets: TicketsClient) -> None:
    """A resolved ticket is never breached; a reopened one has a whole new cycle, which can be breached again (T-09)."""
    ticket = tickets.ticket()
    path = f"tickets/{ticket['id']}"
    await asyncio.to_thread(tickets.advance, 1.9 * HOUR_S)
    resolved = tickets.post(f"{path}/resolve", resolution_note="done")
    assert resolved["sla"]["due_at"] is None
    await asyncio.to_thread(tickets.advance, 9 * HOUR_S)
    await run_jobs(api)
    assert breaches(tickets, ticket) == []
    for count in (1, 2):
        reopened = tickets.post(f"{path}/reopen", reason="no")
        assert reopened["sla"]["breached_at"] is None
        assert abs(due_in(reopened, reopened["updated_at"]) - timedelta(hours=2)) < timedelta(seconds=1)
        await asyncio.to_thread(tickets.advance, 2 * HOUR_S)
        await run_jobs(api)
        assert len(breaches(tickets, ticket)) == count
        tickets.post(f"{path}/resolve", resolution_note="done")
    kinds = [entry["kind"] for entry in tickets.get(f"{path}/timeline")["data"]]
    assert kinds.count("ticket.sla_breached") == 2


async def test_a_breach_is_once_a_cycle(api: Api, tickets: TicketsClient) -> None:
    """Waiting, moving on and changing the priority after a breach do not breach the same cycle again (T-10)."""
    ticket = tickets.ticket()
    path = f"tickets/{ticket['id']}"
    await asyncio.to_thread(tickets.advance, 2 * HOUR_S)
    await run_jobs(api)
    tickets.post(f"{path}/transition", to="pending", reason="waits")
    tickets.post(f"{path}/transition", to="open", reason="goes on")
    tickets.patch(path, priority="urgent")
    await asyncio.to_thread(tickets.advance, 20 * HOUR_S)
    await run_jobs(api)
    assert len(breaches(tickets, ticket)) == 1


async def test_another_priority_has_another_threshold(api: Api, tickets: TicketsClient) -> None:
    """A change of priority applies that priority's policy to the age so far, at once if it is over; none applies to `low`."""
    ticket = tickets.ticket()
    path = f"tickets/{ticket['id']}"
    await asyncio.to_thread(tickets.advance, 1.5 * HOUR_S)
    low = tickets.patch(path, priority="low")
    assert (low["sla"]["due_at"], low["sla"]["threshold_s"]) == (None, None)
    await asyncio.to_thread(tickets.advance, 1)
    await run_jobs(api)
    assert breaches(tickets, ticket) == []
    urgent = tickets.patch(path, priority="urgent")
    assert urgent["sla"]["threshold_s"] == HOUR_S
    await run_jobs(api)
    assert len(breaches(tickets, ticket)) == 1


def test_the_most_specific_policy_applies(tickets: TicketsClient) -> None:
    """A policy of the topic goes before one for every topic, and only for its own priority."""
    tickets.post("sla_policies", priority="normal", topic="outage", threshold_s=60)
    thresholds = [
        tickets.ticket(priority=priority, topic=topic)["sla"]["threshold_s"]
        for priority, topic in (
            ("normal", "outage"),
            ("normal", "other"),
            ("normal", None),
            ("urgent", "outage"),
            ("low", "outage"),
        )
    ]
    assert thresholds == [60, 2 * HOUR_S, 2 * HOUR_S, HOUR_S, None]
    moved = tickets.patch(f"tickets/{tickets.ticket(topic='other')['id']}", topic="outage")
    assert moved["sla"]["threshold_s"] == 60


def test_a_changed_policy_applies_to_new_cycles(tickets: TicketsClient) -> None:
    """A running cycle keeps its threshold when its policy is changed or deleted; tickets after that have the new one."""
    ticket = tickets.ticket()
    (policy,) = [row for row in tickets.get("sla_policies")["data"] if row["priority"] == "normal"]
    changed = tickets.patch(f"sla_policies/{policy['id']}", threshold_s=60)
    assert (changed["threshold_s"], changed["version"]) == (60, 2)
    assert tickets.get(f"tickets/{ticket['id']}")["sla"] == ticket["sla"]
    assert tickets.ticket()["sla"]["threshold_s"] == 60
    assert tickets.call("DELETE", f"/tickets/v1/sla_policies/{policy['id']}")["deleted"] is True
    assert tickets.ticket()["sla"]["threshold_s"] is None
    assert [event["type"] for event in tickets.events("sla_policy.*")] == [
        "sla_policy.created", "sla_policy.created", "sla_policy.updated", "sla_policy.deleted",
    ]  # fmt: skip


def test_one_policy_for_each_priority_and_topic(tickets: TicketsClient) -> None:
    """A second policy of the same priority and topic is refused, with or without a topic; so is a threshold out of range."""
    again = tickets.refused("POST", "sla_policies", {"priority": "normal", "threshold_s": 60})
    assert again == (409, "sla_policy_exists", "priority")
    for threshold_s in (0, -1, 366 * 24 * HOUR_S + 1, 1.5, "60"):
        body = {"priority": "low", "threshold_s": threshold_s}
        assert tickets.refused("POST", "sla_policies", body) == (422, "validation_failed", "threshold_s")


async def test_a_ticket_has_one_job_at_most(api: Api, org: Organisation, tickets: TicketsClient) -> None:
    """However often a ticket is moved, it has one job while its clock runs and none while it stands."""
    id = tickets.ticket()["id"]
    for _ in range(3):
        assert await count_rows(api, "jobs", org.test) == 1
        tickets.post(f"tickets/{id}/transition", to="pending", reason="waits")
        assert await count_rows(api, "jobs", org.test) == 0
        tickets.post(f"tickets/{id}/transition", to="open", reason="goes on")


async def test_moves_race_with_the_breach(api: Api, org: Organisation, tickets: TicketsClient) -> None:
    """A ticket that is resolved while its job runs is either breached before or not at all; nothing fails, nothing is twice."""
    made = [tickets.ticket() for _ in range(20)]
    await asyncio.to_thread(tickets.advance, 2 * HOUR_S)
    async with job_runner(api) as one, job_runner(api) as two, org.test.async_client() as http:
        calls = [
            http.post(f"/tickets/v1/tickets/{ticket['id']}/resolve", json={"resolution_note": "done"})
            for ticket in made
        ]
        answers, *_ = await asyncio.gather(asyncio.gather(*calls), one.run_due(), two.run_due())
    assert {answer.status_code for answer in answers} == {200}
    for ticket in made:
        found = tickets.events("ticket.sla_breached", "ticket.resolved", of=ticket["id"])
        kinds = [event["type"] for event in sorted(found, key=lambda event: event["sequence"])]
        assert kinds in (["ticket.resolved"], ["ticket.sla_breached", "ticket.resolved"])
    assert await count_rows(api, "jobs", org.test) == 0
