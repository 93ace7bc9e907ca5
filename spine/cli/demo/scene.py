"""The scene of the demo: the people, the calendar, the pages and the templates of a small fit-out company."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from spine.cli.api import Api

_HOURS = 4
"""Slots that are offered, of one hour each, the day after tomorrow."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is there before the story begins. `mark` makes the slugs of this run its own."""

    mark: str
    owner_id: str
    item_id: str
    service: str
    slot_ids: tuple[str, ...]
    page_url: str
    form_url: str
    template: str
    phone: str
    """The caller's number: a recipient of the sandbox who gets every message and replies."""


def set_scene(api: Api, now: datetime) -> Scene:
    """Create what the story needs. A second run in one workspace creates its own."""
    mark = secrets.token_hex(3)
    owner_id = _id(api.post("/v1/users", {"name": "Asha Menon", "email": f"asha.{mark}@example.com"}))
    item = api.post("/crm/v1/catalog_items", {"name": "1.5T split AC", "sku": f"AC-{mark}"})
    service = f"site_visit_{mark}"
    api.post("/calendar/v1/services", {"slug": service, "name": "Site visit", "duration_min": 60})
    engineer = api.post("/calendar/v1/resources", {"name": "Ravi, engineer", "time_zone": "Asia/Kolkata"})
    first = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=2)
    slots = api.post("/calendar/v1/slots", {"slots": [_slot(engineer["id"], service, first, n) for n in range(_HOURS)]})
    brand = {"name": "Coolwell", "color": "#0b6e4f"}
    page = api.post("/calendar/v1/booking_pages", {"slug": f"coolwell-{mark}", "brand": brand, "services": [service]})
    _default_route(api, owner_id)
    api.post("/tickets/v1/sla_policies", {"priority": "normal", "topic": f"parts_{mark}", "threshold_s": 4 * 3600})
    form = api.post(
        "/tickets/v1/forms",
        {
            "slug": f"coolwell-{mark}",
            "title": "Coolwell support",
            "topics": [f"parts_{mark}", "billing"],
            "brand": brand,
        },
    )
    template = f"fitout_{mark}"
    api.post("/works/v1/templates", {"slug": template, **_plan()})
    return Scene(
        mark, owner_id, item["id"], service, tuple(slot["id"] for slot in slots["data"]), page["url"], form["url"],
        template, "+910000000001",
    )  # fmt: skip


def _id(made: dict[str, Any]) -> str:
    return str(made["id"])


def _slot(resource_id: str, service: str, first: datetime, n: int) -> dict[str, Any]:
    starts_at = first + timedelta(hours=n)
    return {
        "resource_id": resource_id,
        "service": service,
        "starts_at": starts_at.isoformat(),
        "ends_at": (starts_at + timedelta(hours=1)).isoformat(),
        "capacity": 1,
    }


def _default_route(api: Api, owner_id: str) -> None:
    """Create the default route of tickets, unless an earlier run has."""
    rules = api.first("/tickets/v1/routing_rules", 100)["data"]
    if all(rule["topic"] is not None for rule in rules):
        api.post("/tickets/v1/routing_rules", {"topic": None, "owner_id": owner_id})


def _plan() -> dict[str, Any]:
    billing = {"amount_minor": 45_000_00, "currency": "INR", "description": "First instalment"}
    return {
        "milestones": [
            {"name": "Survey done", "offset_days": 3, "billing": billing},
            {"name": "Installed", "offset_days": 14},
        ],
        "tasks": [
            {"title": "Measure the rooms", "milestone": "Survey done", "offset_days": 2},
            {"title": "Order the units", "milestone": "Installed", "offset_days": 5},
        ],
    }
