"""Threads and evidence: only appended, by reference, bounded (T-01, T-02)."""

import httpx
import pytest

from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.tickets_client import TicketsClient


@pytest.fixture
def tickets(http: httpx.Client) -> TicketsClient:
    """The test workspace."""
    return TicketsClient(http)


def test_a_reply_is_appended(tickets: TicketsClient) -> None:
    """A comment or a note is an entry with its author, and one event; callers write no system entries."""
    path = f"tickets/{tickets.ticket()['id']}/thread_entries"
    comment = tickets.post(path, kind="comment", body="On its way")
    note = tickets.post(path, kind="note", body="Call her at five")
    assert comment["author"]["type"] == "api_key"
    assert tickets.get(path)["data"] == [note, comment]
    assert tickets.get(path, kind="comment")["data"] == [comment]
    assert tickets.get(f"{path}/{note['id']}") == note
    assert [event["data"] for event in tickets.events("ticket.replied")] == [comment, note]
    assert tickets.refused("POST", path, {"kind": "system", "body": "x"}) == (422, "validation_failed", "kind")
    for body in ("", "  ", "x" * 10_001):
        assert tickets.refused("POST", path, {"kind": "note", "body": body}) == (422, "validation_failed", "body")


@pytest.mark.parametrize("what", ["thread_entries", "evidence"])
def test_nothing_is_changed_or_deleted(tickets: TicketsClient, what: str) -> None:
    """PATCH, PUT and DELETE of an entry or of evidence are 405: corrections are new entries (T-01)."""
    path = f"tickets/{tickets.ticket()['id']}/{what}"
    body = {"kind": "note", "body": "x"} if what == "thread_entries" else {"kind": "photo", "ref": "photos/1.jpg"}
    answer = tickets.http.post(f"/tickets/v1/{path}", json=body)
    assert answer.headers["location"] == f"/tickets/v1/{path}/{answer.json()['id']}"
    assert tickets.http.get(answer.headers["location"]).json() == answer.json()
    for method in ("PATCH", "PUT", "DELETE"):
        for target in (path, f"{path}/{answer.json()['id']}"):
            assert tickets.refused(method, target, {"body": "y"})[:2] == (405, "method_not_allowed")


def test_an_entry_belongs_to_its_ticket(tickets: TicketsClient) -> None:
    """Under another ticket's path an entry and evidence are not found."""
    one, two = tickets.ticket()["id"], tickets.ticket()["id"]
    entry = tickets.post(f"tickets/{one}/thread_entries", kind="note", body="x")
    evidence = tickets.post(f"tickets/{one}/evidence", kind="photo", ref="photos/1.jpg")
    assert tickets.refused("GET", f"tickets/{two}/thread_entries/{entry['id']}")[0] == 404
    assert tickets.refused("GET", f"tickets/{two}/evidence/{evidence['id']}")[0] == 404


def test_evidence_is_a_reference(tickets: TicketsClient) -> None:
    """Evidence is a call of this workspace, a URL or an object key, with one event; nothing is uploaded or copied (T-02)."""
    path = f"tickets/{tickets.ticket()['id']}/evidence"
    for ref in ("https://files.example.com/1.wav?sig=x", "s3://bucket/1.wav", "recordings/2026/1.wav"):
        added = tickets.post(path, kind="recording", ref=ref, label="Call")
        assert (added["ref"], added["label"]) == (ref, "Call")
        assert tickets.events("ticket.evidence_added")[-1]["data"] == added
    unknown = {"kind": "recording", "ref": "cal_01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    assert tickets.refused("POST", path, unknown) == (422, "reference_not_found", "ref")
    for ref in ("data:audio/wav;base64,AAAA", "file:///etc/passwd", "x" * 2049):
        assert tickets.refused("POST", path, {"kind": "recording", "ref": ref}) == (422, "validation_failed", "ref")
    assert len(tickets.get(path)["data"]) == 3


async def test_evidence_has_a_bound(api: Api, org: Organisation, tickets: TicketsClient) -> None:
    """A ticket has 200 pieces of evidence at most; one more is 409."""
    id = tickets.ticket()["id"]
    async with owner_connection(api) as owner:
        await owner.execute(
            "INSERT INTO spine.evidence (workspace_id, id, ticket_id, kind, ref) "
            "SELECT $1, 'evd_' || lpad(n::text, 26, '0'), $2, 'photo', 'photos/' || n FROM generate_series(1, 199) n",
            org.test.workspace_id,
            id,
        )
    tickets.post(f"tickets/{id}/evidence", kind="photo", ref="photos/200")
    refused = tickets.refused("POST", f"tickets/{id}/evidence", {"kind": "photo", "ref": "photos/201"})
    assert refused[:2] == (409, "too_much_evidence")
