"""Deals: they move while open, and their two ends are final (C-14)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api import Api, Organisation
from tests.message_engine import NotificationsClient

DEAL = {"value_minor": 4_990_000, "currency": "INR", "stage": "proposal"}


@pytest.fixture
def crm(http: httpx.Client) -> NotificationsClient:
    """The test workspace."""
    return NotificationsClient(http)


def deal(crm: NotificationsClient, **more: Any) -> Any:
    """Open a deal of a new contact."""
    return crm.post("/crm/v1/deals", {"contact_id": crm.contact()} | DEAL | more)


def close(http: httpx.Client, id: str, end: str) -> httpx.Response:
    """Win or lose a deal."""
    return http.post(f"/crm/v1/deals/{id}/{end}", json={"lost_reason": "price"} if end == "lose" else {})


def test_a_won_deal_tells_all_that_a_project_needs(crm: NotificationsClient, http: httpx.Client) -> None:
    """`deal.won` has stage, value, currency, owner, contact and a name: enough to open a project from (C-14, W-11)."""
    owner = crm.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    made = deal(crm, owner_id=owner, name="Fit-out of the office")
    won = close(http, made["id"], "win").json()
    (told,) = crm.events("deal.won")
    assert told["data"] == won
    wanted = {"name": "Fit-out of the office", "owner_id": owner, "contact_id": made["contact_id"], "status": "won"}
    assert {name: won[name] for name in (*DEAL, *wanted)} == DEAL | wanted
    assert won["closed_at"] is not None
    assert told["sequence"] == 2
    assert crm.events("deal.created")[0]["data"] == made


def test_a_consumer_opens_a_project_from_the_event_alone(crm: NotificationsClient, http: httpx.Client) -> None:
    """A receiver of `deal.won` opens the project with what the body has, and asks for nothing more (W-11)."""
    owner = crm.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    close(http, deal(crm, owner_id=owner, name="Fit-out of the office")["id"], "win")
    (told,) = (event["data"] for event in crm.events("deal.won"))
    project = crm.post(
        "/works/v1/projects", {"deal_id": told["id"], **{field: told[field] for field in ("name", "owner_id")}}
    )
    opened = {"origin": "won_deal", "deal_id": told["id"], "contact_id": told["contact_id"], "owner_id": owner}
    assert {name: project[name] for name in opened} == opened


def test_a_lost_deal_tells_why(crm: NotificationsClient, http: httpx.Client) -> None:
    """A loss needs its reason, which `deal.lost` has (C-14)."""
    id = deal(crm)["id"]
    assert http.post(f"/crm/v1/deals/{id}/lose", json={}).json()["param"] == "lost_reason"
    lost = close(http, id, "lose").json()
    assert (lost["status"], lost["lost_reason"]) == ("lost", "price")
    assert [event["data"] for event in crm.events("deal.lost")] == [lost]


@pytest.mark.parametrize("end", ["win", "lose"])
@pytest.mark.parametrize("then", ["win", "lose", "change"])
def test_both_ends_are_final(crm: NotificationsClient, http: httpx.Client, end: str, then: str) -> None:
    """After the end neither the other end, nor the same again, nor a change of terms: 409, and nothing is told."""
    id = deal(crm)["id"]
    ended = close(http, id, end).json()
    path = f"/crm/v1/deals/{id}"
    answer = http.patch(path, json={"stage": "x"}) if then == "change" else close(http, id, then)
    assert (answer.status_code, answer.json()["code"], answer.json()["allowed"]) == (409, "illegal_transition", [])
    assert crm.get(path) == ended
    assert len(crm.events("deal.won", "deal.lost", "deal.updated")) == 1
    noted = crm.post(path, {"metadata": {"invoice": "17"}}, status=200, method="PATCH")
    assert noted["metadata"] == {"invoice": "17"}


def test_an_open_deal_moves_through_stages_of_its_own(crm: NotificationsClient, http: httpx.Client) -> None:
    """PATCH moves stage, value and owner of an open deal, told field by field; status is no field of it."""
    made = deal(crm)
    path = f"/crm/v1/deals/{made['id']}"
    for _ in range(2):
        crm.post(path, {"stage": "negotiation", "value_minor": 5}, status=200, method="PATCH")
    (told,) = crm.events("deal.updated")
    assert told["data"]["changes"] == [
        {"field": "stage", "old": "proposal", "new": "negotiation"},
        {"field": "value_minor", "old": 4_990_000, "new": 5},
    ]
    for body in (
        {"status": "won"},
        {"lost_reason": "x"},
        {"value_minor": -1},
        {"value_minor": 1.5},
        {"currency": "inr"},
    ):
        assert http.patch(path, json=body).status_code == 422
    stale = http.patch(path, json={"stage": "x"}, headers={"If-Match": '"1"'})
    assert stale.json()["code"] == "version_conflict"
    kinds = [entry["kind"] for entry in crm.get(f"{path}/timeline")["data"]]
    assert kinds == ["deal.created", "deal.updated"]
    of_contact = crm.get(f"/crm/v1/contacts/{made['contact_id']}/timeline")["data"]
    assert [entry["kind"] for entry in of_contact][1:] == kinds


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"value_minor": None}, "value_minor"),
        ({"value_minor": "100"}, "value_minor"),
        ({"value_minor": 10**16}, "value_minor"),
        ({"currency": None}, "currency"),
        ({"currency": "XXX"}, "currency"),
        ({"currency": "BTC"}, "currency"),
        ({"contact_id": None}, None),
        ({"contact_id": "ctc_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "contact_id"),
        ({"owner_id": "usr_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "owner_id"),
        ({"lead_id": "ld_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "lead_id"),
        ({"status": "won"}, "status"),
    ],
)
def test_a_deal_that_cannot_be_is_refused(
    crm: NotificationsClient, http: httpx.Client, change: Any, param: Any
) -> None:
    """Money is whole minor units of a currency in use; references lead somewhere: else 422 with the field."""
    body = {"contact_id": crm.contact()} | DEAL | change
    answer = http.post("/crm/v1/deals", json={name: value for name, value in body.items() if value is not None})
    assert answer.status_code == 422, answer.text
    assert param is None or answer.json()["param"] == param


def test_a_deal_of_a_lead_is_of_its_contact(crm: NotificationsClient, http: httpx.Client) -> None:
    """A deal that names a lead has the lead's contact, and no other."""
    owner = crm.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    lead = crm.post("/crm/v1/leads", {"contact_id": crm.contact(), "source": "x", "owner_id": owner})
    made = crm.post("/crm/v1/deals", DEAL | {"lead_id": lead["id"]})
    assert (made["contact_id"], made["owner_id"], made["name"]) == (lead["contact_id"], owner, "Meera")
    other = http.post("/crm/v1/deals", json=DEAL | {"lead_id": lead["id"], "contact_id": crm.contact()})
    assert (other.status_code, other.json()["param"]) == (422, "contact_id")
    assert crm.get(f"/crm/v1/deals?lead_id={lead['id']}")["data"] == [made]


