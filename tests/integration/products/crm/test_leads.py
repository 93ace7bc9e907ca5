"""Leads: one request makes lead and contact; stages are guarded; every change is told (C-01, C-02, C-09, C-10)."""

import asyncio
import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, get_args

import httpx
import pytest
from sqlalchemy import event as engine_event

from policies.lead_stages import TRANSITIONS, Stage, is_revival
from tests.api import Api, Organisation, unique_key
from tests.database import count_rows
from tests.message_engine import NotificationsClient

PHONE: Final = "+919876543210"
STAGES: Final = get_args(Stage)
WAYS: Final[dict[Stage, tuple[Stage, ...]]] = {
    "new": (),
    "contacted": ("contacted",),
    "qualified": ("qualified",),
    "lost": ("lost",),
    "dormant": ("dormant",),
    "converted": ("qualified", "converted"),
}
"""The moves that lead from a new lead to each stage."""


@pytest.fixture
def crm(http: httpx.Client) -> NotificationsClient:
    """The test workspace."""
    return NotificationsClient(http)


def lead(crm: NotificationsClient, **more: Any) -> Any:
    """Create a lead."""
    return crm.post("/crm/v1/leads", {"contact": {"name": "Priya", "phone": PHONE}, "source": "website"} | more)


def move(http: httpx.Client, id: str, to: str, **more: Any) -> httpx.Response:
    """Move a lead, through the action that leads to this stage."""
    if to == "converted":
        return http.post(f"/crm/v1/leads/{id}/convert", json={})
    reason = {"lost_reason": "price"} if to == "lost" else {}
    return http.post(f"/crm/v1/leads/{id}/move", json={"to": to, **reason, **more})


def lead_in(crm: NotificationsClient, stage: Stage) -> str:
    """Create a lead and bring it to a stage. Returns its id."""
    id = str(lead(crm)["id"])
    for to in WAYS[stage]:
        assert move(crm.http, id, to).status_code == 200
    return id


