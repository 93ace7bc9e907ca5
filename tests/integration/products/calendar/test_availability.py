"""Availability: which slots are shown, in which order, and what pages promise."""

from datetime import timedelta

import pytest

from tests.api import serve
from tests.booking import HOUR, Calendar, days_ahead


def test_open_slots_are_shown_in_order_of_their_start(calendar: Calendar) -> None:
    """The earliest first, also if it was created last; past, full and closed ones are left out."""
    resource_id = calendar.resource()
    late, past, full, closed = calendar.slots(resource_id, *(days_ahead(days) for days in (5, -2, 3, 4)))
    [early] = calendar.slots(resource_id, days_ahead(1))
    calendar.book(full)
    calendar.post(f"slots/{closed}/close", status=200)
    assert calendar.available() == [early, late]
    assert past not in calendar.available(**{"from": days_ahead(-9).isoformat()})


def test_from_is_included_and_to_is_not(calendar: Calendar) -> None:
    """The times are of the start: `from` to before `to`."""
    first, second, third = (days_ahead(3) + n * HOUR for n in range(3))
    ids = calendar.slots(calendar.resource(), first, second, third)
    assert calendar.available(**{"from": first.isoformat(), "to": third.isoformat()}) == ids[:2]
    refused = calendar.http.get("/calendar/v1/slots", params={"from": third.isoformat(), "to": first.isoformat()})
    assert (refused.status_code, refused.json()["param"]) == (422, "to")


def test_slots_are_filtered_by_service_and_resource(calendar: Calendar) -> None:
    """A service is shown its own slots, and those for any service that it fits in."""
    calendar.service("short", duration_min=30)
    calendar.service("long", duration_min=120)
    one, other = calendar.resource(), calendar.resource()
    [any_] = calendar.slots(one, days_ahead(1))
    [of_short] = calendar.slots(one, days_ahead(2), service="short")
    [of_long] = calendar.slots(other, days_ahead(3), service="long", length=2 * HOUR)
    assert calendar.available(service="short") == [any_, of_short]
    assert calendar.available(service="long") == [of_long]
    assert calendar.available(resource_id=one) == [any_, of_short]
    assert calendar.available(service="short", resource_id=other) == []
    assert calendar.available(service="unknown") == []


def test_a_slot_whose_resource_is_booked_is_not_shown(calendar: Calendar) -> None:
    """What a booking would refuse is not offered: the overlapping slots of a booked one, but its own places are."""
    start = days_ahead(3)
    resource_id = calendar.resource()
    group, half = calendar.slots(resource_id, start, start + HOUR / 2, capacity=2)
    made = calendar.book(group)
    assert calendar.available() == [group]
    calendar.post(f"appointments/{made['id']}/cancel", {"reason": "rain"}, status=200)
    assert calendar.available() == [group, half]


def test_pages_neither_skip_nor_repeat(calendar: Calendar) -> None:
    """Along the cursor each slot of the first page's moment comes once, whatever is created and booked meanwhile (P-12)."""
    resource_id = calendar.resource()
    ids = calendar.slots(resource_id, *(days_ahead(2) + n * HOUR for n in range(7)))
    page = calendar.get("slots", limit=2)
    seen = [slot["id"] for slot in page["data"]]
    calendar.slots(resource_id, days_ahead(2) + 4.5 * HOUR, days_ahead(1))
    while page["has_more"]:
        page = calendar.get("slots", limit=2, cursor=page["next_cursor"])
        seen += [slot["id"] for slot in page["data"]]
    assert seen == ids


def test_a_cursor_is_bound_to_its_filters(calendar: Calendar) -> None:
    """A cursor of one search is no cursor of another one."""
    resource_id = calendar.resource()
    calendar.slots(resource_id, *(days_ahead(days) for days in (1, 2, 3)))
    cursor = calendar.get("slots", limit=1)["next_cursor"]
    refused = calendar.http.get("/calendar/v1/slots", params={"cursor": cursor, "resource_id": resource_id})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("limit", [1, 3])
def test_a_page_looks_at_no_more_slots_than_it_may(module_database: str, module_redis_url: str, limit: int) -> None:
    """A page that found too few by SPINE_MAX_SCAN slots has a cursor to read on, and the traversal finds all."""
    with serve(module_database, module_redis_url, SPINE_MAX_SCAN="100") as api, api.sign_up().test.client() as http:
        calendar = Calendar(http)
        calendar.service("rare", duration_min=5)
        calendar.service("usual", duration_min=5)
        resource_id = calendar.resource()
        minute = timedelta(minutes=1)
        start = days_ahead(1)
        calendar.slots(resource_id, *(start + n * 5 * minute for n in range(250)), length=5 * minute, service="usual")
        rare = calendar.slots(
            resource_id, *(start + n * 500 * minute for n in range(3)), length=5 * minute, service="rare"
        )
        seen, pages, cursor = [], 0, None
        while pages == 0 or cursor:
            page = calendar.get("slots", service="rare", limit=limit, cursor=cursor)
            seen += [slot["id"] for slot in page["data"]]
            cursor, pages = page["next_cursor"], pages + 1
        assert seen == rare
        assert pages >= 3


def test_a_read_sees_the_last_write(calendar: Calendar) -> None:
    """Every booking and every cancellation is seen by the next read (P-27)."""
    slot_id = calendar.slot()
    for _ in range(20):
        made = calendar.book(slot_id)
        assert calendar.available() == []
        calendar.post(f"appointments/{made['id']}/cancel", {"reason": "again"}, status=200)
        assert calendar.available() == [slot_id]
