"""Tickets from every door, with an owner, evidence and events (T-02, T-04, T-05, T-07)."""

from typing import Any

import httpx
import pytest

from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.tickets_client import TicketsClient


@pytest.fixture
def tickets(http: httpx.Client) -> TicketsClient:
    """The test workspace."""
    return TicketsClient(http)


def test_the_printed_call_makes_a_ticket(org: Organisation, http: httpx.Client, tickets: TicketsClient) -> None:
    """The call of the developer page, byte for byte but for its ids, answers 201 with a ticket (T-04)."""
    session = tickets.call("POST", "/crm/v1/call_sessions", phone="+910000000000", channel="voice")
    call = tickets.call("POST", f"/crm/v1/call_sessions/{session['id']}/finalize", lead={"source": "voice"})
    call_id, contact_id = call["call_id"], session["contact_id"]
    body = f'{{ "contact_id": "{contact_id}", "subject": "Part delayed", "source": "voice", "call_id": "{call_id}" }}'
    answer = httpx.post(
        f"{org.test.url}/tickets/v1/tickets",
        content=body,
        headers={
            "Authorization": f"Bearer {org.test.key}",
            "Idempotency-Key": "9f2c-4d1a-0000-e7b3",
            "Content-Type": "application/json",
        },
        trust_env=False,
    )
    made = answer.json()
    assert answer.status_code == 201
    assert made["id"].startswith("tkt_")
    assert answer.headers["location"] == f"/tickets/v1/tickets/{made['id']}"
    assert (made["status"], made["priority"], made["call_id"], made["queue_position"]) == ("new", "normal", call_id, 1)
    assert tickets.get("tickets", call_id=call_id)["data"][0]["id"] == made["id"]
    assert tickets.post(f"tickets/{made['id']}/evidence", kind="recording", ref=call_id)["ref"] == call_id


@pytest.mark.parametrize("source", ["voice", "chat", "form", "api", "email"])
def test_every_door_emits_the_ticket_with_its_evidence(tickets: TicketsClient, source: str) -> None:
    """`ticket.created` carries the door and the evidence, whatever the door (T-05)."""
    evidence = [{"kind": "transcript", "ref": "https://files.example.com/t/1.txt", "label": "Transcript"}]
    made = tickets.ticket(source=source, evidence=evidence, body="Where is it?")
    (event,) = tickets.events("ticket.created", of=made["id"])
    assert event["data"] == made
    assert (event["sequence"], made["source"], made["body"]) == (1, source, "Where is it?")
    assert [(one["kind"], one["ref"], one["label"]) for one in made["evidence"]] == [
        ("transcript", "https://files.example.com/t/1.txt", "Transcript")
    ]
    (entry,) = tickets.get(f"tickets/{made['id']}/thread_entries")["data"]
    assert (entry["kind"], entry["body"]) == ("comment", "Where is it?")


def test_references_are_of_this_workspace(api: Api, tickets: TicketsClient) -> None:
    """A contact, call or owner that is unknown or foreign is the same 422 with its `param`, and nothing is written."""
    with api.sign_up().test.client() as http:
        other = TicketsClient(http)
        foreign = {"contact_id": other.contact(), "owner_id": other.user()}
    unknown = {
        "contact_id": "ctc_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "owner_id": "usr_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "call_id": "cal_01ARZ3NDEKTSV4RRFFQ69G5FAV",
    }
    body = {"contact_id": tickets.contact(), "subject": "x", "source": "api"}
    for field, id in (*foreign.items(), *unknown.items()):
        refused = tickets.refused("POST", "tickets", {**body, field: id})
        assert refused == (422, "reference_not_found", field)
    ref = {"kind": "recording", "ref": unknown["call_id"]}
    fine = {"kind": "recording", "ref": "recordings/1.wav"}
    refused = tickets.refused("POST", "tickets", {**body, "evidence": [fine, ref]})
    assert refused == (422, "reference_not_found", "evidence.1.ref")
    assert tickets.get("tickets")["data"] == []
    assert tickets.events("ticket.*") == []


def test_an_owner_at_creation_is_an_assignment(tickets: TicketsClient) -> None:
    """A ticket that has an owner from the start is never in the queue, and both facts are told."""
    owner_id = tickets.user()
    made = tickets.ticket(owner_id=owner_id)
    assert (made["owner_id"], made["queue_position"]) == (owner_id, None)
    assert tickets.kinds(made["id"]) == ["ticket.created", "ticket.assigned"]
    assert tickets.get("tickets/queue")["data"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", "phone"),
        ("priority", "critical"),
        ("subject", ""),
        ("subject", "x" * 301),
        ("status", "open"),
        ("evidence", [{"kind": "photo", "ref": "data:image/png;base64,AAAA"}]),
        ("evidence", [{"kind": "photo", "ref": "javascript:alert(1)"}]),
        ("evidence", [{"kind": "photo", "ref": "two words"}]),
        ("evidence", [{"kind": "photo", "ref": "cal_123"}]),
        ("evidence", [{"kind": "photo", "ref": "x"}] * 21),
    ],
)
def test_a_wrong_field_is_named(tickets: TicketsClient, field: str, value: Any) -> None:
    """What does not fit is refused with the field's name. Evidence is a reference and never content (T-02)."""
    body = {"contact_id": tickets.contact(), "subject": "x", "source": "api", field: value}
    status, code, param = tickets.refused("POST", "tickets", body)
    assert (status, code) == (422, "validation_failed")
    assert (param or "").startswith(field)


