"""Replays: many deliveries opened again at once, counted before the start, with progress, pause and a rate (promise 5).

This module creates and controls replays. The workers run them batch by batch (`workers.webhooks.replay`).
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, Field, computed_field
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import BigInteger, Double, Text

from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import IllegalTransition, NotFound
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Out, Resource, ResourceOut, TenantRow, Timestamp
from spine.kernel.routes import CurrentUnit, declares
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.endpoint_models import Rate
from spine.webhooks.endpoint_store import find_endpoint
from spine.webhooks.patterns import Pattern
from spine.webhooks.replay_walk import Counted, Fetch, count_closed

MAX_ID: Final = "~"
"""Sorts after every id."""
_COUNT_WINDOW: Final = 10_000
_COUNT_WINDOWS: Final = 10
"""Windows that a request counts. The workers count the rest before the replay starts."""


class ReplayStatus(StrEnum):
    """A running replay can be paused and resumed; a paused or running one can be cancelled."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


class ReplayRow(TenantRow):
    __tablename__ = "replays"
    kind: Mapped[str] = mapped_column(Text)
    filter: Mapped[dict[str, Any]] = mapped_column(JSONB)
    rate_per_s: Mapped[float | None] = mapped_column(Double)
    status: Mapped[str] = mapped_column(Text, default=ReplayStatus.RUNNING)
    total: Mapped[int] = mapped_column(BigInteger)
    started: Mapped[int] = mapped_column(BigInteger, default=0)
    done: Mapped[int] = mapped_column(BigInteger, default=0)
    failed: Mapped[int] = mapped_column(BigInteger, default=0)
    position: Mapped[str] = mapped_column(default="")
    upto: Mapped[str]
    due_at: Mapped[datetime | None]
    leased_by: Mapped[str | None]
    count_position: Mapped[str | None]
    failures: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)


class ReplayFilter(Body):
    """Which deliveries; all that are given must hold."""

    endpoint_id: Annotated[str | None, Field(max_length=64)] = None
    types: Annotated[list[Pattern], Field(max_length=50)] | None = None
    since: Timestamp | None = Field(default=None, description="Events accepted at this time or later.")
    until: Timestamp | None = Field(default=None, description="Events accepted before this time.")
    status: Literal["dead", "delivered"] = "dead"


class ReplayCreate(Body):
    filter: ReplayFilter
    dry_run: bool = Field(default=False, description="Only count.")
    rate_per_s: Rate | None = None


class Progress(BaseModel):
    """How far a replay is: of `total`, `done` were delivered and `failed` died again."""

    total: int
    done: int
    failed: int


class ReplayOut(ResourceOut):
    object: str = "replay"
    kind: Literal["closed", "missing"] = Field(
        description="`closed` puts ended deliveries back; `missing` makes those that never were."
    )
    filter: dict[str, Any]
    rate_per_s: float | None
    status: ReplayStatus
    error: str | None = Field(
        description="What stopped the last step; null while it advances. The step is repeated by itself, at growing intervals."
    )
    total: int
    done: int = Field(exclude=True)
    failed: int = Field(exclude=True)
    count_position: str | None = Field(exclude=True)

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way of deriving a field
    @property
    def progress(self) -> Progress:
        """Of how many, how far."""
        return Progress(total=self.total, done=self.done, failed=self.failed)

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def counted(self) -> bool:
        """Whether `total` is final. A long history is counted in the background before the start."""
        return self.count_position is None


class CountOut(Out):
    """How many deliveries a replay would put back."""

    http_status: ClassVar[int] = 200
    total: int


class PartialCountOut(CountOut):
    """How many deliveries a replay would put back at least: the history is too long to count in one request."""

    at_least: Literal[True] = Field(
        default=True, description="`total` is not final. Narrow the filter, or start the replay: it counts itself."
    )


CREATED = EventType("replay.created", ReplayOut, "A replay was started.")
UPDATED = EventType("replay.updated", ReplayOut, "A replay was paused, resumed or cancelled.")
COMPLETED = EventType(
    "replay.completed", ReplayOut, "A replay reached its end: every delivery of it was delivered or died again."
)
REPLAY = Resource(
    noun="replay",
    row=ReplayRow,
    create=None,
    update=None,
    out=ReplayOut,
    scope="webhooks",
    events=(CREATED, UPDATED, COMPLETED),
    states={
        ReplayStatus.RUNNING: frozenset({ReplayStatus.PAUSED, ReplayStatus.CANCELLED}),
        ReplayStatus.PAUSED: frozenset({ReplayStatus.RUNNING, ReplayStatus.CANCELLED}),
        ReplayStatus.DONE: frozenset(),
        ReplayStatus.CANCELLED: frozenset(),
    },
)