def test_the_printed_call_makes_a_lead(crm: NotificationsClient, http: httpx.Client) -> None:
    """The call of the developers' page, with a number and an item that exist, answers what the page prints (C-01, C-02)."""
    item = crm.post("/crm/v1/catalog_items", {"name": "1.5T split AC", "sku": "AC-15"})["id"]
    body = {
        "contact": {"name": "Priya Raghavan", "phone": "+919876500001"},
        "source": "website",
        "interests": [{"catalog_item_id": item, "note": "1.5T split AC"}],
    }
    answer = http.post("/crm/v1/leads", json=body, headers={"Idempotency-Key": "9f2c-...-d41a"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert re.match(r"ld_[0-9A-HJKMNP-TV-Z]{26}$", made["id"])
    assert made["contact_id"].startswith("ctc_")
    assert made["stage"] == "new"
    assert answer.headers["location"] == f"/crm/v1/leads/{made['id']}"
    (interest,) = made["interests"]
    assert (interest["catalog_item_id"], interest["note"]) == (item, "1.5T split AC")
    assert crm.get(f"/crm/v1/leads/{made['id']}") == made
    assert crm.get(f"/crm/v1/contacts/{made['contact_id']}")["name"] == "Priya Raghavan"
    assert [event["type"] for event in crm.events("contact.created", "lead.created")] == [
        "contact.created",
        "lead.created",
    ]


def test_a_known_person_is_matched_and_left_as_is(crm: NotificationsClient) -> None:
    """The contact is found by its normalised phone, then its e-mail address; what it holds stays (C-01)."""
    first = lead(crm, contact={"name": "Priya", "phone": "098765 43210", "email": "P@Example.com"})
    by_phone = lead(crm, contact={"name": "Other", "phone": "+91 98765 43210"})
    by_email = lead(crm, contact={"name": "Other", "email": "p@example.com"})
    by_id = crm.post("/crm/v1/leads", {"contact_id": first["contact_id"], "source": "website"})
    assert {one["contact_id"] for one in (by_phone, by_email, by_id)} == {first["contact_id"]}
    assert crm.get(f"/crm/v1/contacts/{first['contact_id']}")["name"] == "Priya"


def test_of_ten_at_once_each_makes_a_lead_and_one_a_contact(org: Organisation, api: Api) -> None:
    """Ten concurrent creates with one phone make ten leads of one contact (C-01)."""

    def create(_: int) -> httpx.Response:
        with org.test.client() as client:
            return client.post(
                "/crm/v1/leads", json={"contact": {"name": "Priya", "phone": PHONE}, "source": "website"}
            )

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(create, range(10)))
    assert [answer.status_code for answer in answers] == [201] * 10
    assert len({answer.json()["contact_id"] for answer in answers}) == 1
    assert asyncio.run(count_rows(api, "contacts", org.test)) == 1


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"contact": None}, "validation_failed", None),
        ({"contact_id": "ctc_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "validation_failed", None),
        ({"contact": {"name": "Priya"}}, "validation_failed", "contact"),
        ({"contact": None, "contact_id": "ctc_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "reference_not_found", "contact_id"),
        ({"contact": None, "contact_id": "nobody"}, "reference_not_found", "contact_id"),
        ({"owner_id": "usr_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "reference_not_found", "owner_id"),
        ({"door": "agent_finalize"}, "validation_failed", "door"),
        ({"stage": "qualified"}, "unknown_field", "stage"),
        ({"source": ""}, "validation_failed", "source"),
    ],
)
def test_a_lead_that_cannot_be_is_refused(
    crm: NotificationsClient, http: httpx.Client, change: Any, code: str, param: str | None
) -> None:
    """422 names the field; nothing is written."""
    body = {"contact": {"name": "Priya", "phone": PHONE}, "source": "website"} | change
    answer = http.post("/crm/v1/leads", json={name: value for name, value in body.items() if value is not None})
    assert answer.status_code == 422, answer.text
    if code == "reference_not_found":
        assert answer.json()["code"] == code
    if param is not None:
        assert answer.json()["param"] == param
    assert crm.get("/crm/v1/leads")["data"] == []
    assert crm.get("/crm/v1/contacts")["data"] == []


def test_unknown_and_foreign_items_are_refused_alike(crm: NotificationsClient, org: Organisation) -> None:
    """An interest in an item that is not there is 422 `reference_not_found`, which names its place (C-02)."""
    own = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]
    with org.live.client() as live:
        foreign = live.post("/crm/v1/catalog_items", json={"name": "AC"}).json()["id"]
    answers = []
    for other in (foreign, "itm_01J9XAAAAAAAAAAAAAAAAAAAAA", "itm_01J9X..."):
        interests = [{"catalog_item_id": own}, {"catalog_item_id": other}]
        body = {"contact": {"name": "Priya", "phone": PHONE}, "source": "website", "interests": interests}
        answer = crm.http.post("/crm/v1/leads", json=body)
        assert answer.status_code == 422
        answers.append({name: value for name, value in answer.json().items() if name != "request_id"})
    assert answers[0] == answers[1] == answers[2]
    assert (answers[0]["code"], answers[0]["param"]) == ("reference_not_found", "interests.1.catalog_item_id")


@pytest.mark.parametrize("door", ["api", "manual", "form"])
def test_each_door_is_told(crm: NotificationsClient, door: str) -> None:
    """`lead.created` has source and door, from whatever door the lead came (C-09)."""
    made = lead(crm, door=door, source="spring campaign")
    (told,) = crm.events("lead.created")
    assert told["data"] == made
    assert (told["data"]["source"], told["data"]["door"]) == ("spring campaign", door)
    assert told["sequence"] == 1


@pytest.mark.parametrize(("stage", "to"), list(itertools.product(STAGES, STAGES)))
def test_every_move_is_guarded(crm: NotificationsClient, http: httpx.Client, stage: Stage, to: Stage) -> None:
    """Of all 36 pairs exactly those of the table are moves; others are 409 with what is allowed, and change nothing (C-10)."""
    id = lead_in(crm, stage)
    before = crm.get(f"/crm/v1/leads/{id}")
    told = len(crm.events("lead.stage_changed"))
    answer = move(http, id, to)
    if to in TRANSITIONS[stage]:
        assert answer.status_code == 200, answer.text
        assert (answer.json()["stage"], answer.json()["version"]) == (to, before["version"] + 1)
        event = crm.events("lead.stage_changed")[-1]
        data = event["data"]
        assert (data["from"], data["to"], data["lead_id"], data["revival"]) == (stage, to, id, is_revival(stage, to))
        assert (data["actor"], data["actor"]["type"]) == (event["actor"], "api_key")
        assert event["sequence"] == answer.json()["version"]
        assert answer.json()["lost_reason"] == ("price" if to == "lost" else None)
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
        assert answer.json()["allowed"] == sorted(TRANSITIONS[stage])
        assert crm.get(f"/crm/v1/leads/{id}") == before
        assert len(crm.events("lead.stage_changed")) == told


def test_only_convert_converts(crm: NotificationsClient, http: httpx.Client) -> None:
    """`/move` to `converted` is 409, also from where `/convert` would do it (wire.md, CRM)."""
    id = lead_in(crm, "qualified")
    answer = http.post(f"/crm/v1/leads/{id}/move", json={"to": "converted"})
    assert (answer.status_code, answer.json()["allowed"]) == (409, ["dormant", "lost"])


@pytest.mark.parametrize("body", [{"to": "lost"}, {"to": "contacted", "lost_reason": "price"}, {"to": "asleep"}, {}])
def test_a_move_that_says_too_little_or_too_much_is_refused(
    crm: NotificationsClient, http: httpx.Client, body: Any
) -> None:
    """A loss needs its reason, nothing else has one, and a stage is one of the table: else 422."""
    answer = http.post(f"/crm/v1/leads/{lead(crm)['id']}/move", json=body)
    assert answer.status_code == 422
    assert answer.json()["param"] == ("to" if body.get("to") in (None, "asleep") else "lost_reason")


@pytest.mark.parametrize("targets", [("contacted",), ("contacted", "qualified", "lost", "dormant")])
def test_of_concurrent_moves_each_starts_where_the_last_ended(org: Organisation, targets: tuple[str, ...]) -> None:
    """Of concurrent moves to one stage one wins; to several, the events make one chain without a gap or a fork (C-10)."""
    with org.test.client() as client:
        crm = NotificationsClient(client)
        id = lead(crm)["id"]

        def one(n: int) -> httpx.Response:
            with org.test.client() as mine:
                return move(mine, id, targets[n % len(targets)])

        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(one, range(20)))
        won = [answer for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} == {200, 409}
        told = sorted(crm.events("lead.stage_changed"), key=lambda event: int(event["sequence"]))
        assert [event["sequence"] for event in told] == list(range(2, len(won) + 2))
        chain = ["new", *(event["data"]["to"] for event in told)]
        assert [event["data"]["from"] for event in told] == chain[:-1]
        assert len(won) == 1 or len(targets) > 1
        assert crm.get(f"/crm/v1/leads/{id}")["stage"] == chain[-1]


def test_conversion_may_open_a_deal(crm: NotificationsClient, http: httpx.Client) -> None:
    """`/convert` with a deal writes both at once: the lead has the deal's id, the deal the lead's contact and owner."""
    owner = crm.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    id = lead(crm, owner_id=owner)["id"]
    deal = {"value_minor": 4_990_000, "currency": "INR", "stage": "proposal"}
    early = http.post(f"/crm/v1/leads/{id}/convert", json={"deal": deal})
    assert (early.status_code, early.json()["code"]) == (409, "illegal_transition")
    assert crm.get("/crm/v1/deals")["data"] == []
    assert move(http, id, "qualified").status_code == 200
    converted = crm.post(f"/crm/v1/leads/{id}/convert", {"deal": deal}, status=200)
    made = crm.get(f"/crm/v1/deals/{converted['deal_id']}")
    assert converted["stage"] == "converted"
    assert (made["lead_id"], made["contact_id"], made["owner_id"]) == (id, converted["contact_id"], owner)
    assert (made["name"], made["stage"], made["value_minor"], made["status"]) == (
        "Priya",
        "proposal",
        4_990_000,
        "open",
    )
    names = {event["type"] for event in crm.events("deal.*", "lead.stage_changed")}
    assert names == {"deal.created", "lead.stage_changed"}
    bad = http.post(f"/crm/v1/leads/{lead_in(crm, 'qualified')}/convert", json={"deal": deal | {"currency": "XYZ"}})
    assert (bad.status_code, bad.json()["param"]) == (422, "deal.currency")


def test_concurrent_conversions_open_one_deal(org: Organisation) -> None:
    """Of concurrent conversions one wins, and only its deal is there (C-10)."""
    with org.test.client() as client:
        crm = NotificationsClient(client)
        id = lead_in(crm, "qualified")

        def one(n: int) -> int:
            deal = {"value_minor": n, "currency": "INR"}
            with org.test.client() as mine:
                return mine.post(f"/crm/v1/leads/{id}/convert", json={"deal": deal}).status_code

        with ThreadPoolExecutor(10) as pool:
            assert sorted(pool.map(one, range(10))) == [200] + [409] * 9
        (deal,) = crm.get("/crm/v1/deals")["data"]
        assert crm.get(f"/crm/v1/leads/{id}")["deal_id"] == deal["id"]
        assert [event["data"]["id"] for event in crm.events("deal.created")] == [deal["id"]]


def test_a_list_takes_the_same_queries_for_any_number(crm: NotificationsClient, api: Api) -> None:
    """A page of leads with their interests takes as many statements for ten leads as for one (P-27)."""
    item = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]
    engine = api.app.state.platform.engine.sync_engine
    counts = []
    for leads in (1, 9):
        for _ in range(leads):
            lead(crm, interests=[{"catalog_item_id": item}] * 3)
        seen: list[str] = []

        def record(_: Any, __: Any, statement: str, *___: Any, seen: list[str] = seen) -> None:
            seen.append(statement)

        engine_event.listen(engine, "before_cursor_execute", record)
        try:
            assert all(len(one["interests"]) == 3 for one in crm.get("/crm/v1/leads")["data"])
        finally:
            engine_event.remove(engine, "before_cursor_execute", record)
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_a_change_is_told_field_by_field(crm: NotificationsClient, http: httpx.Client) -> None:
    """PATCH tells what changed, and nothing if nothing did; the stage has actions of its own; If-Match is kept."""
    owner = crm.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    made = lead(crm)
    path = f"/crm/v1/leads/{made['id']}"
    for _ in range(2):
        crm.post(path, {"owner_id": owner, "source": "referral"}, status=200, method="PATCH")
    (told,) = crm.events("lead.updated")
    assert told["data"]["changes"] == [
        {"field": "source", "old": "website", "new": "referral"},
        {"field": "owner_id", "old": None, "new": owner},
    ]
    assert http.patch(path, json={"stage": "lost"}).status_code == 422
    stale = http.patch(path, json={"source": "x"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "version_conflict")


def test_interests_are_told_as_a_change_of_the_lead(crm: NotificationsClient, http: httpx.Client) -> None:
    """An interest that is added shows on the lead, and `lead.updated` has the interests before and after (C-02)."""
    item = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]
    id = lead(crm)["id"]
    first = crm.post("/crm/v1/interests", {"lead_id": id, "catalog_item_id": item, "note": "two of them"})
    second = crm.post("/crm/v1/interests", {"lead_id": id, "catalog_item_id": item})
    shown = crm.get(f"/crm/v1/leads/{id}")
    assert [one["id"] for one in shown["interests"]] == [first["id"], second["id"]]
    assert shown["version"] == 3
    changes = [event["data"]["changes"] for event in crm.events("lead.updated")]
    assert [len(change[0]["old"]) for change in changes] == [0, 1]
    assert changes[1][0]["new"] == [first["id"], second["id"]]
    assert crm.get(f"/crm/v1/interests?lead_id={id}")["data"] == [second, first]
    for body, param in (
        ({"lead_id": id, "catalog_item_id": "itm_01J9XAAAAAAAAAAAAAAAAAAAAA"}, "catalog_item_id"),
        ({"lead_id": "ld_01J9XAAAAAAAAAAAAAAAAAAAAA", "catalog_item_id": item}, "lead_id"),
    ):
        answer = http.post("/crm/v1/interests", json=body)
        assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (
            422,
            "reference_not_found",
            param,
        )


def test_concurrent_interests_lose_none(org: Organisation) -> None:
    """Interests that are added at once are all there, each told once, up to the limit of a lead."""
    with org.test.client() as client:
        crm = NotificationsClient(client)
        item = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]
        id = lead(crm, interests=[{"catalog_item_id": item}] * 195)["id"]

        def add(_: int) -> int:
            with org.test.client() as mine:
                return mine.post("/crm/v1/interests", json={"lead_id": id, "catalog_item_id": item}).status_code

        with ThreadPoolExecutor(10) as pool:
            assert sorted(pool.map(add, range(10))) == [201] * 5 + [409] * 5
        assert len(crm.get(f"/crm/v1/leads/{id}")["interests"]) == 200
        assert sorted(event["sequence"] for event in crm.events("lead.updated")) == [2, 3, 4, 5, 6]