def test_a_change_tells_each_field(tickets: TicketsClient) -> None:
    """`ticket.updated` lists what changed, from what to what; a change to the same values emits nothing."""
    made = tickets.ticket(topic="billing")
    changed = tickets.patch(f"tickets/{made['id']}", subject="Part lost", topic=None, metadata={"k": "v"})
    (event,) = tickets.events("ticket.updated", of=made["id"])
    assert event["data"]["changes"] == [
        {"field": "subject", "old": "Part delayed", "new": "Part lost"},
        {"field": "topic", "old": "billing", "new": None},
        {"field": "metadata", "old": {}, "new": {"k": "v"}},
    ]
    assert (changed["version"], event["sequence"]) == (2, 2)
    assert tickets.patch(f"tickets/{made['id']}", subject="Part lost")["version"] == 2
    assert len(tickets.events("ticket.updated", of=made["id"])) == 1


def test_a_combined_change_gives_both_events(tickets: TicketsClient) -> None:
    """A new owner and other fields in one call emit `ticket.assigned` and `ticket.updated`, once each (T-07)."""
    made = tickets.ticket()
    owner_id = tickets.user()
    tickets.patch(f"tickets/{made['id']}", owner_id=owner_id, priority="high")
    assert tickets.kinds(made["id"]) == ["ticket.created", "ticket.assigned", "ticket.updated"]
    assigned, updated = tickets.events("ticket.assigned", "ticket.updated", of=made["id"])
    assert (assigned["data"]["previous_owner_id"], assigned["data"]["owner_id"]) == (None, owner_id)
    assert [change["field"] for change in updated["data"]["changes"]] == ["priority"]
    back = tickets.patch(f"tickets/{made['id']}", owner_id=None)
    assert (back["owner_id"], back["queue_position"]) == (None, 1)
    assert tickets.events("ticket.updated", of=made["id"])[-1]["data"]["changes"] == [
        {"field": "owner_id", "old": owner_id, "new": None}
    ]


def test_a_status_is_not_set_by_a_patch(tickets: TicketsClient) -> None:
    """PATCH knows no `status` (T-03), and a stale version is refused."""
    made = tickets.ticket()
    path = f"tickets/{made['id']}"
    assert tickets.refused("PATCH", path, {"status": "resolved"}) == (422, "validation_failed", "status")
    refused = tickets.refused("PATCH", path, {"subject": "x"}, **{"If-Match": '"7"'})
    assert refused == (409, "version_conflict", "If-Match")


def test_lists_are_filtered(tickets: TicketsClient) -> None:
    """A list takes contact, owner, call, status, priority, topic and source, alone and together."""
    contact_id, owner_id = tickets.contact(), tickets.user()
    one = tickets.ticket(contact_id=contact_id, owner_id=owner_id, priority="high", topic="a", source="chat")
    two = tickets.ticket(contact_id=contact_id, priority="low")
    tickets.ticket()
    expected: list[tuple[dict[str, str], list[Any]]] = [
        ({"contact_id": contact_id}, [two, one]),
        ({"owner_id": owner_id}, [one]),
        ({"contact_id": contact_id, "owner_id": owner_id, "status": "new"}, [one]),
        ({"contact_id": contact_id, "priority": "low"}, [two]),
        ({"topic": "a"}, [one]),
        ({"source": "chat"}, [one]),
        ({"contact_id": contact_id, "status": "pending"}, []),
    ]
    for query, found in expected:
        assert [row["id"] for row in tickets.get("tickets", **query)["data"]] == [row["id"] for row in found]


def test_other_workspaces_do_not_see_it(api: Api, org: Organisation, tickets: TicketsClient) -> None:
    """Every path of a ticket is 404 for the live workspace and for a stranger (P-14, P-15)."""
    id = tickets.ticket()["id"]
    for account in (org.live, api.sign_up().test):
        with account.client() as http:
            other = TicketsClient(http)
            for path in ("", "/thread_entries", "/evidence", "/timeline"):
                assert other.refused("GET", f"tickets/{id}{path}")[:2] == (404, "not_found")
            assert other.refused("POST", f"tickets/{id}/resolve", {"resolution_note": "x"})[0] == 404
            assert other.get("tickets")["data"] == other.get("tickets/queue")["data"] == []


async def test_threads_and_evidence_are_append_only_in_the_database(
    api: Api, org: Organisation, tickets: TicketsClient
) -> None:
    """Neither the API's role nor the owner can change or delete an entry or evidence (T-01, T-02)."""
    tickets.ticket(body="x", evidence=[{"kind": "photo", "ref": "photos/1.jpg"}])
    async with owner_connection(api) as owner:
        for table in ("thread_entries", "evidence"):
            for change in (
                f"UPDATE spine.{table} SET metadata = '{{}}'",
                f"DELETE FROM spine.{table}",
                f"TRUNCATE spine.{table}",
            ):
                with pytest.raises(Exception, match="append-only"):
                    await owner.execute(change)
            grants = await owner.fetch(
                "SELECT DISTINCT privilege_type FROM information_schema.role_table_grants "
                "WHERE table_schema = 'spine' AND table_name = $1 AND grantee LIKE 'spine%'",
                table,
            )
            assert {row["privilege_type"] for row in grants} >= {"SELECT", "INSERT"}
            for role in ("spine_app", "spine_worker"):
                for privilege in ("UPDATE", "DELETE", "TRUNCATE"):
                    assert not await owner.fetchval(
                        "SELECT has_table_privilege($1, $2, $3)", role, f"spine.{table}", privilege
                    )
