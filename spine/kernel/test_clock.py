"""The test clock: brings the due and expiry times of one test workspace forward, and wakes the workers (conventions 2.13).

What is moved are the stored times themselves, each by the same amount; so every rule goes on comparing them with the
one clock there is. What happened keeps its time: only what is to come moves.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.kernel.errors import NotFound
from spine.kernel.events import EventType
from spine.kernel.resource import Body
from spine.kernel.routes import ApiRoute, CurrentUnit, declares

MAX_ADVANCE_S: Final = 366 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Timed:
    """A column that holds a time to come, or the start of an age that a rule judges."""

    table: str
    column: str
    where: str = "true"


TIMED: Final = (
    Timed("idempotency_keys", "expires_at", "status IS NOT NULL"),  # answered ones: the clock's own key stays good
    Timed("api_keys", "expires_at"),
    Timed("endpoint_secrets", "expires_at"),
    Timed("endpoint_health", "failing_since"),
    Timed("deliveries_open", "due_at", "leased_by IS NULL AND due_at < 'infinity'"),
    Timed("deliveries_open", "accepted_at", "state = 'held'"),
    Timed("replays", "due_at", "leased_by IS NULL"),
    Timed("messages", "deadline_at", "ended_at IS NULL"),
    Timed("messages", "send_at", "ended_at IS NULL"),
    Timed("messages", "held_until", "ended_at IS NULL"),
    Timed("attempts", "wait_until", "left_at IS NULL"),
    Timed("attempts", "retry_at", "left_at IS NULL"),
    Timed("sends_open", "due_at", "leased_by IS NULL"),  # after its message, the order in which everybody locks them
    Timed("sandbox_receipts", "due_at", "leased_by IS NULL"),
)
"""Every column that the clock moves; a test holds this against all columns of type timestamptz."""


class ClockBody(Body):
    advance_s: Annotated[float, Field(gt=0, le=MAX_ADVANCE_S)]


class ClockOut(BaseModel):
    """How far the clock was moved by this call."""

    object: str = "test_clock"
    advance_s: float


ADVANCED = EventType("test_clock.advanced", ClockOut, "The test clock of a test workspace was moved.")

router = APIRouter(prefix="/v1/test_helpers", tags=["test_helpers"], route_class=ApiRoute)


@router.post(
    "/clock",
    openapi_extra=declares("test_helpers:write", ADVANCED),
    summary="Move the test clock forward (test workspaces only)",
)
async def advance_clock(body: ClockBody, unit: CurrentUnit) -> ClockOut:
    if unit.caller.env != "test":
        raise NotFound("there is no such path")
    for timed in TIMED:
        moved = f"UPDATE spine.{timed.table} SET {timed.column} = {timed.column} - make_interval(secs => :s)"  # noqa: S608  # our own names
        await unit.session.execute(
            text(f"{moved} WHERE workspace_id = :ws AND {timed.column} IS NOT NULL AND {timed.where}"),
            {"ws": unit.workspace_id, "s": body.advance_s},
        )
    unit.after_commit(unit.platform.authenticator.clear_cache)
    for kind in ("deliver", "send"):
        unit.wake(kind)
    out = ClockOut(advance_s=body.advance_s)
    unit.emit(ADVANCED, out, sequence=1)
    return out