def test_leads_are_found(crm: NotificationsClient) -> None:
    """Leads are searched by contact, stage, owner, phone and e-mail address, alone and together."""
    owner = crm.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    mine = lead(crm, owner_id=owner)
    lost = lead_in(crm, "lost")
    other = lead(crm, contact={"name": "Ravi", "email": "ravi@example.com"})

    def ids(query: str) -> list[str]:
        return [one["id"] for one in crm.get(f"/crm/v1/leads?{query}")["data"]]

    assert ids("") == [other["id"], lost, mine["id"]]
    assert ids("phone=98765 43210") == [lost, mine["id"]]
    assert ids("email=RAVI@example.com") == [other["id"]]
    assert ids("stage=lost") == [lost]
    assert ids(f"owner_id={owner}") == [mine["id"]]
    assert ids(f"contact_id={mine['contact_id']}&stage=new") == [mine["id"]]
    assert ids(f"phone=98765 43210&contact_id={other['contact_id']}") == []
    assert ids("phone=98765 43210&email=ravi@example.com") == []
    assert ids("phone=98765 43299") == []
    first = crm.get("/crm/v1/leads?limit=1&stage=new")
    rest = crm.get(f"/crm/v1/leads?limit=1&stage=new&cursor={first['next_cursor']}")
    assert [first["data"][0]["id"], rest["data"][0]["id"]] == [other["id"], mine["id"]]
    elsewhere = crm.http.get(f"/crm/v1/leads?limit=1&stage=lost&cursor={first['next_cursor']}")
    assert elsewhere.json()["code"] == "invalid_cursor"


