"""The generic store, which reads and writes the tables of resources. Hot paths use their own SQL instead."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, and_, case, func, literal_column, select, text, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.attributes import flag_modified

from spine.kernel import ids
from spine.kernel.cursors import Position
from spine.kernel.database_errors import constraint
from spine.kernel.errors import Conflict, IllegalTransition, NotFound, SpineError, Unprocessable
from spine.kernel.resource import Body, Resource, ResourceOut, TenantRow
from spine.kernel.unit_of_work import UnitOfWork

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    has_more: bool = Field(
        description="True also after a page with few rows or none, if it looked at all rows that a page may."
    )
    next_cursor: str | None = Field(description="Give it as `cursor` to read on.")


def columns(body: Body) -> dict[str, Any]:
    """Return the values that a body sets, by column."""
    values = body.model_dump(exclude_unset=True)
    if "metadata" in values:
        values["meta"] = values.pop("metadata")
    return values


async def get(unit: UnitOfWork, resource: Resource, id: str, *, lock: bool = False) -> Any:
    """Return the row with this id in the unit's workspace. Raises NotFound, the same for foreign and unknown ids (P-15)."""
    row = None
    if ids.is_id(id, resource.prefix):
        query = select(resource.row).where(resource.row.workspace_id == unit.workspace_id, resource.row.id == id)
        row = await unit.session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise not_found(resource)
    return row


def not_found(resource: Resource) -> NotFound:
    """Return the error for a missing id. It is the same for every reason."""
    return NotFound(f"there is no such {resource.noun.replace('_', ' ')}")


async def create(unit: UnitOfWork, resource: Resource, *, id: str | None = None, **values: Any) -> Any:
    """Insert a row, with a new id unless one is given, and return it.

    Raises the row's `constraint_errors` for a violated constraint, or Conflict.
    """
    id = id or ids.mint(resource.prefix)
    now = ids.created_at(id)
    row = resource.row(workspace_id=unit.workspace_id, id=id, created_at=now, updated_at=now, **values)
    unit.session.add(row)
    await flush(unit, resource.row)
    return row


async def flush(unit: UnitOfWork, row: type[TenantRow]) -> None:
    """Write pending changes. Raises the row's `constraint_errors` for a violated constraint, or Conflict."""
    try:
        await unit.session.flush()
    except IntegrityError as error:
        refusal = row.constraint_errors.get(constraint(error))
        raise (refusal() if refusal else Conflict("this conflicts with what is there already")) from error


def differs(old: Any, new: Any) -> bool:
    """True if two values of a column differ. In JSON, unlike in Python, 1 equals neither true nor 1.0."""
    if old != new:
        return True
    return isinstance(new, dict | list) and json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True)


async def change(
    unit: UnitOfWork, resource: Resource, row: TenantRow, values: Mapping[str, Any], expected_version: int | None = None
) -> bool:
    """Set the values that differ on a locked row. Returns True if any did. Raises Conflict `version_conflict`."""
    if expected_version is not None and expected_version != row.version:
        raise Conflict(
            f"the version is {row.version} by now, not {expected_version}; read it again",
            code="version_conflict",
            param="If-Match",
        )
    different = {name: value for name, value in values.items() if differs(getattr(row, name), value)}
    if not different:
        return False
    for name, value in different.items():
        setattr(row, name, value)
        flag_modified(row, name)  # SQLAlchemy compares as Python does, unlike `differs`
    row.version += 1
    row.updated_at = await unit.now()
    await flush(unit, resource.row)
    return True


async def transition(unit: UnitOfWork, resource: Resource, id: str, to: str, **values: Any) -> Any:
    """Change a row's state, if the resource's `states` allow the transition. Raises NotFound, IllegalTransition."""
    row = await get(unit, resource, id, lock=True)
    allowed = resource.states.get(row.status, frozenset())
    if to not in allowed:
        raise IllegalTransition(
            f"it is {row.status}; from there it can become: {', '.join(sorted(allowed)) or 'nothing else'}",
            allowed=sorted(allowed),
        )
    await change(unit, resource, row, {"status": to, **values})
    return row


