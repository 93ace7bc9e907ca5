"""Routing: the topic's rule, else the default route, users in turn, fair also in a race (T-14)."""

import asyncio
from collections import Counter

import httpx
import pytest

from tests.api import Api, Organisation
from tests.tickets_client import TicketsClient


@pytest.fixture
def tickets(http: httpx.Client) -> TicketsClient:
    """The test workspace."""
    return TicketsClient(http)


def test_the_topic_goes_before_the_default(tickets: TicketsClient) -> None:
    """A rule of the topic applies first, then the default route, then nothing; an owner in the call goes before all."""
    ann, bob, eve = tickets.user(), tickets.user(), tickets.user()
    assert tickets.ticket(topic="billing")["owner_id"] is None
    tickets.post("routing_rules", topic="billing", owner_id=ann)
    assert tickets.ticket(topic="other")["owner_id"] is None
    tickets.post("routing_rules", topic=None, owner_id=bob)
    owners = [tickets.ticket(topic=topic)["owner_id"] for topic in ("billing", "other", None)]
    assert owners == [ann, bob, bob]
    assert tickets.ticket(topic="billing", owner_id=eve)["owner_id"] == eve


def test_users_take_turns(tickets: TicketsClient) -> None:
    """The users of a rule get its tickets in their order, again and again; other topics do not move the turn."""
    users = [tickets.user() for _ in range(3)]
    rule = tickets.post("routing_rules", topic="billing", owners=users)
    assert (rule["owner_id"], rule["owners"]) == (None, users)
    contact_id = tickets.contact()
    owners = []
    for _ in range(7):
        owners.append(tickets.ticket(contact_id=contact_id, topic="billing")["owner_id"])
        tickets.ticket(contact_id=contact_id, topic="other")
    assert owners == [users[n % 3] for n in range(7)]
    assert tickets.get(f"routing_rules/{rule['id']}")["version"] == 1


async def test_turns_are_fair_in_a_race(org: Organisation, tickets: TicketsClient) -> None:
    """Fifty tickets at once are shared out evenly: with five users ten each, without a queue beside it."""
    users, contact_id = [tickets.user() for _ in range(5)], tickets.contact()
    tickets.post("routing_rules", topic=None, owners=users)
    body = {"contact_id": contact_id, "subject": "x", "source": "chat"}
    async with org.test.async_client() as http:
        answers = await asyncio.gather(*(http.post("/tickets/v1/tickets", json=body) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert Counter(answer.json()["owner_id"] for answer in answers) == dict.fromkeys(users, 10)


def test_a_refused_ticket_gives_its_turn_back(tickets: TicketsClient) -> None:
    """A ticket that is not created takes nobody's turn."""
    users = [tickets.user(), tickets.user()]
    tickets.post("routing_rules", topic=None, owners=users)
    body = {"contact_id": "ctc_01ARZ3NDEKTSV4RRFFQ69G5FAV", "subject": "x", "source": "api"}
    assert tickets.refused("POST", "tickets", body) == (422, "reference_not_found", "contact_id")
    assert [tickets.ticket()["owner_id"] for _ in range(2)] == users


def test_a_rule_has_one_owner_or_several(api: Api, tickets: TicketsClient) -> None:
    """Both, neither, a repeated, an unknown or a foreign user is refused with the field, at creation and at a change."""
    ann, bob = tickets.user(), tickets.user()
    with api.sign_up().test.client() as http:
        foreign = TicketsClient(http).user()
    rule = tickets.post("routing_rules", topic="a", owner_id=ann)
    for method, path in (("POST", "routing_rules"), ("PATCH", f"routing_rules/{rule['id']}")):
        for body, code, param in (
            ({"owner_id": ann, "owners": [bob]}, "validation_failed", "owner_id"),
            ({"owner_id": None}, "validation_failed", "owner_id"),
            ({"owners": []}, "validation_failed", "owner_id"),
            ({"owners": [ann, ann]}, "validation_failed", "owners"),
            ({"owners": [ann, foreign]}, "reference_not_found", "owners"),
            ({"owner_id": foreign}, "reference_not_found", "owner_id"),
        ):
            assert tickets.refused(method, path, body) == (422, code, param)
    changed = tickets.patch(f"routing_rules/{rule['id']}", owners=[bob, ann])
    assert (changed["owner_id"], changed["owners"], changed["version"]) == (None, [bob, ann], 2)
    back = tickets.patch(f"routing_rules/{rule['id']}", owner_id=bob)
    assert (back["owner_id"], back["owners"]) == (bob, [])
    assert [event["type"] for event in tickets.events("routing_rule.*")] == [
        "routing_rule.created", "routing_rule.updated", "routing_rule.updated",
    ]  # fmt: skip


def test_one_rule_for_each_topic(tickets: TicketsClient) -> None:
    """A second rule of a topic, or a second default route, is refused; a deleted one can be made again."""
    for topic in ("billing", None):
        rule = tickets.post("routing_rules", topic=topic, owner_id=tickets.user())
        again = tickets.refused("POST", "routing_rules", {"topic": topic, "owner_id": tickets.user()})
        assert again == (409, "routing_rule_exists", "topic")
        tickets.call("DELETE", f"/tickets/v1/routing_rules/{rule['id']}")
        assert tickets.refused("GET", f"routing_rules/{rule['id']}")[0] == 404
        tickets.post("routing_rules", topic=topic, owner_id=tickets.user())
    assert len(tickets.events("routing_rule.deleted")) == 2
