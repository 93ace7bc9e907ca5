"""Accepting messages: one look at what they name, a verdict on each, and one round trip that commits them all.

lookup ─► plan each (or refuse, and the refusal is the key's result) ─► claim + messages + timeline + queue + events
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import asyncpg

from spine.errors import SpineError
from spine.idempotency import KEEP, Claim, Stored, check, in_use
from spine.messages.drafts import Author, draft
from spine.messages.rendering import Templates
from spine.messages.strategy import Known, MessageCreate, Plan, plan, recipient
from spine.metrics import idempotent_replay, messages_accepted
from spine.platform import Platform
from spine.tenancy import Caller

PATH: Final = "/notifications/v1/messages"
_LOOKUP: Final = "SELECT spine.messages_lookup($1, $2::text[], $3::text[], $4::text[], $5::text[])"
_ACCEPT: Final = "SELECT * FROM spine.messages_accept($1, $2, $3, $4, 201::smallint, $5, $6, $7, $8, $9::text[], $10::text[], $11::bytea[])"
_CLAIM: Final = "SELECT * FROM spine.idempotency_claim($1, $2, $3, $4)"
_REFUSE: Final = "SELECT spine.unit_finish($1, $2::smallint, NULL, $3, false, '{}', '{}', '{}')"

_PARSED: Final = Templates()
"""Templates that this process has parsed; they never change."""


async def accept(
    platform: Platform, caller: Caller, request_id: str, claim: Claim, requests: Sequence[MessageCreate], *, batch: bool
) -> tuple[Stored, bool]:
    """Commit the messages and answer them, or answer a replay. Raises Conflict; refusals are answers."""
    async with platform.turns.turn(caller.workspace_id, claim.key):
        try:
            plans = await planned(platform, caller, requests, batch=batch)
        except SpineError as error:
            return await _refuse(platform, caller, request_id, claim, error)
        author = Author(caller.workspace_id, caller.env, caller.actor, request_id)
        made = [draft(author, request, one) for request, one in zip(requests, plans, strict=True)]
        answers = [one.answer for one in made]
        body = b'{"data":[' + b",".join(answers) + b"]}" if batch else answers[0]
        location = None if batch else f"{PATH}/{made[0].row['id']}"
        try:
            row = await platform.pool.fetchrow(
                _ACCEPT, caller.workspace_id, claim.key, claim.fingerprint, KEEP, location, body,
                [one.row for one in made], [one.entry for one in made],
                [one.event.id for one in made], [one.event.type for one in made], [one.event.body for one in made],
            )  # fmt: skip
        except asyncpg.LockNotAvailableError as error:
            raise in_use() from error
    assert row is not None
    if not row["claimed"]:
        return _replayed(row, claim)
    platform.bell.ring("relay")
    platform.bell.ring("send")
    messages_accepted("notifications").inc(len(made))
    return Stored(201, body, location), False


async def planned(
    platform: Platform, caller: Caller, requests: Sequence[MessageCreate], *, batch: bool = False
) -> list[Plan]:
    """What each of these would do. Raises Unprocessable for the first that cannot be sent."""
    addressed: list[tuple[str | None, str | None]] = []
    for n, request in enumerate(requests):
        with _numbered(n, batch):
            addressed.append(recipient(request.to))
    known = await _lookup(platform, caller, requests, addressed)
    found: list[Plan] = []
    now = datetime.now(UTC)
    for n, request in enumerate(requests):
        with _numbered(n, batch):
            found.append(plan(request, known, _PARSED, caller.env, now))
    return found


async def _lookup(
    platform: Platform,
    caller: Caller,
    requests: Sequence[MessageCreate],
    addressed: Sequence[tuple[str | None, str | None]],
) -> Known:
    found = await platform.pool.fetchval(
        _LOOKUP,
        caller.workspace_id,
        list({request.contact_id for request in requests if request.contact_id is not None}),
        list({phone for phone, _ in addressed if phone is not None}),
        list({email for _, email in addressed if email is not None}),
        list({request.template for request in requests}),
    )
    return Known(**found)


async def _refuse(
    platform: Platform, caller: Caller, request_id: str, claim: Claim, error: SpineError
) -> tuple[Stored, bool]:
    """Store a refusal as the key's result, unless the key has one already (ruling X17)."""
    try:
        async with platform.pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(_CLAIM, caller.workspace_id, claim.key, claim.fingerprint, KEEP)
            assert row is not None
            if row["claimed"]:
                body = error.body(request_id)
                await connection.execute(_REFUSE, claim.key, error.status, body)
                return Stored(error.status, body, None), False
    except asyncpg.LockNotAvailableError as locked:
        raise in_use() from locked
    return _replayed(row, claim)


def _replayed(row: asyncpg.Record, claim: Claim) -> tuple[Stored, bool]:
    check(row, claim)
    idempotent_replay()
    return Stored(row["status"], row["body"], row["location"]), True


@contextmanager
def _numbered(n: int, batch: bool) -> Iterator[None]:
    """Have an error name which message of a batch it is about."""
    try:
        yield
    except SpineError as error:
        if batch:
            at = f"messages.{n}"
            error.param = f"{at}.{error.param}" if error.param else at
            error.detail = f"{at}: {error.detail}"
            for one in error.errors or ():
                one.param = f"{at}.{one.param}"
        raise
