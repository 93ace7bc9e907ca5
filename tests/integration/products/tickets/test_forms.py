"""Public forms as a resource: their address, their states, and the default route that they need (T-13, T-14)."""

import asyncio
from typing import Any

import httpx
import pytest

from policies.brand_colors import DEFAULT_COLOR
from products.tickets.forms import find_form
from products.tickets.tickets import create_ticket, open_tickets
from spine.kernel.database import open_pool
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork
from tests.api import Api, Organisation, unique_key
from tests.database import owner_connection
from tests.job_engine import job_runner
from tests.tickets_client import TicketsClient


@pytest.fixture
def tickets(http: httpx.Client) -> TicketsClient:
    """The test workspace."""
    return TicketsClient(http)


def form_body(**fields: Any) -> dict[str, Any]:
    """Return the body of a new form."""
    brand = {"name": "Acme", "color": "#112233", "logo_url": "https://acme.example/logo.png"}
    return {
        "slug": f"help-{unique_key()}", "title": "Help", "topics": ["billing", "repair"], "brand": brand,
        "allowed_origins": ["https://Acme.example/", "http://localhost:3000"], **fields,
    }  # fmt: skip


def test_a_form_answers_its_address(tickets: TicketsClient) -> None:
    """A created form answers its public `url`; so do the list, the read form and the event."""
    tickets.default_route()
    body = form_body()
    form = tickets.post("forms", **body)
    assert form["id"].startswith("frm_")
    assert form["url"].endswith(f"/f/{body['slug']}")
    assert (form["status"], form["brand"], form["topics"]) == ("active", body["brand"], ["billing", "repair"])
    assert form["allowed_origins"] == ["https://acme.example", "http://localhost:3000"]
    assert tickets.get(f"forms/{form['id']}") == form == tickets.get("forms")["data"][0]
    (event,) = tickets.events("form.created")
    assert event["data"] == form


def test_a_slug_is_taken_once_in_all_workspaces(api: Api, tickets: TicketsClient) -> None:
    """A slug that any workspace has is 409 `slug_taken`, without a word of whose it is (P-15)."""
    tickets.default_route()
    body = form_body()
    tickets.post("forms", **body)
    assert tickets.refused("POST", "forms", body) == (409, "slug_taken", "slug")
    with api.sign_up().test.client() as http:
        other = TicketsClient(http)
        other.default_route()
        answer = http.post("/tickets/v1/forms", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "slug_taken")
        assert "existing_id" not in answer.json()


def test_a_form_needs_a_default_route(tickets: TicketsClient) -> None:
    """Without one a form is neither created nor enabled; while one is active the route is neither deleted nor moved (T-14)."""
    tickets.post("routing_rules", topic="billing", owner_id=tickets.user())
    assert tickets.refused("POST", "forms", form_body())[:2] == (409, "default_route_required")
    route = f"routing_rules/{tickets.default_route()['id']}"
    form = tickets.post("forms", **form_body())
    assert tickets.refused("DELETE", route)[:2] == (409, "default_route_in_use")
    assert tickets.refused("PATCH", route, {"topic": "x"})[:2] == (409, "default_route_in_use")
    tickets.patch(route, owner_id=tickets.user())
    tickets.post(f"forms/{form['id']}/disable")
    tickets.call("DELETE", f"/tickets/v1/{route}")
    assert tickets.refused("POST", f"forms/{form['id']}/enable")[:2] == (409, "default_route_required")
    tickets.default_route()
    assert tickets.post(f"forms/{form['id']}/enable")["status"] == "active"


def test_the_states_of_a_form(tickets: TicketsClient) -> None:
    """active↔disabled through the actions alone; the same state is 409 with `allowed`, and each move one event."""
    tickets.default_route()
    form = tickets.post("forms", **form_body())
    path = f"forms/{form['id']}"
    assert tickets.refused("POST", f"{path}/enable")[:2] == (409, "illegal_transition")
    assert tickets.refused("PATCH", path, {"status": "disabled"}) == (422, "validation_failed", "status")
    assert tickets.post(f"{path}/disable")["status"] == "disabled"
    again = tickets.http.post(f"/tickets/v1/{path}/disable").json()
    assert (again["code"], again["allowed"]) == ("illegal_transition", ["active"])
    assert [row["id"] for row in tickets.get("forms", status="disabled")["data"]] == [form["id"]]
    assert tickets.get("forms", status="active")["data"] == []
    tickets.post(f"{path}/enable")
    assert len(tickets.events("form.updated")) == 2


