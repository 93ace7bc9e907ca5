"""Accepting events: from a caller's POST to committed rows in one round trip, and 201 only after the commit.

The body that subscribers will get is made here, once. The answer is made of that body too, so that a replay of the
Idempotency-Key can render it again from the event, and an erased payload is gone from everywhere.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson
import structlog
from jsonschema.protocols import Validator

from spine import ids
from spine.bell import Bell
from spine.errors import Conflict, FieldError, SpineError, TooLarge, TooManyRequests, Unprocessable
from spine.events import Catalogue, NewEvent, event_body, timestamp
from spine.idempotency import KEEP, Claim, Stored, Turns, check, in_use
from spine.metrics import events_accepted, idempotent_replay, pool_acquire_seconds
from spine.settings import HttpSettings
from spine.tenancy import Caller
from spine.webhooks import schemas

_ACCEPT: Final = (
    "SELECT * FROM spine.events_accept($1, $2, $3, $4, $5, $6::smallint, $7, $8::text[], $9::text[], $10::bytea[])"
)
_TYPES_KEPT: Final = 10_000
_MAX_TRIES: Final = 5
_WATCH_EVERY_S: Final = 1.0

_log = structlog.get_logger("spine.accept")
_acquired: Final = pool_acquire_seconds("database").observe


@dataclass(frozen=True, slots=True)
class Incoming:
    """One event as a caller gave it."""

    type: str
    data: dict[str, Any]
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Types:
    """A workspace's registered types, as of a version that the database checks at each accept."""

    version: int
    archived: frozenset[str]
    schemas: dict[str, Validator]


class Accepting:
    """The way in for a caller's own events; knows the registered types of the workspaces it has met."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        bell: Bell,
        catalogue: Catalogue,
        turns: Turns,
        limits: HttpSettings,
    ) -> None:
        self._pool = pool
        self._bell = bell
        self._catalogue = catalogue
        self._turns = turns
        self._limits = limits
        self._backlog = 0
        self._types: dict[str, _Types] = {}
        self._last_sequence = 0

    async def accept(
        self, caller: Caller, request_id: str, claim: Claim, path: str, events: Sequence[Incoming], *, batch: bool
    ) -> tuple[Stored, bool]:
        """Commit the events and answer them, or answer a replay. Raises Conflict, TooLarge, TooManyRequests."""
        async with self._turns.turn(caller.workspace_id, claim.key):
            return await self._accept(caller, request_id, claim, path, events, batch)

    async def _accept(
        self, caller: Caller, request_id: str, claim: Claim, path: str, events: Sequence[Incoming], batch: bool
    ) -> tuple[Stored, bool]:
        made = [
            self._new(caller, request_id, event, f"events.{n}.data" if batch else "data")
            for n, event in enumerate(events)
        ]
        location = None if batch else f"{path}/{made[0].id}"
        for _ in range(_MAX_TRIES):
            types = await self._types_of(caller)
            try:
                self._judge(types, events, batch)
            except SpineError as error:
                return await self._refuse(caller, request_id, claim, error)
            start = time.perf_counter()
            async with self._pool.acquire() as connection:
                _acquired(time.perf_counter() - start)
                try:
                    row = await connection.fetchrow(
                        _ACCEPT, caller.workspace_id, types.version, claim.key, claim.fingerprint, KEEP, 201, location,
                        [event.id for event in made], [event.type for event in made], [event.body for event in made],
                    )  # fmt: skip
                except asyncpg.LockNotAvailableError as error:
                    raise in_use() from error
            if row is not None:
                return await self._answer(caller, claim, row, made, batch)
            del self._types[caller.workspace_id]  # somebody registered or archived a type meanwhile
        raise TooManyRequests(
            "the event types of this workspace change too fast", retry_after_s=1, code="event_types_changing"
        )

    def refuse_when_full(self) -> None:
        """Raises TooManyRequests `backlog_full` while too many events wait for the relay."""
        if self._backlog > self._limits.max_outbox:
            raise TooManyRequests(
                f"{self._backlog} events wait for their endpoints already", retry_after_s=2, code="backlog_full"
            )

    async def watch_backlog(self) -> None:
        """Keep an eye on the outbox, for ever: accepting answers 429 before anything falls over."""
        while True:
            try:
                self._backlog = await self._pool.fetchval("SELECT spine.outbox_depth()")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("backlog not read", error=repr(error))
            await asyncio.sleep(_WATCH_EVERY_S)

    def _new(self, caller: Caller, request_id: str, event: Incoming, param: str) -> NewEvent:
        data = orjson.dumps(event.data)
        if len(data) > self._limits.max_event_bytes:
            raise TooLarge(
                f"an event's data may have {self._limits.max_event_bytes} bytes; this has {len(data)}",
                code="event_too_large",
                param=param,
            )
        id = ids.mint(ids.PREFIXES["event"])
        # Microseconds, never twice the same in one process: later events of a caller have larger numbers, at no cost of a counter.
        self._last_sequence = max(self._last_sequence + 1, time.time_ns() // 1000)
        body = event_body(
            id=id,
            type=event.type,
            at=event.occurred_at or ids.created_at(id),
            workspace_id=caller.workspace_id,
            env=caller.env,
            request_id=request_id,
            actor=caller.actor,
            sequence=self._last_sequence,
            data=data,
        )
        return NewEvent(id, event.type, body)

    def _judge(self, types: _Types, events: Sequence[Incoming], batch: bool) -> None:
        schemas.begin()
        for n, event in enumerate(events):
            at = f"events.{n}." if batch else ""
            if self._catalogue.is_reserved(event.type):
                raise reserved(event.type, f"{at}type")
            if event.type in types.archived:
                raise Conflict(
                    f"the event type {event.type} is archived", code="event_type_archived", param=f"{at}type"
                )
            validator = types.schemas.get(event.type)
            if validator is not None:
                _fit(validator, event, at)

    async def _types_of(self, caller: Caller) -> _Types:
        known = self._types.get(caller.workspace_id)
        if known is None:
            if len(self._types) >= _TYPES_KEPT:
                self._types.clear()
            known = self._types[caller.workspace_id] = await self._load_types(caller.workspace_id)
        return known

    async def _load_types(self, workspace_id: str) -> _Types:
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            await connection.execute("SELECT set_config('app.ws', $1, true)", workspace_id)
            version = await connection.fetchval(
                "SELECT event_types_version FROM spine.workspaces WHERE workspace_id = $1", workspace_id
            )
            rows = await connection.fetch(
                "SELECT name, schema, status = 'archived' AS archived FROM spine.event_types WHERE workspace_id = $1",
                workspace_id,
            )
        return _Types(
            version=version,
            archived=frozenset(row["name"] for row in rows if row["archived"]),
            schemas={row["name"]: schemas.compiled(row["schema"]) for row in rows if row["schema"] is not None},
        )

    async def _answer(
        self, caller: Caller, claim: Claim, row: asyncpg.Record, made: list[NewEvent], batch: bool
    ) -> tuple[Stored, bool]:
        if row["claimed"]:
            self._bell.ring("relay")
            for event in made:
                events_accepted(event.type).inc()
            return Stored(201, render([event.body for event in made], batch), row["location"]), False
        check(row, claim)
        idempotent_replay()
        if row["event_ids"] is None:  # the first request was refused by a rule, and that was its result
            return Stored(row["status"], row["body"], None), True
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.ws', $1, true)", caller.workspace_id)
            rows = await connection.fetch(
                "SELECT id, type, body, erased_at FROM spine.events WHERE workspace_id = $1 AND id = ANY ($2::text[])",
                caller.workspace_id,
                row["event_ids"],
            )
        bodies = {found["id"]: body_of(found) for found in rows}
        return Stored(
            row["status"], render([bodies[id] for id in row["event_ids"] if id in bodies], batch), row["location"]
        ), True

    async def _refuse(self, caller: Caller, request_id: str, claim: Claim, error: SpineError) -> tuple[Stored, bool]:
        """Store a refusal as the key's result, unless the key has one already (ruling X17)."""
        async with self._pool.acquire() as connection, connection.transaction():
            try:
                row = await connection.fetchrow(
                    "SELECT * FROM spine.idempotency_claim($1, $2, $3, $4)",
                    caller.workspace_id,
                    claim.key,
                    claim.fingerprint,
                    KEEP,
                )
            except asyncpg.LockNotAvailableError as refused:
                raise in_use() from refused
            assert row is not None
            body = error.body(request_id)
            if row["claimed"]:
                await connection.execute(
                    "SELECT spine.unit_finish($1, $2::smallint, NULL, $3, false, '{}', '{}', '{}')",
                    claim.key,
                    error.status,
                    body,
                )
                return Stored(error.status, body, None), False
        return await self._answer(caller, claim, row, [], batch=row["location"] is None)


