"""Transitions of tickets: the whole matrix, resolving with a note, and reopening (T-03, T-07 to T-09, X9)."""

import asyncio
import itertools
from collections import Counter

import httpx
import pytest

from products.tickets.ticket_models import TRANSITIONS, TicketStatus
from tests.api import Organisation
from tests.tickets_client import TicketsClient

STATES = [str(status) for status in TicketStatus]
BY_TRANSITION = {
    ("new", "open"), ("new", "pending"), ("open", "pending"), ("pending", "open"),
}  # fmt: skip
"""What /transition may do, by the table of the specification."""


@pytest.fixture
def tickets(http: httpx.Client) -> TicketsClient:
    """The test workspace."""
    return TicketsClient(http)


def in_state(tickets: TicketsClient, state: str) -> str:
    """Return the id of a ticket in this state."""
    id: str = tickets.ticket()["id"]
    if state in ("open", "pending"):
        tickets.post(f"tickets/{id}/transition", to=state, reason="r")
    elif state == "resolved":
        tickets.post(f"tickets/{id}/resolve", resolution_note="done")
    return id


def test_the_table_is_that_of_the_specification() -> None:
    """new→open,pending,resolved; open↔pending; open,pending→resolved; resolved→open (products.md 3.3)."""
    assert {(str(a), str(b)) for a, targets in TRANSITIONS.items() for b in targets} == BY_TRANSITION | {
        ("new", "resolved"), ("open", "resolved"), ("pending", "resolved"), ("resolved", "open"),
    }  # fmt: skip


@pytest.mark.parametrize(("before", "to"), list(itertools.product(STATES, STATES)))
def test_every_pair_of_states(tickets: TicketsClient, before: str, to: str) -> None:
    """/transition does what the table allows, with one event; all else, the same state included, is 409 with `allowed`."""
    id = in_state(tickets, before)
    count = len(tickets.events("ticket.status_changed", of=id))
    answer = tickets.http.post(f"/tickets/v1/tickets/{id}/transition", json={"to": to, "reason": "because"})
    events = tickets.events("ticket.status_changed", of=id)[count:]
    if (before, to) in BY_TRANSITION:
        assert (answer.status_code, answer.json()["status"]) == (200, to)
        (event,) = events
        assert {name: event["data"][name] for name in ("from", "to", "reason")} == {
            "from": before, "to": to, "reason": "because",
        }  # fmt: skip
        assert event["data"]["actor"] == event["actor"]
        assert event["actor"]["type"] == "api_key"
    else:
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (409, "illegal_transition")
        assert problem["allowed"] == sorted(b for a, b in BY_TRANSITION if a == before)
        assert events == []
        assert tickets.get(f"tickets/{id}")["status"] == before


@pytest.mark.parametrize("before", STATES)
def test_resolving_needs_a_note_and_an_unresolved_ticket(tickets: TicketsClient, before: str) -> None:
    """Without a note 422; a resolved ticket 409; else both events, `status_changed` before `resolved` (T-08)."""
    id = in_state(tickets, before)
    assert tickets.refused("POST", f"tickets/{id}/resolve", {}) == (422, "validation_failed", "resolution_note")
    assert tickets.refused("POST", f"tickets/{id}/resolve", {"resolution_note": "  "})[0] == 422
    if before == "resolved":
        assert tickets.refused("POST", f"tickets/{id}/resolve", {"resolution_note": "x"})[:2] == (
            409,
            "illegal_transition",
        )
        return
    count = len(tickets.kinds(id))
    resolved = tickets.post(f"tickets/{id}/resolve", resolution_note="Part sent")
    assert (resolved["status"], resolved["resolution_note"]) == ("resolved", "Part sent")
    assert resolved["resolved_at"] is not None
    assert tickets.kinds(id)[count:] == ["ticket.status_changed", "ticket.resolved"]
    assert tickets.events("ticket.status_changed", of=id)[-1]["data"]["reason"] == "Part sent"


def test_the_contact_is_notified(tickets: TicketsClient) -> None:
    """A message to the contact is created through the message service, in the same transaction; the event names it (T-08)."""
    ticket = tickets.ticket(contact_id=tickets.contact(phone="+910000000000"))
    resolved = tickets.post(f"tickets/{ticket['id']}/resolve", resolution_note="Part sent")
    (event,) = tickets.events("ticket.resolved", of=ticket["id"])
    (message,) = tickets.http.get("/notifications/v1/messages").json()["data"]
    assert event["data"]["message_id"] == resolved["message_id"] == message["id"]
    assert (message["contact_id"], message["template"]) == (ticket["contact_id"], "ticket_resolved")
    assert message["metadata"] == {"ticket_id": ticket["id"]}
    (created,) = tickets.events("message.created")
    assert created["request_id"] == event["request_id"]


