"""Circuit breakers of provider accounts in the database: one row that all workers share (N-04, N-09).

Workers read the rows with the accounts, in the transaction that decides, and report their calls in batches. The row is
locked while it changes, so each opening has one event however many workers saw it coming.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel, Field
from sqlalchemy import text

from policies.breaker import Breaker, Bucket
from spine.kernel.events import EventType
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.locked_messages import Connection

AccountKey = tuple[str, str]
"""(workspace id, account id)."""

_PUT: Final = """
    INSERT INTO spine.provider_breakers (workspace_id, account_id)
    SELECT a.workspace_id, a.id FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.provider_accounts a ON a.workspace_id = u.workspace_id AND a.id = u.id
     ORDER BY a.workspace_id, a.id ON CONFLICT DO NOTHING
"""
_LOCK: Final = """
    SELECT b.*, a.name, a.channel, a.kind, w.env, clock_timestamp() AS now FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.provider_breakers b ON b.workspace_id = u.workspace_id AND b.account_id = u.id
      JOIN spine.provider_accounts a ON a.workspace_id = b.workspace_id AND a.id = b.account_id
      JOIN spine.workspaces w ON w.workspace_id = b.workspace_id
     ORDER BY b.workspace_id, b.account_id FOR UPDATE OF b
"""
_WRITE: Final = """
    UPDATE spine.provider_breakers b
       SET state = u.state, generation = u.generation, opened_until = u.opened_until, reason = u.reason, openings = u.openings,
           successes = u.successes, connect_failures = u.connect_failures, calls = u.calls,
           probe_until = CASE WHEN (b.generation, b.successes) = (u.generation, u.successes) THEN b.probe_until END
      FROM jsonb_populate_recordset(NULL::spine.provider_breakers, $1) u
     WHERE b.workspace_id = u.workspace_id AND b.account_id = u.account_id
"""
CLOSE: Final = """
    state = 'closed', generation = b.generation + 1, opened_until = NULL, reason = NULL, openings = 0, successes = 0,
    connect_failures = 0, calls = '[]', probe_until = NULL
"""
"""The columns of a closed breaker `b` that forgets the calls before."""
_READ: Final = text(
    "SELECT *, now() AS now FROM spine.provider_breakers WHERE workspace_id = :ws AND account_id = ANY (cast(:ids AS text[]))"
)
_END_MISCONFIGURED: Final = text(
    f"UPDATE spine.provider_breakers b SET {CLOSE} WHERE workspace_id = :ws AND account_id = :id AND state = 'misconfigured' "  # noqa: S608  # CLOSE is a constant
    "RETURNING generation"
)


class BreakerOut(BaseModel):
    """Whether an account is called."""

    state: Literal["closed", "open", "half_open", "misconfigured", "forced_open", "forced_closed"] = "closed"
    opened_until: datetime | None = Field(default=None, description="When it is tried again, or the order ends.")
    reason: str | None = None
    degraded_until: datetime | None = Field(
        default=None, description="Until when it gets a smaller share of the messages, because deliveries are missing."
    )


class Circuit(BaseModel):
    """The breaker of a provider account at a change of its state."""

    object: str = "provider_account"
    id: str
    name: str
    channel: str
    kind: str
    breaker: BreakerOut


OPENED = EventType("provider.circuit_opened", Circuit, "A provider account is not called for a while; others are.")
CLOSED = EventType("provider.circuit_closed", Circuit, "A provider account is called again.")


def circuit(account: Any, breaker: BreakerOut) -> Circuit:
    """Return the breaker of an account as events have it."""
    return Circuit(id=account.id, name=account.name, channel=account.channel, kind=account.kind, breaker=breaker)


def breaker_of(row: Mapping[str, Any]) -> Breaker:
    """Return the state in a row of `spine.provider_breakers`."""
    calls = row["calls"] if isinstance(row["calls"], list) else orjson.loads(row["calls"])
    return Breaker(
        row["state"], row["generation"], row["opened_until"], row["reason"], row["openings"], row["successes"],
        row["connect_failures"], tuple(Bucket(*values) for values in calls),
    )  # fmt: skip


def to_row(key: AccountKey, breaker: Breaker) -> dict[str, Any]:
    """Return a breaker as its columns."""
    return {
        "workspace_id": key[0], "account_id": key[1], "state": breaker.state, "generation": breaker.generation,
        "opened_until": breaker.opened_until, "reason": breaker.reason, "openings": breaker.openings,
        "successes": breaker.successes, "connect_failures": breaker.connect_failures,
        "calls": [[one.second, one.calls, one.failures, one.slow] for one in breaker.window],
    }  # fmt: skip


def order_in_force(row: Mapping[str, Any], now: datetime) -> str | None:
    """Return the operator's order (`open` or `closed`) that decides instead of the breaker now; None if there is none."""
    order: str | None = row["forced"]
    return order if order is not None and row["forced_until"] > now else None


