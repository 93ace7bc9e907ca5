"""The operations of the committed OpenAPI document, for tests of every operation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from products.openapi import DIRECTORY
from spine.kernel import ids
from spine.kernel.openapi.operations import parameters_of
from spine.webhooks.schema_examples import example

MUTATING: Final = frozenset({"post", "put", "patch", "delete"})
Document = dict[str, Any]


def read(name: str) -> Document:
    """Read a committed document."""
    document: Document = json.loads((DIRECTORY / f"{name}.json").read_bytes())
    return document


SPINE: Final = read("spine")
BODIES: Final[dict[str, Any]] = {
    "POST /v1/api_keys": {"name": "another", "scopes": ["events:read"]},
    "POST /v1/event_types": {"name": "order.packed"},
    "POST /v1/events": {"type": "order.paid", "data": {"n": 1}},
    "POST /v1/events/batch": {"events": [{"type": "order.paid", "data": {"n": 1}}]},
    "POST /v1/replays": {"filter": {}},
    "POST /v1/webhook_endpoints": {"url": "http://127.0.0.1:9/", "events": ["order.paid"]},
    "PATCH /v1/webhook_endpoints/{id}": {"description": "changed"},
    "POST /crm/v1/contacts": {"name": "Meera"},
    "PATCH /crm/v1/contacts/{id}": {"name": "Asha"},
    "POST /works/v1/templates": {"slug": "fitout_v2", "milestones": [{"name": "Design", "offset_days": 7}]},
    "POST /works/v1/projects": {"name": "Site fit-out"},
    "PATCH /works/v1/projects/{id}": {"name": "Garden"},
    "POST /works/v1/projects/{id}/close": {"force": True, "reason": "the client left"},
    "POST /works/v1/milestones": {"name": "Design", "position": 1},
    "PATCH /works/v1/milestones/{id}": {"name": "Design and measure"},
    "POST /works/v1/milestones/{id}/reach": {"force": True, "reason": "the client waits"},
    "POST /works/v1/tasks": {"title": "Paint"},
    "PATCH /works/v1/tasks/{id}": {"title": "Clean"},
    "POST /works/v1/tasks/{id}/assign": {"assignee_id": None},
    "POST /notifications/v1/templates": {"slug": "reminder", "bodies": {"sms": "Hello"}},
    "POST /notifications/v1/templates/{id}/preview": {"channel": "sms"},
    "PUT /notifications/v1/channel_policies/{slug}": {"steps": [{"channel": "sms"}], "deadline_s": 600},
    "POST /notifications/v1/channel_policies/{id}/simulate": {"world": {}},
    "POST /notifications/v1/provider_accounts": {"channel": "sms", "kind": "sandbox"},
    "PATCH /notifications/v1/provider_accounts/{id}": {"priority": 7},
    "POST /notifications/v1/messages": {"to": "+910000000000", "template": "reminder", "channels": ["sms"]},
    "POST /notifications/v1/messages/batch": {
        "messages": [{"to": "+910000000000", "template": "reminder", "channels": ["sms"]}]
    },
    "POST /calendar/v1/resources": {"name": "Ravi", "time_zone": "Asia/Kolkata"},
    "PATCH /calendar/v1/resources/{id}": {"name": "Asha"},
    "POST /calendar/v1/services": {"slug": "ac_service", "name": "AC service", "duration_min": 60},
    "PATCH /calendar/v1/services/{id}": {"duration_min": 45},
    "POST /calendar/v1/waitlist_entries": {
        "service": "ac_service",
        "contact_id": "ctc_01J9X000000000000000000000",
        "window": {"from": "2100-01-01T00:00:00Z", "to": "2100-02-01T00:00:00Z"},
    },
    "POST /calendar/v1/booking_pages": {"slug": "acme", "brand": {"name": "Acme"}, "services": ["ac_service"]},
    "PATCH /calendar/v1/booking_pages/{id}": {"status": "disabled"},
    "POST /tickets/v1/tickets": {"contact_id": "ctc_…", "subject": "Part delayed", "source": "api"},
    "PATCH /tickets/v1/tickets/{id}": {"subject": "Part lost"},
    "POST /tickets/v1/tickets/{id}/evidence": {"kind": "photo", "ref": "photos/2.jpg"},
    "POST /tickets/v1/tickets/{id}/transition": {"to": "pending", "reason": "waits for the part"},
    "POST /tickets/v1/tickets/{id}/triage": {"to": "pending", "reason": "waits for the part"},
    "PATCH /tickets/v1/routing_rules/{id}": {"metadata": {"k": "v"}},
    "PATCH /tickets/v1/sla_policies/{id}": {"threshold_s": 7},
    "POST /tickets/v1/sla_policies": {"priority": "low", "threshold_s": 60},
    "POST /tickets/v1/forms": {"slug": "help", "title": "Help"},
    "PATCH /tickets/v1/forms/{id}": {"title": "Support"},
    "POST /crm/v1/catalog_items": {"name": "AC"},
    "POST /crm/v1/leads": {"contact_id": "ctc_…", "source": "website"},
    "PATCH /crm/v1/leads/{id}": {"source": "referral"},
    "POST /crm/v1/leads/{id}/move": {"to": "dormant"},
    "POST /crm/v1/interests": {"lead_id": "ld_…", "catalog_item_id": "itm_…"},
    "POST /crm/v1/deals": {"contact_id": "ctc_…", "value_minor": 100, "currency": "INR"},
    "PATCH /crm/v1/deals/{id}": {"stage": "negotiation"},
    "POST /crm/v1/deals/{id}/lose": {"lost_reason": "price"},
    "POST /crm/v1/call_sessions": {"phone": "+910000000000", "channel": "voice"},
    "PATCH /crm/v1/call_sessions/{id}/fields": {"city": "Pune"},
    "POST /crm/v1/call_sessions/{id}/finalize": {"lead": {"source": "call"}},
    "POST /crm/v1/sequences": {"name": "Welcome", "steps": [{"delay_s": 60, "template": "reminder"}]},
    "POST /crm/v1/sequences/{id}/enroll": {"contact_id": "ctc_…"},
}
"""Bodies for operations whose schema is not sufficient to generate a valid one."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a document."""

    path: str
    method: str
    spec: Document

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def mutating(self) -> bool:
        """True if the operation changes data."""
        return self.method in MUTATING

    @property
    def public(self) -> bool:
        """True if the operation needs no API key."""
        return self.spec.get("security") == []

    @property
    def takes_body(self) -> bool:
        """True if the operation has a request body."""
        return "requestBody" in self.spec

    @property
    def of_one(self) -> bool:
        """True if the path contains the id of an existing resource."""
        return "{" in self.path and not (
            self.method == "put" and self.path.endswith(("/{slug}", "/{name}"))
        )  # which create it

    def random_path(self) -> str:
        """Return the path with an id that does not exist."""
        path = self.path
        for parameter in self.spec.get("parameters", []):
            if parameter["in"] == "path":
                pattern: str = parameter["schema"].get("pattern", "")
                prefix = pattern.removeprefix("^").partition("_")[0]
                path = path.replace(f"{{{parameter['name']}}}", ids.mint(prefix) if prefix else "nothing")
        return path

    def body(self) -> Any:
        """Return a body that is valid for the schema; None if the operation has no body."""
        if not self.takes_body:
            return None
        if str(self) in BODIES or not self.spec["requestBody"].get("required"):
            return BODIES.get(str(self), {})
        schema = self.spec["requestBody"]["content"]["application/json"]["schema"]
        found = example({**schema, "components": SPINE["components"]})
        return {} if found is None else found


def operations(document: Document = SPINE) -> Iterator[Operation]:
    """Yield every operation of a document, with its shared parameters written out."""
    for path, item in document["paths"].items():
        for method, spec in item.items():
            yield Operation(path, method, {**spec, "parameters": parameters_of(spec, document)})


OPERATIONS: Final = tuple(operations())
AUTHENTICATED: Final = tuple(operation for operation in OPERATIONS if not operation.public)
