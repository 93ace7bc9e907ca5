"""Create one resource of each kind in a workspace, for paths, filters and references."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx

from spine.kernel import ids
from tests.api import Account


@dataclass(frozen=True, slots=True)
class OneOfEach:
    """An id of each kind, by the name of its collection in paths, or by its path where two collections have one name."""

    by_collection: dict[str, str]

    def path(self, template: str) -> str:
        """Return the path of an operation with the ids of this workspace."""
        before, brace, _ = template.partition("/{")
        if not brace:
            return template
        start, end = template.index("{"), template.index("}")
        if template[start : end + 1] == "{callback_token}":
            return self.path(template[:start] + "a-token-of-nobody-at-all" + template[end + 1 :])
        name = before if before in self.by_collection else before.rpartition("/")[2]
        return self.path(template[:start] + self.by_collection[name] + template[end + 1 :])


async def _close_deliveries(database_url: str, workspace_id: str, event_id: str, endpoint_id: str) -> list[str]:
    """Insert a dead and a delivered delivery. Returns their ids."""
    made = [ids.mint("dlv"), ids.mint("dlv")]
    connection = await asyncpg.connect(database_url)
    try:
        await connection.executemany(
            "INSERT INTO spine.deliveries_closed (workspace_id, id, event_id, type, endpoint_id, state, reason, series, "
            "attempts, accepted_at, created_at, xid) "
            "VALUES ($1, $2, $3, 'order.paid', $4, $5, $6, 1, '[]', now(), now(), pg_current_xact_id())",
            [
                (workspace_id, made[0], event_id, endpoint_id, "dead", "attempts_exhausted"),
                (workspace_id, made[1], event_id, endpoint_id, "delivered", None),
            ],
        )
    finally:
        await connection.close()
    return made


def _messages(http: httpx.Client) -> dict[str, str]:
    """Create a contact, a template, a policy, a message and a quota. The provider account exists already."""

    def put(path: str, method: str = "POST", **body: object) -> str:
        answer = http.request(method, path, json=body)
        assert answer.status_code in (200, 201), answer.text
        made: str = answer.json()["id"]
        return made

    step = {"channel": "sms", "success": "delivered", "wait_s": 60}
    made = {
        "contacts": put("/crm/v1/contacts", name="Meera"),
        "templates": put("/notifications/v1/templates", slug="reminder", bodies={"sms": "Hello"}),
        "channel_policies": put("/notifications/v1/channel_policies/quick", "PUT", steps=[step], deadline_s=600),
        "messages": put("/notifications/v1/messages", to="+910000000000", template="reminder", channels=["sms"]),
    }
    put("/notifications/v1/quotas/messages", "PUT", limit=1_000_000, period="month")
    made["quotas"] = "messages"  # found by its name
    accounts = http.get("/notifications/v1/provider_accounts").json()["data"]
    made["provider_accounts"] = made["inbound"] = accounts[0]["id"]
    return made


def _calendar(http: httpx.Client, contact_id: str) -> dict[str, str]:
    """Create a resource with a slot, a service by its slug too, an appointment, a waitlist entry and a booking page."""

    def put(path: str, **body: object) -> dict[str, Any]:
        answer = http.post(f"/calendar/v1/{path}", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    word = f"s{ids.mint('svc')[4:].lower()}"
    resource_id = put("resources", name="Ravi", time_zone="Asia/Kolkata")["id"]
    day = datetime.now(UTC).replace(hour=10) + timedelta(days=3)
    slot = {
        "resource_id": resource_id,
        "starts_at": day.isoformat(),
        "ends_at": (day + timedelta(hours=1)).isoformat(),
        "capacity": 10_000,
    }
    slot_id = put("slots", slots=[slot])["data"][0]["id"]
    window = {"from": day.isoformat(), "to": (day + timedelta(days=1)).isoformat()}
    return {
        "resources": resource_id,
        "service": word,
        "services": put("services", slug=word, name="Service", duration_min=30)["id"],
        "slots": slot_id,
        "appointments": put("appointments", slot_id=slot_id, contact_id=contact_id, service=word)["id"],
        "waitlist_entries": put("waitlist_entries", service=word, contact_id=contact_id, window=window)["id"],
        "booking_pages": put("booking_pages", slug=word, brand={"name": "Acme"}, services=[word])["id"],
    }


def _works(http: httpx.Client, user_id: str) -> dict[str, str]:
    """Create a template, a project, and in it a milestone and a task of the user."""

    def post(path: str, **body: object) -> str:
        answer = http.post(f"/works/v1/{path}", json=body)
        assert answer.status_code == 201, answer.text
        made: str = answer.json()["id"]
        return made

    project_id = post("projects", name="Site fit-out", owner_id=user_id)
    return {
        "/works/v1/templates": post("templates", slug="fitout_v2", milestones=[{"name": "Design", "offset_days": 7}]),
        "projects": project_id,
        "milestones": post("milestones", project_id=project_id, name="Handover", position=1),
        "tasks": post("tasks", project_id=project_id, title="Paint", assignee_id=user_id),
        "queues": user_id,
    }


async def _draft_invoice(database_url: str, workspace_id: str, works: dict[str, str]) -> str:
    """Insert an invoice, as the consumer of `milestone.reached` does."""
    made = ids.mint("inv")
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "INSERT INTO spine.invoices (workspace_id, id, project_id, milestone_id, source_event_id, amount_minor, currency) "
            "VALUES ($1, $2, $3, $4, $5, 100000, 'INR')",
            *(workspace_id, made, works["projects"], works["milestones"], ids.mint("evt")),
        )
    finally:
        await connection.close()
    return made


def _tickets(http: httpx.Client, contact_id: str, user_id: str) -> dict[str, str]:
    """Create a ticket without an owner, with an entry and evidence; a rule beside the default route, a policy and a form."""

    def put(path: str, **body: object) -> str:
        answer = http.post(f"/tickets/v1/{path}", json=body)
        assert answer.status_code == 201 or answer.json()["code"] == "routing_rule_exists", answer.text
        made: str = answer.json().get("id", "")
        return made

    word = f"t{ids.mint('tkt')[4:].lower()}"
    ticket_id = put("tickets", contact_id=contact_id, subject="Part delayed", source="api", topic=word)
    put("routing_rules", topic=None, owner_id=user_id)  # the workspace may have one
    return {
        "tickets": ticket_id,
        "thread_entries": put(f"tickets/{ticket_id}/thread_entries", kind="note", body="Looks broken"),
        "evidence": put(f"tickets/{ticket_id}/evidence", kind="photo", ref="photos/1.jpg"),
        "routing_rules": put("routing_rules", topic=word, owner_id=user_id),
        "sla_policies": put("sla_policies", priority="high", topic=word, threshold_s=3600),
        "forms": put("forms", slug=word, title="Help"),
    }


def _crm(http: httpx.Client, contact_id: str) -> dict[str, str]:
    """Create a qualified lead with an interest, an open deal, an open session and a call, and a sequence that somebody begins."""

    def put(path: str, **body: object) -> dict[str, str]:
        answer = http.post(f"/crm/v1/{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
        made: dict[str, str] = answer.json()
        return made

    item_id = put("catalog_items", name="AC")["id"]
    lead_id = put("leads", contact_id=contact_id, source="website")["id"]
    put(f"leads/{lead_id}/move", to="qualified")
    session = put("call_sessions", phone="+910000000000", channel="voice")
    finalized = put("call_sessions", phone="+910000000000", channel="voice")["id"]
    steps = [{"delay_s": 86_400, "template": "reminder", "channels": ["sms"]}]
    sequence_id = put("sequences", name="Welcome", steps=steps)["id"]
    return {
        "catalog_items": item_id,
        "leads": lead_id,
        "interests": put("interests", lead_id=lead_id, catalog_item_id=item_id)["id"],
        "deals": put("deals", contact_id=contact_id, value_minor=100, currency="INR")["id"],
        "call_sessions": session["id"],
        "calls": put(f"call_sessions/{finalized}/finalize", lead={"source": "call"})["call_id"],
        "sequences": sequence_id,
        "enrollments": put(f"sequences/{sequence_id}/enroll", contact_id=session["contact_id"])["id"],
    }


def create_one_of_each(account: Account, database_url: str) -> OneOfEach:
    """Create one resource of each kind in the account's workspace."""
    with account.client() as http:

        def post(path: str, **body: object) -> str:
            answer: httpx.Response = http.post(path, json=body)
            assert answer.status_code in (200, 201), answer.text
            made: str = answer.json()["id"]
            return made

        endpoint_id = post("/v1/webhook_endpoints", url="http://127.0.0.1:9/", events=["order.paid"], signature="v1a")
        event_id = post("/v1/events", type="order.paid", data={"n": 1})
        made = {
            "webhook_endpoints": endpoint_id,
            "webhook-keys": endpoint_id,
            "events": event_id,
            "event_types": post("/v1/event_types", name=f"own.t{ids.mint('evt')[4:].lower()}"),
            "users": post("/v1/users", name="Ann", email=f"{ids.mint('usr')[4:].lower()}@example.com"),
            "api_keys": post("/v1/api_keys", name="second", scopes=["events:read"]),
            "replays": post("/v1/replays", filter={}),
            **_messages(http),
        }
        made |= _crm(http, made["contacts"])
        made |= _tickets(http, made["contacts"], made["users"])
        made |= _calendar(http, made["contacts"])
        works = _works(http, made["users"])
    dead, _ = asyncio.run(_close_deliveries(database_url, account.workspace_id, event_id, endpoint_id))
    made |= works | {"invoices": asyncio.run(_draft_invoice(database_url, account.workspace_id, works))}
    return OneOfEach({**made, "deliveries": dead, "dead_letters": dead})
