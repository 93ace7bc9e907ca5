"""Quotas: how many messages a workspace may send in a day or a month, and for how much money (N-10).

Counting is in the database, in the transactions that accept, send and end messages (revision 0016). An accepted message
takes one, also one that a product sends by itself. Each further attempt that a provider accepts for it takes one more. A
message that ends without having been sent gives its one back. Days and months are those of UTC.

The quota `spend` counts millionths of the workspace's currency: what the calls of accounts with a `unit_cost_micros` came
to (revision 0018). While it is used up no message is accepted, and no call of such an account is made; the calls that were
in flight are counted too, so that it may be overshot by theirs.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

from fastapi import Path
from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, SmallInteger, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from policies.quota_periods import Period, period_end
from spine.kernel import store
from spine.kernel.events import EventType
from spine.kernel.jobs import Job
from spine.kernel.resource import Body, Metadata, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

TELL: Final = "quota.tell"
"""The kind of the jobs that tell of a crossed threshold. Revision 0016 schedules them."""
Name = Literal["messages", "spend"]
_MAX_LIMIT: Final = 10**12
_COUNT: Final = text("SELECT spine.quota_add(:ws, :name, 0, false, NULL)")


class QuotaRow(TenantRow):
    __tablename__ = "quotas"
    name: Mapped[str]
    limit: Mapped[int] = mapped_column(BigInteger)
    period: Mapped[str]
    used: Mapped[int] = mapped_column(BigInteger, default=0)
    thresholds: Mapped[list[int]] = mapped_column(ARRAY(SmallInteger), default=[80, 100])
    told: Mapped[int] = mapped_column(SmallInteger, default=0)
    resets_at: Mapped[datetime]


class QuotaPut(Body):
    limit: int = Field(
        ge=1,
        le=_MAX_LIMIT,
        description="How many messages a period may have; of `spend`, how many millionths of your currency.",
    )
    period: Period
    metadata: Metadata = {}


class QuotaOut(ResourceOut):
    object: str = "quota"
    name: str
    limit: int
    period: Period
    used: int = Field(description="How many of the present period are used.")
    thresholds: list[int] = Field(
        description="Percentages of the limit that `quota.threshold` tells of, once a period."
    )
    resets_at: datetime = Field(description="When the present period ends, at the end of a day or month in UTC.")


class QuotaThreshold(BaseModel):
    """A threshold as it was crossed."""

    object: str = "quota"
    id: str
    name: Name
    threshold: Literal[80, 100]
    limit: int
    used: int
    period: Period
    resets_at: datetime


UPDATED = EventType("quota.updated", QuotaOut, "A quota was set.")
THRESHOLD = EventType(
    "quota.threshold", QuotaThreshold, "80 or 100 percent of a quota are used; once each in a period."
)
QUOTA = Resource(
    noun="quota",
    row=QuotaRow,
    create=QuotaPut,
    update=None,
    out=QuotaOut,
    scope="notifications",
    events=(UPDATED, THRESHOLD),
)

router = new_router("/notifications/v1/quotas", "quotas", QUOTA)


async def _row(unit: UnitOfWork, name: str, *, lock: bool = False) -> QuotaRow | None:
    query = select(QuotaRow).where(QuotaRow.workspace_id == unit.workspace_id, QuotaRow.name == name)
    row: QuotaRow | None = await unit.session.scalar(query.with_for_update() if lock else query)
    return row


def _in_force(row: QuotaRow, now: datetime) -> QuotaOut:
    """Return the quota as it is in the present period, which the next message begins."""
    out = QuotaOut.model_validate(row)
    if row.resets_at > now:
        return out
    return out.model_copy(update={"used": 0, "resets_at": period_end(now, out.period)})


@router.put(
    "/{name}",
    openapi_extra=declares("notifications:write", UPDATED),
    summary="Set how many messages a period may have, or what it may cost",
)
async def put_quota(
    name: Annotated[Name, Path()], body: QuotaPut, unit: CurrentUnit, if_match: IfMatch = None
) -> QuotaOut:
    """Another limit counts from now on, with what is used of the present period. Another period begins anew."""
    row = await _row(unit, name, lock=True)
    now = await unit.now()
    end = period_end(now, body.period)
    if row is None:
        row = await store.create(
            unit, QUOTA, name=name, limit=body.limit, period=body.period, resets_at=end, meta=body.metadata
        )
    else:
        values: dict[str, Any] = {"limit": body.limit, "period": body.period, "meta": body.metadata}
        if row.period != body.period:
            values |= {"used": 0, "told": 0, "resets_at": end}
        elif row.limit != body.limit:
            values["told"] = 0
        if not await store.change(unit, QUOTA, row, values, version_of(if_match)):
            return _in_force(row, now)
    await unit.session.flush()
    await unit.session.execute(_COUNT, {"ws": unit.workspace_id, "name": name})  # tells of what is crossed already
    await unit.session.refresh(row)
    out = QuotaOut.model_validate(row)
    unit.emit(UPDATED, out, sequence=row.version)
    return out


@router.get("/{name}", openapi_extra=declares("notifications:read"), summary="Read a quota, and what is used of it")
async def get_quota(name: str, unit: CurrentUnit) -> QuotaOut:
    row = await _row(unit, name) if name in get_args(Name) else None
    if row is None:
        raise store.not_found(QUOTA)
    return _in_force(row, await unit.now())


@router.get("", openapi_extra=declares("notifications:read"), summary="List quotas, newest first")
async def list_quotas(unit: CurrentUnit, paging: Paging) -> Page[QuotaOut]:
    now = await unit.now()
    return await store.page(unit, QUOTA, paging.cursor, paging.limit, out=lambda row: _in_force(row, now))


async def tell(unit: UnitOfWork, job: Job) -> None:
    """Emit `quota.threshold` for a crossing, as it was when it was counted."""
    name = await unit.session.scalar(select(QuotaRow.name).where(QuotaRow.id == job.args["id"]))
    if name is not None:
        unit.emit(THRESHOLD, QuotaThreshold(name=name, **job.args), sequence=1)
