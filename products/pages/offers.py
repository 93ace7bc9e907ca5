"""What a booking page offers: its services, and the free times of one of them by day, in one time zone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import select

from products.calendar.availability import open_slots
from products.calendar.resources import CalendarResourceRow
from products.calendar.services import find_services
from products.calendar.slot_models import SlotOut
from products.pages.page_times import clock_text, day_text, zone, zone_text
from spine.kernel.unit_of_work import UnitOfWork

SLOTS_ON_A_PAGE: Final = 60
HORIZON: Final = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class OfferedService:
    """A service that the page offers."""

    slug: str
    name: str
    duration_min: int | None


@dataclass(frozen=True, slots=True)
class OfferedSlot:
    """A free time. `resource` is empty where all times are of one resource."""

    id: str
    starts_at: datetime
    text: str
    resource: str


@dataclass(frozen=True, slots=True)
class OfferedDay:
    """The free times of one day."""

    text: str
    slots: list[OfferedSlot] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OfferedTimes:
    """The free times of a service. `later` is the time of the first one that found no room on the page."""

    days: list[OfferedDay]
    zone_name: str
    later: str


async def offered_services(unit: UnitOfWork, slugs: Iterable[str]) -> list[OfferedService]:
    """Return the services of a page, in its order. A slug that no service has (yet) is left out: nothing can be booked for it."""
    found = await find_services(unit, set(slugs))
    return [OfferedService(slug, found[slug].name, found[slug].duration_min) for slug in slugs if slug in found]


async def offered_times(unit: UnitOfWork, service: str | None, after: str, zone_name: str) -> OfferedTimes:
    """Return the first free times of a service from `after` on, in the visitor's zone or, by default, in that of the resource."""
    now = unit.platform.clock.now()
    since = max(_time(after) or now, now)
    slots = await open_slots(
        unit, since=since, until=now + HORIZON, service=service, resource_id=None, limit=SLOTS_ON_A_PAGE + 1
    )
    shown, rest = slots[:SLOTS_ON_A_PAGE], slots[SLOTS_ON_A_PAGE:]
    resources = await _resources(unit, {slot.resource_id for slot in shown})
    default = resources[shown[0].resource_id].time_zone if shown else "UTC"
    in_zone = zone(zone_name, default)
    name = zone_text(shown[0].starts_at.astimezone(in_zone), in_zone.key) if shown else in_zone.key
    return OfferedTimes(_by_day(shown, resources, in_zone), name, _next(shown, rest))


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None and at.year < 9999 else None


def _next(shown: list[SlotOut], rest: list[SlotOut]) -> str:
    """Return where the next page begins. Of very many slots at one time a page may miss some: it never stands still."""
    if not rest:
        return ""
    at = rest[0].starts_at
    return (at if at > shown[0].starts_at else at + timedelta(microseconds=1)).isoformat()


async def _resources(unit: UnitOfWork, ids: set[str]) -> Mapping[str, CalendarResourceRow]:
    if not ids:
        return {}
    query = select(CalendarResourceRow).where(
        CalendarResourceRow.workspace_id == unit.workspace_id, CalendarResourceRow.id.in_(ids)
    )
    return {row.id: row for row in await unit.session.scalars(query)}


def _by_day(
    slots: Iterable[SlotOut], resources: Mapping[str, CalendarResourceRow], in_zone: ZoneInfo
) -> list[OfferedDay]:
    days: dict[str, OfferedDay] = {}
    for slot in slots:
        start = slot.starts_at.astimezone(in_zone)
        text = day_text(start.date())
        name = resources[slot.resource_id].name if len(resources) > 1 else ""
        days.setdefault(text, OfferedDay(text)).slots.append(OfferedSlot(slot.id, start, clock_text(start), name))
    return list(days.values())