def reserved(name: str, param: str) -> Conflict:
    """The error for a name that belongs to the suite."""
    return Conflict(
        f"the family {name.partition('.')[0]}.* belongs to the suite; take another first word",
        code="event_type_reserved",
        param=param,
    )


def _fit(validator: Validator, event: Incoming, at: str) -> None:
    try:
        errors = schemas.faults(validator, event.data)
    except schemas.TooCostly as error:
        raise Unprocessable(
            f"checking {at}data against the schema of {event.type} takes too many steps",
            code="event_data_too_costly",
            param=f"{at}data",
        ) from error
    if errors:
        found = [
            FieldError(
                param=".".join([f"{at}data", *map(str, error.absolute_path)]),
                code=str(error.validator),
                detail=error.message[:500],
            )
            for error in errors
        ]
        raise Unprocessable(
            f"{found[0].param}: {found[0].detail}", code="event_data_invalid", param=found[0].param, errors=found
        )


def body_of(row: Any) -> bytes:
    """The event's body, or, when its payload was erased, what is left of it."""
    if row["body"] is not None:
        return bytes(row["body"])
    return orjson.dumps(
        {
            "id": row["id"],
            "type": row["type"],
            "timestamp": timestamp(ids.created_at(row["id"])),
            "data": None,
            "erased_at": timestamp(row["erased_at"]),
        }
    )


def shown(body: bytes) -> bytes:
    """An event as the API shows it: its body, with what every resource has in front."""
    id_at = body.index(b'"id":"') + 6
    created = timestamp(ids.created_at(body[id_at : body.index(b'"', id_at)].decode()))
    return b'{"object":"event","created_at":"' + created.encode() + b'",' + body[1:]


def render(bodies: list[bytes], batch: bool) -> bytes:
    """The answer to an accept: the event, or all of a batch's in `data`."""
    return b'{"data":[' + b",".join(map(shown, bodies)) + b"]}" if batch else shown(bodies[0])