def test_without_an_address_the_timeline_says_why(tickets: TicketsClient) -> None:
    """A contact who cannot be reached does not keep a ticket open: `message_id` is null, with the reason in the timeline."""
    id = tickets.ticket()["id"]
    assert tickets.post(f"tickets/{id}/resolve", resolution_note="Done")["message_id"] is None
    entry = tickets.get(f"tickets/{id}/timeline")["data"][-1]
    assert (entry["kind"], entry["detail"]["message_id"], entry["detail"]["refused"]) == (
        "ticket.resolved",
        None,
        "no_channel",
    )
    assert entry["detail"]["reason"]


@pytest.mark.parametrize("before", STATES)
def test_only_resolved_tickets_are_reopened(tickets: TicketsClient, before: str) -> None:
    """/reopen needs a reason, and leads from `resolved` to `open` alone (T-09)."""
    id = in_state(tickets, before)
    assert tickets.refused("POST", f"tickets/{id}/reopen", {}) == (422, "validation_failed", "reason")
    if before != "resolved":
        assert tickets.refused("POST", f"tickets/{id}/reopen", {"reason": "x"})[:2] == (409, "illegal_transition")
        return
    assert tickets.post(f"tickets/{id}/reopen", reason="broke again")["status"] == "open"


def test_reopening_twice_counts_two(tickets: TicketsClient) -> None:
    """Each reopening is counted with its time, is an entry of the thread, and emits both events (T-09)."""
    id = in_state(tickets, "resolved")
    first = tickets.post(f"tickets/{id}/reopen", reason="broke again")
    assert (first["reopen_count"], len(first["reopened_at"]), first["resolution_note"]) == (1, 1, None)
    tickets.post(f"tickets/{id}/resolve", resolution_note="sent another")
    second = tickets.post(f"tickets/{id}/reopen", reason="and again")
    assert (second["reopen_count"], second["reopened_at"][0]) == (2, first["reopened_at"][0])
    assert second["reopened_at"] == sorted(set(second["reopened_at"]))
    events = tickets.events("ticket.reopened", of=id)
    assert [event["data"]["reason"] for event in events] == ["broke again", "and again"]
    assert tickets.kinds(id)[-2:] == ["ticket.status_changed", "ticket.reopened"]
    thread = tickets.get(f"tickets/{id}/thread_entries", kind="system")["data"]
    assert [entry["body"] for entry in thread] == [
        "Reopened: and again", "Resolved: sent another", "Reopened: broke again", "Resolved: done",
    ]  # fmt: skip


async def test_of_fifty_resolutions_one_wins(org: Organisation, tickets: TicketsClient) -> None:
    """Fifty people resolve one ticket at once: one does, with one event and one message (T-08)."""
    id = tickets.ticket(contact_id=tickets.contact(phone="+910000000000"))["id"]
    async with org.test.async_client() as http:
        calls = (http.post(f"/tickets/v1/tickets/{id}/resolve", json={"resolution_note": f"n{n}"}) for n in range(50))
        answers = await asyncio.gather(*calls)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 49}
    assert len(tickets.events("ticket.resolved", of=id)) == 1
    assert len(tickets.http.get("/notifications/v1/messages").json()["data"]) == 1


def test_the_timeline_tells_everything(tickets: TicketsClient) -> None:
    """Each event of a ticket is an entry of its timeline, with the actor, in order."""
    id = tickets.ticket()["id"]
    tickets.post(f"tickets/{id}/assign", owner_id=tickets.user())
    tickets.patch(f"tickets/{id}", priority="high")
    tickets.post(f"tickets/{id}/thread_entries", kind="comment", body="Hello")
    tickets.post(f"tickets/{id}/evidence", kind="photo", ref="photos/1.jpg")
    tickets.post(f"tickets/{id}/transition", to="pending", reason="waits")
    tickets.post(f"tickets/{id}/resolve", resolution_note="done")
    tickets.post(f"tickets/{id}/reopen", reason="no")
    entries = tickets.get(f"tickets/{id}/timeline")["data"]
    assert [entry["kind"] for entry in entries] == tickets.kinds(id)
    assert {entry["actor"]["type"] for entry in entries} == {"api_key"}
