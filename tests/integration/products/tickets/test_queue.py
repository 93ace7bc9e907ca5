"""The queue and the claims: who is next, and one owner each (T-06, T-12)."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.tickets_client import TicketsClient


@pytest.fixture
def tickets(http: httpx.Client) -> TicketsClient:
    """The test workspace."""
    return TicketsClient(http)


def test_the_most_urgent_then_the_oldest_is_next(tickets: TicketsClient) -> None:
    """The queue is ordered by priority and age, positions count from 1, and who has an owner or is resolved is not in it."""
    made = {
        name: tickets.ticket(priority=priority)["id"]
        for name, priority in (("a", "low"), ("b", "normal"), ("c", "urgent"), ("d", "normal"), ("e", "high"))
    }
    queue = tickets.get("tickets/queue")
    assert [row["id"] for row in queue["data"]] == [made[name] for name in "cebda"]
    assert [row["queue_position"] for row in queue["data"]] == [1, 2, 3, 4, 5]
    listed = {row["id"]: row["queue_position"] for row in tickets.get("tickets")["data"]}
    assert listed == {row["id"]: row["queue_position"] for row in queue["data"]}
    tickets.post(f"tickets/{made['c']}/resolve", resolution_note="done")
    assigned = tickets.post(f"tickets/{made['b']}/assign", owner_id=tickets.user())
    assert assigned["queue_position"] is None
    assert [tickets.get(f"tickets/{made[name]}")["queue_position"] for name in "ebdac"] == [1, None, 2, 3, None]
    first = tickets.get("tickets/queue", limit=1)
    assert ([row["id"] for row in first["data"]], first["has_more"]) == ([made["e"]], True)
    assert [row["id"] for row in tickets.get("tickets/queue", priority="low")["data"]] == [made["a"]]


async def test_positions_have_a_bound(api: Api, org: Organisation, tickets: TicketsClient) -> None:
    """Positions are counted up to 1,000; those behind are shown as 1,001, so that no reader counts a long queue."""
    last = tickets.ticket(priority="low")
    async with owner_connection(api) as owner:
        await owner.execute(
            "INSERT INTO spine.tickets (workspace_id, id, contact_id, subject, source, sla_running_since) "
            "SELECT $1, 'tkt_' || lpad(n::text, 26, '0'), $2, 'x', 'api', now() FROM generate_series(1, 999) n",
            org.test.workspace_id,
            last["contact_id"],
        )
    path = f"tickets/{last['id']}"
    assert tickets.get(path)["queue_position"] == 1000
    for _ in range(2):
        tickets.ticket(contact_id=last["contact_id"])
        assert tickets.get(path)["queue_position"] == 1001
    assert tickets.get("tickets/queue", priority="low")["data"][0]["queue_position"] == 1002


def test_lists_do_not_query_for_each_ticket(api: Api, tickets: TicketsClient) -> None:
    """The list and the queue take as many statements for twenty tickets as for one."""
    statements: list[str] = []

    def count(path: str) -> int:
        statements.clear()
        tickets.get(path)
        return len(statements)

    engine = api.app.state.platform.engine.sync_engine
    contact_id = tickets.contact()
    tickets.ticket(contact_id=contact_id)
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    few = {path: count(path) for path in ("tickets", "tickets/queue")}
    for _ in range(19):
        tickets.ticket(contact_id=contact_id)
    assert {path: count(path) for path in few} == few
    assert 0 < few["tickets/queue"] <= few["tickets"] <= 3


def test_an_owner_may_be_replaced_but_not_repeated(tickets: TicketsClient) -> None:
    """Each assignment is one event; the same owner again is 409 and none (T-06)."""
    id = tickets.ticket()["id"]
    ann, bob = tickets.user(), tickets.user()
    tickets.post(f"tickets/{id}/assign", owner_id=ann)
    assert tickets.refused("POST", f"tickets/{id}/assign", {"owner_id": ann}) == (409, "already_assigned", "owner_id")
    claim = {"owner_id": bob, "only_unassigned": True}
    assert tickets.refused("POST", f"tickets/{id}/assign", claim) == (409, "already_assigned", "owner_id")
    tickets.post(f"tickets/{id}/assign", owner_id=bob)
    events = tickets.events("ticket.assigned", of=id)
    assert [(one["data"]["previous_owner_id"], one["data"]["owner_id"]) for one in events] == [
        (None, ann),
        (ann, bob),
    ]
    stale = tickets.refused("POST", f"tickets/{id}/assign", {"owner_id": ann}, **{"If-Match": '"1"'})
    assert stale == (409, "version_conflict", "If-Match")


async def _all_at_once(org: Organisation, path: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    async with org.test.async_client() as http:
        return list(await asyncio.gather(*(http.post(f"/tickets/v1/{path}", json=body) for body in bodies)))


@pytest.mark.parametrize("action", ["assign", "triage"])
async def test_of_fifty_claims_one_wins(org: Organisation, tickets: TicketsClient, action: str) -> None:
    """Fifty people claim one ticket at once: one gets it, 49 hear 409 with the winner, and one event is emitted (T-06)."""
    id = tickets.ticket()["id"]
    users = [tickets.user() for _ in range(50)]
    bodies = [{"owner_id": user, "only_unassigned": True} for user in users]
    answers = await _all_at_once(org, f"tickets/{id}/{action}", bodies)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 49}
    (winner,) = [answer.json()["owner_id"] for answer in answers if answer.status_code == 200]
    assert {answer.json()["existing_id"] for answer in answers if answer.status_code == 409} == {winner}
    assert tickets.get(f"tickets/{id}")["owner_id"] == winner
    assert [event["data"]["owner_id"] for event in tickets.events("ticket.assigned", of=id)] == [winner]


async def test_fifty_assignments_are_fifty_events(org: Organisation, tickets: TicketsClient) -> None:
    """Assignments that may replace each other all succeed, one event each, and their owners follow one another."""
    id = tickets.ticket()["id"]
    users = [tickets.user() for _ in range(50)]
    answers = await _all_at_once(org, f"tickets/{id}/assign", [{"owner_id": user} for user in users])
    assert {answer.status_code for answer in answers} == {200}
    events = sorted(tickets.events("ticket.assigned", of=id), key=lambda event: event["sequence"])
    owners = [event["data"]["owner_id"] for event in events]
    assert sorted(owners) == sorted(users)
    assert [event["data"]["previous_owner_id"] for event in events] == [None, *owners[:-1]]
    assert tickets.get(f"tickets/{id}")["owner_id"] == owners[-1]


def test_triage_is_one_transaction(tickets: TicketsClient) -> None:
    """Assigning and moving in one call emits both events; if one part is refused, neither happens (T-07, T-12)."""
    id, ann = tickets.ticket()["id"], tickets.user()
    refused = tickets.refused("POST", f"tickets/{id}/triage", {"owner_id": ann, "to": "resolved", "reason": "x"})
    assert refused == (409, "illegal_transition", None)
    assert tickets.get(f"tickets/{id}")["owner_id"] is None
    moved = tickets.post(f"tickets/{id}/triage", owner_id=ann, to="pending", reason="waits for the part")
    assert (moved["owner_id"], moved["status"]) == (ann, "pending")
    assert tickets.kinds(id) == ["ticket.created", "ticket.assigned", "ticket.status_changed"]
    for body, param in (({}, "owner_id"), ({"to": "open"}, "reason")):
        assert tickets.refused("POST", f"tickets/{id}/triage", body) == (422, "validation_failed", param)


def test_scopes_of_triage(org: Organisation, http: httpx.Client, tickets: TicketsClient) -> None:
    """`tickets:triage` reads, assigns, moves and replies, and nothing else; `tickets:write` may triage too (T-12)."""
    id, ann, bob = tickets.ticket()["id"], tickets.user(), tickets.user()
    made = {
        scope: tickets.call("POST", "/v1/api_keys", name="k", scopes=[scope])["api_key"]
        for scope in ("tickets:triage", "tickets:write", "tickets:read")
    }
    with org.test.client(made["tickets:triage"]) as narrow:
        agent = TicketsClient(narrow)
        assert [row["id"] for row in agent.get("tickets/queue")["data"]] == [id]
        agent.post(f"tickets/{id}/assign", owner_id=ann)
        agent.post(f"tickets/{id}/triage", to="open", reason="looking")
        agent.post(f"tickets/{id}/thread_entries", kind="note", body="Looks broken")
        for method, path in (("POST", "tickets"), ("PATCH", f"tickets/{id}"), ("POST", f"tickets/{id}/resolve")):
            assert agent.refused(method, path, {})[:2] == (403, "scope_missing")
    with org.test.client(made["tickets:write"]) as writing:
        TicketsClient(writing).post(f"tickets/{id}/assign", owner_id=bob)
        assert TicketsClient(writing).refused("GET", f"tickets/{id}")[:2] == (403, "scope_missing")
    with org.test.client(made["tickets:read"]) as reading:
        TicketsClient(reading).get("tickets/queue")
        assert TicketsClient(reading).refused("POST", f"tickets/{id}/assign", {"owner_id": ann})[0] == 403
