"""The test clock: moves the due and expiry times of one test workspace, and wakes the workers (conventions 2.13).

It changes the stored times themselves, each by the same amount, so every rule still compares them with the real clock.
Only times in the future move. The times of past events stay.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.kernel.errors import NotFound
from spine.kernel.events import EventType
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.wakeups import RESOLUTION_MS, WakeupKind

MAX_ADVANCE_S: Final = 366 * 24 * 3600
_MAX_WAKEUPS: Final = 1000
"""Most wakeups of one kind after a move, the soonest ones. The sweep finds what is due after them."""
_MOVE: Final = f"""
    WITH moved AS (
        UPDATE spine.{{column.table}} SET {{column.name}} = {{column.name}} - make_interval(secs => :s)
         WHERE workspace_id = :ws AND {{column.name}} IS NOT NULL AND {{column.condition}} RETURNING {{column.name}} AS at
    )
    SELECT DISTINCT (ceil(extract(epoch FROM at) * 1000 / {RESOLUTION_MS}) * {RESOLUTION_MS} / 1000)::float8 AS due_s
      FROM moved WHERE at > now() AND at < now() + interval '4 hours' ORDER BY due_s LIMIT :most
"""  # noqa: S608  # our own names


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A column that holds a future time, or the start of a period that a rule measures. `condition` is SQL.

    `kind`: the wakeups of what is due at this time.
    """

    table: str
    name: str
    condition: str = "true"
    kind: WakeupKind | None = None


TIME_COLUMNS: Final = (
    TimeColumn(
        "idempotency_keys", "expires_at", "status IS NOT NULL"
    ),  # only keys with a response: the clock's own key stays valid
    TimeColumn("api_keys", "expires_at"),
    TimeColumn("endpoint_secrets", "expires_at"),
    TimeColumn("endpoint_health", "failing_since"),
    TimeColumn("deliveries_open", "due_at", "leased_by IS NULL AND due_at < 'infinity'", "deliver"),
    TimeColumn("deliveries_open", "accepted_at", "state = 'held'"),
    TimeColumn("endpoint_transitions", "due_at"),
    TimeColumn("replays", "due_at", "leased_by IS NULL"),
    TimeColumn("messages", "deadline_at", "ended_at IS NULL"),
    TimeColumn("messages", "send_at", "ended_at IS NULL"),
    TimeColumn("messages", "held_until", "ended_at IS NULL"),
    TimeColumn("attempts", "wait_until", "left_at IS NULL"),
    TimeColumn("attempts", "retry_at", "left_at IS NULL"),
    # After `messages`: every transaction locks in this order.
    TimeColumn("sends_open", "due_at", "leased_by IS NULL", "send"),
    TimeColumn("sandbox_receipts", "due_at", "leased_by IS NULL", "send"),
    TimeColumn("call_sessions", "expires_at", "status = 'open'"),
    TimeColumn("jobs", "due_at", kind="job"),
    TimeColumn("quotas", "resets_at"),
    TimeColumn("provider_breakers", "opened_until"),
    TimeColumn("provider_breakers", "probe_until"),
    TimeColumn("provider_breakers", "forced_until"),
    TimeColumn("recipient_paces", "used_until"),
    TimeColumn("recipient_paces", "queued_until"),
    TimeColumn("tickets", "sla_running_since"),
    # After each other as a reschedule locks them.
    TimeColumn("waitlist_entries", "offer_expires_at"),
    TimeColumn("appointments", "begins_at", "status = 'booked'"),
    TimeColumn("slots", "bookable_until", "bookable_until > now()"),
)
"""Every column that the clock moves. A test compares this list with all columns of type timestamptz."""


class ClockBody(Body):
    advance_s: Annotated[float, Field(gt=0, le=MAX_ADVANCE_S)]


class ClockOut(BaseModel):
    """How far the clock was moved by this call."""

    object: str = "test_clock"
    advance_s: float


ADVANCED = EventType("test_clock.advanced", ClockOut, "The test clock of a test workspace was moved.")

router = new_router("/v1/test_helpers", "test_helpers")


@router.post(
    "/clock",
    openapi_extra=declares("test_helpers:write", ADVANCED),
    summary="Move the test clock forward (test workspaces only)",
)
async def advance_clock(body: ClockBody, unit: CurrentUnit) -> ClockOut:
    if unit.caller.env != "test":
        raise NotFound("there is no such path")
    for column in TIME_COLUMNS:
        moved = await unit.session.execute(
            text(_MOVE.format(column=column)), {"ws": unit.workspace_id, "s": body.advance_s, "most": _MAX_WAKEUPS}
        )
        if column.kind is not None:
            due_times_s = [due_s for (due_s,) in moved]
            unit.after_commit(partial(unit.platform.wakeups.wake_at, column.kind, due_times_s))
    unit.after_commit(unit.platform.authenticator.clear_cache)
    for kind in ("deliver", "send", "job"):
        unit.wake(kind)
    out = ClockOut(advance_s=body.advance_s)
    unit.emit(ADVANCED, out, sequence=1)
    return out
