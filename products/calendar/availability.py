"""Availability: the slots that can be booked, in the order of their start. One read, never a promise (K-01, P-27)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text

from products.calendar.slot_models import SlotOut
from spine.kernel.cursors import Position
from spine.kernel.routes import PageRequest
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

_MAX_SCAN: Final = 1000
"""Slots that one page looks at, also where SPINE_MAX_SCAN allows more: each costs a look at its resource's appointments."""
_OPEN: Final = (
    "SELECT * FROM spine.slots s WHERE s.workspace_id = :ws AND s.status = 'open' AND s.booked < s.capacity "
    "AND s.starts_at >= coalesce(cast(:since AS timestamptz), now()) {more} ORDER BY s.starts_at, s.id"
)
_UNTIL: Final = "AND s.starts_at < :until"
_OF_RESOURCE: Final = "AND s.resource_id = :resource_id"
_AFTER: Final = (
    "AND (s.starts_at, s.id) > (cast(cast(:after_at AS text) AS timestamptz), cast(:after_id AS text)) "
    "AND pg_visible_in_snapshot(s.xid, cast(cast(:snapshot AS text) AS pg_snapshot))"
)
# `taken`: booked appointments of one resource never overlap, so only the last one that begins before the slot's end can reach
# into it. If that one is in this very slot, none of another slot does.
# The second part runs only for a page that the first one did not fill: it finds where a scan that ended early ended.
_PAGE: Final = """
    SELECT * FROM (
        (SELECT s.*, pg_current_snapshot()::text AS snapshot, false AS reached
           FROM ({open} LIMIT :scan) s
           LEFT JOIN spine.services v ON v.workspace_id = :ws AND v.slug = coalesce(s.service, cast(:service AS text))
           LEFT JOIN LATERAL (
               SELECT a.slot_id, upper(a.occupied) AS until FROM spine.appointments a
                WHERE a.workspace_id = :ws AND a.resource_id = s.resource_id AND a.status = 'booked'
                  AND a.starts_at < s.ends_at + make_interval(mins => coalesce(v.buffer_min, 0))
                ORDER BY a.starts_at DESC LIMIT 1
           ) taken ON true
          WHERE s.bookable_until > now()
            AND (cast(:service AS text) IS NULL OR s.service = :service
                 OR s.service IS NULL AND s.ends_at - s.starts_at >= make_interval(mins => v.duration_min))
            AND (taken.slot_id IS NULL OR taken.slot_id = s.id OR taken.until <= s.starts_at)
          ORDER BY s.starts_at, s.id LIMIT :rows)
        UNION ALL
        (SELECT s.*, pg_current_snapshot()::text, true FROM ({open} LIMIT :scan) s OFFSET :scan - 1 LIMIT 1)
    ) found LIMIT :rows
"""


@dataclass(frozen=True, slots=True)
class SlotFilter:
    """Which slots are looked for: those that start from `since` (now, if None) to before `until`."""

    since: datetime | None
    until: datetime | None
    service: str | None
    resource_id: str | None


async def available_page(unit: UnitOfWork, wanted: SlotFilter, paging: PageRequest) -> Page[SlotOut]:
    """Return one page of bookable slots, the earliest first. Raises BadRequest `invalid_cursor`.

    A slot is bookable if it is open, has room and has not begun, if its resource is not booked at that time by another slot,
    and if the service fits in.
    """
    binding = f"{unit.workspace_id} {unit.path} {wanted}"
    position = None if paging.cursor is None else unit.platform.cursors.decode(binding, paging.cursor)
    rows = await _read(unit, wanted, paging.limit, position)
    found = [row for row in rows if not row["reached"]]
    last = None
    if len(found) > paging.limit:
        found = found[: paging.limit]
        last = found[-1]
    elif rows and rows[-1]["reached"]:
        last = rows[-1]
    next_cursor = None
    if last is not None:
        snapshot = position.snapshot if position else last["snapshot"]
        after = (last["starts_at"].isoformat(), last["id"])
        next_cursor = unit.platform.cursors.encode(binding, Position(snapshot, after))
    data = [SlotOut.model_validate(dict(row)) for row in found]
    return Page(data=data, has_more=last is not None, next_cursor=next_cursor)


async def open_slots(
    unit: UnitOfWork,
    *,
    since: datetime | None,
    until: datetime | None,
    service: str | None,
    resource_id: str | None,
    limit: int,
) -> list[SlotOut]:
    """Return the first bookable slots that start from `since` (now, if None) to before `until`."""
    rows = await _read(unit, SlotFilter(since, until, service, resource_id), limit, None)
    return [SlotOut.model_validate(dict(row)) for row in rows if not row["reached"]][:limit]


async def _read(unit: UnitOfWork, wanted: SlotFilter, limit: int, position: Position | None) -> list[Any]:
    values: dict[str, Any] = {
        "ws": unit.workspace_id,
        "since": wanted.since,
        "service": wanted.service,
        "scan": min(unit.platform.http.max_scan, _MAX_SCAN),
        "rows": limit + 1,
    }
    more = []
    if wanted.until is not None:
        more.append(_UNTIL)
        values["until"] = wanted.until
    if wanted.resource_id is not None:
        more.append(_OF_RESOURCE)
        values["resource_id"] = wanted.resource_id
    if position is not None:
        more.append(_AFTER)
        values |= {"after_at": position.after[0], "after_id": position.after[1], "snapshot": position.snapshot}
    statement = text(_PAGE.format(open=_OPEN.format(more=" ".join(more))))
    return list((await unit.session.execute(statement, values)).mappings())