router = crud_router(REPLAY, "", "get", "list")


def fetcher(unit: UnitOfWork) -> Fetch:
    """Return a function that runs a statement of the workers in this unit, so in its workspace."""

    async def fetch(query: str, *args: Any) -> Any:
        connection = await unit.session.connection()
        return (await connection.exec_driver_sql(query, args)).mappings().all()

    return fetch


async def count_first_windows(count: Callable[[str], Awaitable[Counted]]) -> Counted:
    """Count windows one after the other, a bounded number of them."""
    total, position = 0, ""
    for _ in range(_COUNT_WINDOWS):
        window = await count(position)
        total += window.matched
        if window.position is None:
            return Counted(total, None)
        position = window.position
    return Counted(total, position)


async def start_replay(
    unit: UnitOfWork, kind: str, filter: dict[str, Any], counted: Counted, rate_per_s: float | None
) -> ReplayOut:
    """Create a running replay with its event, and wake the workers after the commit."""
    row = await store.create(
        unit,
        REPLAY,
        kind=kind,
        filter=filter,
        total=counted.matched,
        count_position=counted.position,
        rate_per_s=rate_per_s,
        upto=MAX_ID,
        due_at=await unit.now(),
    )
    unit.wake("deliver")
    out: ReplayOut = await store.emit_event(unit, REPLAY, row, "created")
    return out


@router.post(
    "",
    status_code=201,
    response_model=ReplayOut,
    responses={200: {"model": CountOut | PartialCountOut, "description": "With dry_run: how many there would be."}},
    openapi_extra=declares("webhooks:write", CREATED),
    summary="Replay ended deliveries, or count them first",
)
async def create_replay(body: ReplayCreate, unit: CurrentUnit) -> ReplayOut | CountOut | PartialCountOut:
    filter = body.filter
    if filter.endpoint_id is not None:
        try:
            await find_endpoint(unit, filter.endpoint_id)
        except NotFound as error:
            raise store.reference_not_found("filter.endpoint_id") from error
    stored_filter = filter.model_dump(mode="json", exclude_none=True)
    fetch, before = fetcher(unit), await unit.now() + timedelta(minutes=1)
    counted = await count_first_windows(
        lambda position: count_closed(fetch, unit.workspace_id, stored_filter, position, before, _COUNT_WINDOW)
    )
    if body.dry_run:
        return (CountOut if counted.position is None else PartialCountOut)(total=counted.matched)
    return await start_replay(unit, "closed", stored_filter, counted, body.rate_per_s)


async def _transition(unit: UnitOfWork, id: str, to: ReplayStatus, **values: Any) -> ReplayOut:
    row = await store.transition(unit, REPLAY, id, to, **values)
    out: ReplayOut = await store.emit_event(unit, REPLAY, row, "updated")
    return out


@router.post("/{id}/pause", openapi_extra=declares("webhooks:write", UPDATED), summary="Pause a replay")
async def pause_replay(id: str, unit: CurrentUnit) -> ReplayOut:
    return await _transition(unit, id, ReplayStatus.PAUSED, due_at=None)


@router.post("/{id}/resume", openapi_extra=declares("webhooks:write", UPDATED), summary="Resume a paused replay")
async def resume_replay(id: str, unit: CurrentUnit) -> ReplayOut:
    unit.wake("deliver")
    row = await store.get(unit, REPLAY, id, lock=True)
    if row.status != ReplayStatus.PAUSED:
        raise IllegalTransition(f"it is {row.status}, not paused", allowed=sorted(REPLAY.states[row.status]))
    return await _transition(unit, id, ReplayStatus.RUNNING, due_at=await unit.now())


@router.post(
    "/{id}/cancel",
    openapi_extra=declares("webhooks:write", UPDATED),
    summary="Cancel a replay; what it put back already goes on",
)
async def cancel_replay(id: str, unit: CurrentUnit) -> ReplayOut:
    return await _transition(unit, id, ReplayStatus.CANCELLED, due_at=None)