def test_of_winners_and_losers_at_once_one_decides(org: Organisation) -> None:
    """Of concurrent ends of one deal exactly one is committed and told."""
    with org.test.client() as client:
        crm = NotificationsClient(client)
        id = deal(crm)["id"]

        def one(n: int) -> int:
            with org.test.client() as mine:
                return close(mine, id, ("win", "lose")[n % 2]).status_code

        with ThreadPoolExecutor(20) as pool:
            assert sorted(pool.map(one, range(50))) == [200] + [409] * 49
        assert len(crm.events("deal.won", "deal.lost")) == 1


def test_deals_are_found(crm: NotificationsClient, http: httpx.Client) -> None:
    """Deals are listed by contact, owner, status and stage, alone and together."""
    owner = crm.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    mine = deal(crm, owner_id=owner)
    won = deal(crm)
    close(http, won["id"], "win")
    other = deal(crm, stage="new")

    def ids(query: str) -> list[str]:
        return [one["id"] for one in crm.get(f"/crm/v1/deals?{query}")["data"]]

    assert ids("") == [other["id"], won["id"], mine["id"]]
    assert ids("status=won") == [won["id"]]
    assert ids("status=open&stage=proposal") == [mine["id"]]
    assert ids(f"owner_id={owner}") == [mine["id"]]
    assert ids(f"contact_id={other['contact_id']}") == [other["id"]]
    assert ids("stage=nowhere") == []
    assert http.get("/crm/v1/deals?status=x").status_code == 422


def test_others_see_nothing(crm: NotificationsClient, org: Organisation, api: Api) -> None:
    """A foreign deal is not there (P-15)."""
    id = deal(crm)["id"]
    for other in (org.live, api.sign_up().test):
        with other.client() as http:
            assert http.get(f"/crm/v1/deals/{id}").status_code == 404
            assert http.get(f"/crm/v1/deals/{id}/timeline").status_code == 404
            assert http.patch(f"/crm/v1/deals/{id}", json={"stage": "x"}).status_code == 404
            assert close(http, id, "win").status_code == 404
            assert close(http, id, "lose").status_code == 404


def test_a_sku_is_used_once(crm: NotificationsClient, http: httpx.Client) -> None:
    """A second item with the sku is 409 with the id of the first; items without one are as many as you like."""
    body = {"name": "AC", "sku": "AC-15", "price": {"amount_minor": 3_999_900, "currency": "INR"}}
    made = crm.post("/crm/v1/catalog_items", body)
    assert (made["sku"], made["price"]) == (body["sku"], body["price"])
    again = http.post("/crm/v1/catalog_items", json=body)
    assert (again.status_code, again.json()["code"], again.json()["existing_id"]) == (
        409,
        "catalog_item_exists",
        made["id"],
    )
    assert crm.get("/crm/v1/catalog_items?sku=AC-15")["data"] == [made]
    for _ in range(2):
        assert crm.post("/crm/v1/catalog_items", {"name": "Fan"})["price"] is None
    assert len(crm.events("catalog_item.created")) == 3