def test_a_lead_tells_its_story_twice(crm: NotificationsClient, http: httpx.Client) -> None:
    """What happens to a lead is on its own timeline and on its contact's, with actor and request; neither can be edited (C-12)."""
    item = crm.post("/crm/v1/catalog_items", {"name": "AC"})["id"]
    made = lead(crm)
    move(http, made["id"], "lost")
    move(http, made["id"], "contacted")
    crm.post("/crm/v1/interests", {"lead_id": made["id"], "catalog_item_id": item})
    own = crm.get(f"/crm/v1/leads/{made['id']}/timeline")["data"]
    assert [entry["kind"] for entry in own] == [
        "lead.created",
        "lead.stage_changed",
        "lead.stage_changed",
        "lead.updated",
    ]
    assert own[1]["changes"] == [{"field": "stage", "old": "new", "new": "lost"}]
    assert own[1]["detail"]["lost_reason"] == "price"
    assert own[2]["detail"]["revival"] is True
    assert all(entry["actor"]["type"] == "api_key" and entry["request_id"].startswith("req_") for entry in own)
    of_contact = crm.get(f"/crm/v1/contacts/{made['contact_id']}/timeline")["data"]
    assert [entry["kind"] for entry in of_contact] == ["contact.created", *(entry["kind"] for entry in own)]
    for method in ("PATCH", "DELETE", "POST", "PUT"):
        assert http.request(method, f"/crm/v1/leads/{made['id']}/timeline", json={}).status_code == 405


