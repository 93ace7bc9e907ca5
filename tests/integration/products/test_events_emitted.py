"""Every mutation emits an event that its operation declares, with a body as the OpenAPI webhooks section describes it."""

import asyncio
from typing import Any

import asyncpg
import httpx
import jsonschema
import orjson
import pytest

from tests.api import Api, Organisation
from tests.contract.specification import AUTHENTICATED, SPINE, Operation
from tests.one_of_each import create_one_of_each

MUTATIONS = [operation for operation in AUTHENTICATED if operation.mutating]
PREPARATIONS = {
    "POST /v1/webhook_endpoints/{id}/enable": ("PATCH", "/v1/webhook_endpoints/{id}", {"status": "disabled"}),
    "POST /v1/replays/{id}/resume": ("POST", "/v1/replays/{id}/pause", {}),
    "POST /tickets/v1/tickets/{id}/reopen": ("POST", "/tickets/v1/tickets/{id}/resolve", {"resolution_note": "done"}),
    "POST /tickets/v1/forms/{id}/enable": ("POST", "/tickets/v1/forms/{id}/disable", {}),
    "POST /crm/v1/sequences/{id}/resume": ("POST", "/crm/v1/sequences/{id}/pause", {}),
    "POST /works/v1/projects/{id}/resume": ("POST", "/works/v1/projects/{id}/hold", {}),
    "POST /works/v1/tasks/{id}/reopen": ("POST", "/works/v1/tasks/{id}/complete", {}),
}
"""The call that must come before an operation, so that the operation changes something."""
TESTED_APART = "/calendar/"
"""The calendar's operations need states of their own; its room has this test for itself."""
OF_MESSAGES = frozenset({"message.created", "template.created"})
"""Events of the message service, which operations of products call (X14)."""
REFERENCES = {
    "PUT /notifications/v1/preferences": {"contact_id": "contacts"},
    "POST /tickets/v1/tickets": {"contact_id": "contacts"},
    "POST /tickets/v1/tickets/{id}/assign": {"owner_id": "users"},
    "POST /tickets/v1/routing_rules": {"owner_id": "users"},
    "POST /crm/v1/leads": {"contact_id": "contacts"},
    "POST /crm/v1/interests": {"lead_id": "leads", "catalog_item_id": "catalog_items"},
    "POST /crm/v1/deals": {"contact_id": "contacts"},
    "POST /crm/v1/sequences/{id}/enroll": {"contact_id": "contacts"},
    "POST /works/v1/projects": {"owner_id": "users"},
    "POST /works/v1/milestones": {"project_id": "projects"},
    "POST /works/v1/tasks": {"project_id": "projects", "milestone_id": "milestones", "assignee_id": "users"},
}
"""The fields of a body that name another object, and the list that it is in."""


def event_bodies(api: Api, workspace_id: str) -> list[dict[str, Any]]:
    """Return the exact bodies that subscribers get, oldest first."""

    async def fetch() -> list[dict[str, Any]]:
        owner = await asyncpg.connect(api.database_url)
        try:
            rows = await owner.fetch(
                "SELECT body FROM spine.events WHERE workspace_id = $1 AND body IS NOT NULL ORDER BY id", workspace_id
            )
        finally:
            await owner.close()
        return [orjson.loads(row["body"]) for row in rows]

    return asyncio.run(fetch())


def validate(body: dict[str, Any]) -> None:
    """Validate an event body against the OpenAPI webhooks section."""
    schema = SPINE["webhooks"][body["type"]]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(
        {**schema, "components": SPINE["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    ).validate(body)


@pytest.mark.parametrize("operation", [one for one in MUTATIONS if not one.path.startswith(TESTED_APART)], ids=str)
def test_a_mutation_emits_what_it_declares(
    operation: Operation, http: httpx.Client, api: Api, org: Organisation
) -> None:
    """A call emits at least one event of a declared type, with the call's request id and a body as documented (P-04)."""
    existing = create_one_of_each(org.test, api.database_url)
    if str(operation) in PREPARATIONS:
        method, path, body = PREPARATIONS[str(operation)]
        assert http.request(method, existing.path(path), json=body).status_code == 200
    sent = operation.body()
    for field, collection in REFERENCES.get(str(operation), {}).items():
        sent = sent | {field: existing.by_collection[collection]}
    if str(operation) == "POST /tickets/v1/routing_rules":
        sent = sent | {"topic": "another"}
    if str(operation) == "POST /notifications/v1/provider_accounts/{id}/test":
        sent = {}
    path = existing.path(operation.path.replace("{slug}", "quick"))
    answer = http.request(operation.method, path, json=sent)
    assert answer.status_code in (200, 201), answer.text
    emitted = [
        body for body in event_bodies(api, org.test.workspace_id) if body["request_id"] == answer.headers["request-id"]
    ]
    assert {body["type"] for body in emitted} & {*operation.spec["x-events"]} or "*" in operation.spec["x-events"]
    for body in emitted:
        assert body["type"] in {*operation.spec["x-events"], *OF_MESSAGES} or "*" in operation.spec["x-events"]
        if body["type"] in SPINE["webhooks"]:
            validate(body)
        assert body["workspace_id"] == org.test.workspace_id
        assert body["env"] == "test"


def test_every_emitted_event_is_declared(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Every event of a used workspace is in the webhooks section, or is of the caller's own type."""
    create_one_of_each(org.test, api.database_url)
    emitted = event_bodies(api, org.test.workspace_id)
    assert len(emitted) >= 6
    for body in emitted:
        if body["type"] != "order.paid":
            validate(body)