async def emit_event(unit: UnitOfWork, resource: Resource, row: TenantRow, verb: str) -> Any:
    """Emit the resource's event for this verb, with the resource as its data. Returns the response model.

    Raises ValueError if the resource declares no such event: every mutation emits one (P-04).
    """
    event = resource.event(verb)
    if event is None:
        raise ValueError(f"{resource.noun}.{verb} is not declared in the events of the resource {resource.noun}")
    out = resource.out.model_validate(row)
    unit.emit(event, out, sequence=row.version)
    return out


async def page(
    unit: UnitOfWork,
    resource: Resource,
    cursor: str | None,
    limit: int,
    *conditions: ColumnElement[bool],
    checked: Sequence[ColumnElement[bool]] = (),
    filters: str = "",
    out: Callable[[Any], Any] | None = None,
) -> Page[Any]:
    """Return one page, newest first, of the rows that the first page's snapshot sees.

    An index must support `conditions`. The conditions `checked` are checked row by row, for SPINE_MAX_SCAN rows at most: a page
    that found too few by then has a cursor to read on. `filters` is the text of all conditions; the cursor is bound to it.
    Raises BadRequest `invalid_cursor`.
    """
    binding = f"{unit.workspace_id} {unit.path} {filters}"
    seen: list[Any] = [resource.row.workspace_id == unit.workspace_id, *conditions]
    snapshot = None
    if cursor is not None:
        position = unit.platform.cursors.decode(binding, cursor)
        snapshot = position.snapshot
        visible = text("pg_visible_in_snapshot(xid, cast(cast(:snapshot AS text) AS pg_snapshot))")
        seen += [visible.bindparams(snapshot=snapshot), resource.row.id < position.after[0]]
    rows = (
        await unit.session.execute(_page_query(resource.row, seen, checked, limit, unit.platform.http.max_scan))
    ).all()
    found = [row for row, *_ in rows if row is not None]
    last: str | None = rows[0].reached if rows else None
    if len(found) > limit:
        found = found[:limit]
        last = found[-1].id
    next_cursor = None
    if last is not None:
        next_cursor = unit.platform.cursors.encode(binding, Position(snapshot or rows[0].snapshot, (last,)))
    shape = out or cast(Callable[[Any], ResourceOut], resource.out.model_validate)
    return Page(data=[shape(row) for row in found], has_more=last is not None, next_cursor=next_cursor)


def _page_query(
    row: type[TenantRow], seen: Sequence[Any], checked: Sequence[ColumnElement[bool]], limit: int, scan: int
) -> Select[Any]:
    """Return the query of a page: one row more than `limit`, the snapshot, and the last row of a scan that ended early."""
    snapshot: Any = literal_column("pg_current_snapshot()::text").label("snapshot")
    if not checked:
        query = select(row, snapshot, literal_column("NULL").label("reached"))
        return query.where(*seen).order_by(row.id.desc()).limit(limit + 1)
    looked_at = (
        select(row.id, and_(*checked).label("matches"))
        .where(*seen)
        .order_by(row.id.desc())
        .limit(scan)
        .cte("looked_at")
    )
    ended_early = select(func.count()).select_from(looked_at).scalar_subquery() == scan
    last = select(func.min(looked_at.c.id)).scalar_subquery()
    reached = select(case((ended_early, last)).label("id")).cte("reached")
    found = (
        select(looked_at.c.id).where(looked_at.c.matches).order_by(looked_at.c.id.desc()).limit(limit + 1).cte("found")
    )
    of_found = and_(row.workspace_id == func.current_setting("app.ws"), row.id == found.c.id)
    joined = reached.outerjoin(found, true()).outerjoin(row, of_found)
    return select(row, snapshot, reached.c.id.label("reached")).select_from(joined).order_by(row.id.desc())


def reference_not_found(param: str) -> SpineError:
    """Return the error for a reference to an unknown or foreign object. It is the same for both (W-01)."""
    return Unprocessable(f"{param} names nothing in this workspace", code="reference_not_found", param=param)
