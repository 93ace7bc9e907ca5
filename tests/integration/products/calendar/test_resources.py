"""Resources, services and booking pages: created, read, changed, refused by field."""

from typing import Any

import pytest

from products.calendar.booking_pages import find_page
from spine.kernel.database import open_pool
from tests.api import Api, Organisation
from tests.booking import Calendar

PAGE = {"slug": "acme", "brand": {"name": "Acme", "color": "#0a7d3c"}, "services": ["ac_service"]}


def change(calendar: Calendar, path: str, body: Any, *, status: int = 200) -> Any:
    """Change an object."""
    answer = calendar.http.patch(f"/calendar/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_resource_has_a_zone_and_perhaps_a_user(calendar: Calendar) -> None:
    """The zone is one of the IANA database, the user one of the workspace."""
    user_id = calendar.http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"}).json()["id"]
    made = calendar.post("resources", {"name": "Ann", "user_id": user_id, "time_zone": "Asia/Kolkata"})
    assert made["id"].startswith("rsc_")
    assert (made["user_id"], made["time_zone"]) == (user_id, "Asia/Kolkata")
    changed = change(calendar, f"resources/{made['id']}", {"time_zone": "Europe/Berlin", "user_id": None})
    assert calendar.get(f"resources/{made['id']}") == changed
    assert (changed["time_zone"], changed["user_id"]) == ("Europe/Berlin", None)
    assert calendar.post("resources", {"name": "Room"})["time_zone"] == "UTC"
    assert [row["name"] for row in calendar.get("resources")["data"]] == ["Room", "Ann"]
    for body, param in (
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"user_id": "usr_01J9X000000000000000000000"}, "user_id"),
        ({"name": ""}, "name"),
    ):
        assert calendar.post("resources", {"name": "x"} | body, status=422)["param"] == param
        assert change(calendar, f"resources/{made['id']}", body, status=422)["param"] == param
    types = [event["type"] for event in calendar.events("resource.*")]
    assert types == ["resource.created", "resource.updated", "resource.created"]


def test_a_service_says_how_long_it_takes(calendar: Calendar) -> None:
    """A slug is unique in its workspace and stays; reminders are sorted, each once, and few."""
    made = calendar.post(
        "services", {"slug": "ac_service", "name": "AC", "duration_min": 45, "reminder_minutes": [5, 90]}
    )
    assert made["id"].startswith("svc_")
    assert (made["reminder_minutes"], made["buffer_min"], made["offer_min"]) == ([90, 5], 0, 30)
    changed = change(calendar, f"services/{made['id']}", {"buffer_min": 10, "reminder_minutes": []})
    assert (changed["buffer_min"], changed["reminder_minutes"], changed["duration_min"]) == (10, [], 45)
    again = calendar.post("services", {"slug": "ac_service", "name": "x", "duration_min": 1}, status=409)
    assert (again["code"], again["param"]) == ("service_exists", "slug")
    assert [row["id"] for row in calendar.get("services", slug="ac_service")["data"]] == [made["id"]]
    assert change(calendar, f"services/{made['id']}", {"slug": "other"}, status=422)["param"] == "slug"
    for body, param in (
        ({"duration_min": 0}, "duration_min"),
        ({"buffer_min": -1}, "buffer_min"),
        ({"slug": "With Space"}, "slug"),
        ({"reminder_minutes": [60, 60]}, "reminder_minutes"),
        ({"reminder_minutes": [1, 2, 3, 4, 5, 6]}, "reminder_minutes"),
        ({"reminder_minutes": [0]}, "reminder_minutes.0"),
        ({"offer_min": 0}, "offer_min"),
    ):
        refused = calendar.post("services", {"slug": "s", "name": "x", "duration_min": 1} | body, status=422)
        assert refused["param"] == param


async def test_a_booking_page_is_found_by_its_slug(api: Api, org: Organisation, calendar: Calendar) -> None:
    """A new page has a public URL and is found at once, before a workspace is known (K-12)."""
    calendar.service("ac_service")
    made = calendar.post("booking_pages", PAGE)
    assert made["id"].startswith("pag_")
    assert made["url"].endswith("/b/acme")
    assert (made["status"], made["brand"]["logo_url"]) == ("active", None)
    assert calendar.get(f"booking_pages/{made['id']}") == made == calendar.get("booking_pages")["data"][0]
    pool = await open_pool(api.database_url, "spine_app", "test", 1)
    try:
        found = await find_page(pool, "acme")
        assert found is not None
        assert (found.subject_id, found.workspace_id, found.env) == (made["id"], org.test.workspace_id, "test")
        assert found.organisation_id == org.test.organisation_id
        for slug in ("other", "", "x" * 1000, "a\x00b"):
            assert await find_page(pool, slug) is None
    finally:
        await pool.close()


def test_a_page_is_changed_and_disabled(calendar: Calendar) -> None:
    """Brand, services and status change; the slug does not."""
    calendar.service("ac_service")
    calendar.service("massage")
    made = calendar.post("booking_pages", PAGE | {"slug": "changing"})
    body = {"status": "disabled", "services": ["massage", "ac_service"], "brand": {"name": "New"}}
    changed = change(calendar, f"booking_pages/{made['id']}", body)
    assert (changed["status"], changed["services"], changed["brand"]["name"]) == (
        "disabled", ["massage", "ac_service"], "New"
    )  # fmt: skip
    assert change(calendar, f"booking_pages/{made['id']}", {"status": "active"})["status"] == "active"
    assert change(calendar, f"booking_pages/{made['id']}", {"slug": "other"}, status=422)["param"] == "slug"
    types = [event["type"] for event in calendar.events("booking_page.*")]
    assert types == ["booking_page.created"] + ["booking_page.updated"] * 2


def test_a_slug_is_taken_whoever_has_it(calendar: Calendar, org: Organisation) -> None:
    """A public slug leads to one page in the whole installation: 409 `slug_taken`, with nothing about who has it."""
    with org.live.client() as live:
        theirs = Calendar(live)
        for one in (theirs, calendar):
            one.service("ac_service")
        theirs.post("booking_pages", PAGE | {"slug": "unique"})
        refused = calendar.post("booking_pages", PAGE | {"slug": "unique"}, status=409)
    assert (refused["code"], refused["param"]) == ("slug_taken", "slug")
    assert "existing_id" not in refused
    assert calendar.get("booking_pages")["data"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"slug": "Not A Slug"}, "slug"),
        ({"services": []}, "services"),
        ({"services": ["ac_service", "unknown"]}, "services.1"),
        ({"services": ["ac_service", "ac_service"]}, "services.1"),
        ({"brand": {"name": "x", "color": "red;}"}}, "brand.color"),
        ({"brand": {"name": "x", "logo_url": "javascript:alert(1)"}}, "brand.logo_url"),
        ({"brand": {"name": "x", "logo_url": 'https://a/"onload="x'}}, "brand.logo_url"),
        ({"brand": {"color": "#ffffff"}}, "brand.name"),
    ],
)
def test_a_wrong_page_is_refused_by_field(calendar: Calendar, body: dict[str, Any], param: str) -> None:
    """What would not be a page, or would break out of it, is 422 with the field."""
    calendar.service("ac_service")
    assert calendar.post("booking_pages", PAGE | {"slug": "wrong"} | body, status=422)["param"] == param