def shown(row: Mapping[str, Any], now: datetime) -> BreakerOut:
    """Return the breaker as callers see it: an operator's order first, while it is in force."""
    worse = row["degraded_until"] if row["degraded_until"] is not None and row["degraded_until"] > now else None
    if order_in_force(row, now) is not None:
        state = f"forced_{row['forced']}"
        return BreakerOut(state=state, opened_until=row["forced_until"], reason=row["reason"], degraded_until=worse)
    reason = row["reason"] if row["state"] != "closed" else None  # of an order that has ended
    return BreakerOut(state=row["state"], opened_until=row["opened_until"], reason=reason, degraded_until=worse)


def change_event(row: Mapping[str, Any], old: Breaker, new: Breaker) -> tuple[EventType, Circuit] | None:
    """Return the event of a change of state; None for a change that nobody is told of."""
    is_open, was_open = (one.state in {"open", "misconfigured"} for one in (new, old))
    if new.generation == old.generation or (new.state, old.state) == ("open", "half_open"):
        return None  # a probe that failed prolongs the opening that was told of
    if not is_open and new.state != "closed":
        return None
    if is_open and was_open and old.state == new.state:
        return None
    view = BreakerOut(state=new.state, opened_until=new.opened_until, reason=new.reason)
    data = Circuit(id=row["account_id"], name=row["name"], channel=row["channel"], kind=row["kind"], breaker=view)
    return (OPENED if is_open else CLOSED), data


async def lock_breakers(connection: Connection, keys: Sequence[AccountKey]) -> list[Any]:
    """Lock the rows of these accounts, made where there are none, in one order. Unknown accounts are left out."""
    columns = [workspace_id for workspace_id, _ in keys], [id for _, id in keys]
    await connection.execute(_PUT, *columns)
    return list(await connection.fetch(_LOCK, *columns))


async def write_breakers(connection: Connection, breakers: Mapping[AccountKey, Breaker]) -> None:
    """Write locked breakers, in the running transaction. A probe that was given out is over if one has ended."""
    await connection.execute(_WRITE, [to_row(key, breaker) for key, breaker in breakers.items()])


async def read_breakers(unit: UnitOfWork, account_ids: Sequence[str]) -> dict[str, BreakerOut]:
    """Return the breakers of these accounts of the unit's workspace by the account's id. One that never failed is absent."""
    rows = await unit.session.execute(_READ, {"ws": unit.workspace_id, "ids": list(account_ids)})
    return {row["account_id"]: shown(dict(row), row["now"]) for row in rows.mappings()}


async def end_misconfigured(unit: UnitOfWork, account: Any) -> None:
    """Call a misconfigured account again, because its credentials or its config were changed. Emits `provider.circuit_closed`."""
    generation = await unit.session.scalar(_END_MISCONFIGURED, {"ws": unit.workspace_id, "id": account.id})
    if generation is not None:
        unit.emit(CLOSED, circuit(account, BreakerOut()), sequence=generation)
        unit.wake("send")


def not_before(row: Mapping[str, Any], now: datetime, recheck_s: float) -> datetime | None:
    """Return until when an account must not be called by a message without a probe; None if it may be called.

    `row` is an account with the columns of its breaker. A breaker that is half open or misconfigured is looked at again
    after `recheck_s`.
    """
    order = order_in_force(row, now)
    if order is not None:
        until: datetime = row["forced_until"]
        return until if order == "open" else None
    if row["breaker"] in {None, "closed"}:
        return None
    soon = now + timedelta(seconds=recheck_s)
    return max(row["opened_until"], soon) if row["breaker"] == "open" else soon


def may_probe(row: Mapping[str, Any], now: datetime) -> bool:
    """True if an account's breaker waits for a probe that nobody makes."""
    if order_in_force(row, now) is not None:
        return False
    if row["breaker"] == "open":
        return bool(row["opened_until"] <= now)
    return row["breaker"] == "half_open" and (row["probe_until"] is None or row["probe_until"] <= now)