def test_a_form_is_changed(tickets: TicketsClient) -> None:
    """Title, topics, brand and origins change; the slug stays, because links to it are out in the world."""
    tickets.default_route()
    path = f"forms/{tickets.post('forms', **form_body(brand=None))['id']}"
    assert tickets.get(path)["brand"] == {"name": "Help", "color": DEFAULT_COLOR, "logo_url": None}
    changed = tickets.patch(
        path, title="Support", brand={"name": "B", "color": "#000000"}, topics=[], allowed_origins=[]
    )
    assert (changed["title"], changed["brand"], changed["topics"]) == (
        "Support", {"name": "B", "color": "#000000", "logo_url": None}, [],
    )  # fmt: skip
    assert tickets.refused("PATCH", path, {"slug": "other"}) == (422, "validation_failed", "slug")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"slug": "Help Me"}, "slug"),
        ({"slug": "../x"}, "slug"),
        ({"slug": ""}, "slug"),
        ({"brand": {"name": "A", "color": "red"}}, "brand.color"),
        ({"brand": {"name": "A", "color": "#112233", "logo_url": "javascript:alert(1)"}}, "brand.logo_url"),
        ({"brand": {"name": "A", "color": "#112233", "logo_url": 'https://x/"onload='}}, "brand.logo_url"),
        ({"allowed_origins": ["acme.example"]}, "allowed_origins.0"),
        ({"allowed_origins": ["https://acme.example/path"]}, "allowed_origins.0"),
        ({"allowed_origins": ["https://acme.example; script-src *"]}, "allowed_origins.0"),
        ({"topics": ["x" * 65]}, "topics.0"),
        ({"topics": ["x"] * 51}, "topics"),
    ],
)
def test_a_wrong_field_is_named(tickets: TicketsClient, fields: dict[str, Any], param: str) -> None:
    """What could not stand in an address, a style sheet or a header is refused with its field."""
    tickets.default_route()
    assert tickets.refused("POST", "forms", form_body(**fields)) == (422, "validation_failed", param)


async def test_a_form_and_its_route_race(org: Organisation, tickets: TicketsClient) -> None:
    """A form created while its route is deleted: one of both is refused, so no active form is ever without a route (T-14)."""
    async with org.test.async_client() as http:
        for _ in range(10):
            route = tickets.default_route()
            created, deleted = await asyncio.gather(
                http.post("/tickets/v1/forms", json=form_body()),
                http.delete(f"/tickets/v1/routing_rules/{route['id']}"),
            )
            assert (created.status_code, deleted.status_code) in {(201, 409), (409, 200)}
            if created.status_code == 201:
                tickets.post(f"forms/{created.json()['id']}/disable")
                tickets.call("DELETE", f"/tickets/v1/routing_rules/{route['id']}")


async def test_an_active_form_is_found_by_its_slug(api: Api, org: Organisation, tickets: TicketsClient) -> None:
    """`find_form` needs no workspace: it finds the form and whose it is; a disabled or unknown one is None."""
    tickets.default_route()
    form = tickets.post("forms", **form_body())
    async with await open_pool(api.database_url, "spine_app", "test", 2) as own:
        found = await find_form(own, form["slug"])
        assert found is not None
        assert (found.id, found.workspace_id, found.env) == (form["id"], org.test.workspace_id, "test")
        assert (list(found.topics), found.brand.model_dump()) == (form["topics"], form["brand"])
        assert await find_form(own, "nothing-here") is None
        tickets.post(f"forms/{form['id']}/disable")
        assert await find_form(own, form["slug"]) is None


async def test_a_submission_is_a_ticket_with_an_owner(api: Api, org: Organisation, tickets: TicketsClient) -> None:
    """`create_ticket` for a form routes by topic, else to the default; with an unknown topic the owner is not null (T-14)."""
    ann = tickets.user()
    default = tickets.default_route()
    tickets.post("routing_rules", topic="billing", owner_id=ann)
    form, contact_id = tickets.post("forms", **form_body()), tickets.contact()
    made: list[Any] = []

    async def submit(unit: UnitOfWork, job: Job) -> None:
        fields = {"contact_id": contact_id, "subject": "Help", "source": "form", "form_id": form["id"], "body": "Hi"}
        made.extend([await create_ticket(unit, topic=topic, **fields) for topic in ("billing", "unknown")])
        made.append(await open_tickets(unit, contact_id, 1))

    async with owner_connection(api) as owner:
        await owner.execute(
            "INSERT INTO spine.jobs (workspace_id, kind, subject_id, due_at) VALUES ($1, 'test.submit', 'x', now())",
            org.test.workspace_id,
        )
    async with job_runner(api, {"test.submit": submit}) as runner:
        await runner.run_due()
    first, second, newest = made
    assert (first.owner_id, second.owner_id) == (ann, default["owner_id"])
    assert (second.status, second.source, second.form_id, second.queue_position) == ("new", "form", form["id"], None)
    assert [ticket.id for ticket in newest] == [second.id]
    events = tickets.events("ticket.*", of=second.id)
    assert [event["type"] for event in events] == ["ticket.created", "ticket.assigned"]