def test_others_see_nothing(crm: NotificationsClient, org: Organisation, api: Api) -> None:
    """A foreign lead is not there, and its contact is no reference (P-15, W-01)."""
    made = lead(crm)
    for other in (org.live, api.sign_up().test):
        with other.client() as http:
            path = f"/crm/v1/leads/{made['id']}"
            assert http.get(path).status_code == 404
            assert http.get(f"{path}/timeline").status_code == 404
            assert http.patch(path, json={"source": "x"}).status_code == 404
            assert move(http, made["id"], "contacted").status_code == 404
            assert move(http, made["id"], "converted").status_code == 404
            body = {"contact_id": made["contact_id"], "source": "website"}
            assert http.post("/crm/v1/leads", json=body).json()["code"] == "reference_not_found"
            assert http.get(f"/crm/v1/leads?contact_id={made['contact_id']}").json()["data"] == []


def test_a_repeated_key_makes_one_lead(crm: NotificationsClient, http: httpx.Client) -> None:
    """A retry with the same key answers the same lead (P-05)."""
    body = {"contact": {"name": "Priya", "phone": PHONE}, "source": "website"}
    headers = {"Idempotency-Key": unique_key()}
    answers = [http.post("/crm/v1/leads", json=body, headers=headers).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(crm.get("/crm/v1/leads")["data"]) == 1
