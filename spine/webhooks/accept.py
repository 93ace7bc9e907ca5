"""Accept events: from a caller's POST to committed rows in one round trip. The 201 is sent after the commit.

    registered types (cached) ─► check ─► one statement: claim + events + outbox rows, if the types' version still holds
                                   └─ a refusal is stored as the key's result

The body that subscribers receive is serialised here, once. The response contains that body. A replay of the
Idempotency-Key renders the response again from the stored event, so an erased payload is in no stored response either.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import orjson

from spine.kernel import ids
from spine.kernel.accept import AcceptRequest, render_batch
from spine.kernel.errors import SpineError, TooManyRequests
from spine.kernel.events import NewEvent, check_data_size, event_body, timestamp
from spine.kernel.idempotency import KEY_TTL, StoredResponse, require_replayable
from spine.kernel.metrics import events_accepted, idempotent_replay, pool_acquire_seconds
from spine.webhooks.registered_types import IncomingEvent, RegisteredTypesCache

_PATH: Final = "/v1/events"
_ACCEPT: Final = (
    "SELECT * FROM spine.events_accept($1, $2, $3, $4, $5, $6::smallint, $7, $8::text[], $9::text[], $10::bytea[])"
)
_MAX_TRIES: Final = 5
_acquired: Final = pool_acquire_seconds("database").observe


class EventIntake:
    """Accepts events for one process: caches registered types and hands out rising sequence numbers."""

    def __init__(self) -> None:
        self._types = RegisteredTypesCache()
        self._last_sequence = 0

    async def accept(
        self, request: AcceptRequest, events: Sequence[IncomingEvent], *, batch: bool
    ) -> tuple[StoredResponse, bool]:
        """Commit the events; return the response and whether it is a replay of an earlier one.

        Raises Conflict, TooLarge, TooManyRequests.
        """
        async with request.hold_key():
            return await self._accept(request, events, batch)

    async def _accept(
        self, request: AcceptRequest, events: Sequence[IncomingEvent], batch: bool
    ) -> tuple[StoredResponse, bool]:
        caller, claim, pool = request.caller, request.claim, request.platform.pool
        created = [self._new(request, event, f"events.{n}.data" if batch else "data") for n, event in enumerate(events)]
        location = None if batch else f"{_PATH}/{created[0].id}"
        for _ in range(_MAX_TRIES):
            types = await self._types.get(pool, caller.workspace_id)
            try:
                await types.check(request.platform.catalogue, events, batch=batch)
            except SpineError as error:
                refused = await request.store_refusal(error)
                if isinstance(refused, StoredResponse):
                    return refused, False
                return await _replay(request, refused)
            start = time.perf_counter()
            async with pool.acquire() as connection:
                _acquired(time.perf_counter() - start)
                row = await connection.fetchrow(
                    _ACCEPT, caller.workspace_id, types.version, claim.key, claim.fingerprint, KEY_TTL, 201, location,
                    [event.id for event in created], [event.type for event in created], [event.body for event in created],
                )  # fmt: skip
            if row is not None:
                break
            self._types.invalidate(caller.workspace_id)  # a type was registered or archived meanwhile
        else:
            raise TooManyRequests(
                "the event types of this workspace change too fast", retry_after_s=1, code="event_types_changing"
            )
        if not row["claimed"]:
            return await _replay(request, row)
        request.platform.wakeups.wake("relay")
        for event in created:
            events_accepted(event.type).inc()
        body = render_batch([event_json(event.body) for event in created], batch=batch)
        return StoredResponse(201, body, row["location"]), False

    def _new(self, request: AcceptRequest, event: IncomingEvent, param: str) -> NewEvent:
        data = orjson.dumps(event.data)
        check_data_size(event.type, data, request.platform.http.max_event_bytes, param)
        id = ids.mint(ids.PREFIXES["event"])
        # Microseconds, unique in this process: later events of a caller get larger numbers, and no counter is stored.
        self._last_sequence = max(self._last_sequence + 1, time.time_ns() // 1000)
        body = event_body(
            id=id,
            type=event.type,
            at=event.occurred_at or ids.created_at(id),
            workspace_id=request.caller.workspace_id,
            env=request.caller.env,
            request_id=request.request_id,
            actor=request.caller.actor,
            sequence=self._last_sequence,
            data=data,
        )
        return NewEvent(id, event.type, body)


async def _replay(request: AcceptRequest, row: asyncpg.Record) -> tuple[StoredResponse, bool]:
    """Return the response to a used key: the stored refusal, or the events in their present state."""
    require_replayable(row, request.claim)
    idempotent_replay()
    event_ids = row["event_ids"]
    if event_ids is None:  # the first request was refused, and the refusal was its result
        return StoredResponse(row["status"], row["body"], None), True
    async with request.platform.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.ws', $1, true)", request.caller.workspace_id)
        rows = await connection.fetch(
            "SELECT id, type, body, erased_at FROM spine.events WHERE workspace_id = $1 AND id = ANY ($2::text[])",
            request.caller.workspace_id,
            event_ids,
        )
    bodies = {found["id"]: event_json(stored_body(found)) for found in rows}
    body = render_batch([bodies[id] for id in event_ids if id in bodies], batch=row["location"] is None)
    return StoredResponse(row["status"], body, row["location"]), True


def stored_body(row: Any) -> bytes:
    """Return the event's body as it is signed. If the payload was erased, the body has null data."""
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


def event_json(body: bytes) -> bytes:
    """Return the event as the API shows it: `object` and `created_at` before the fields of its body."""
    id_at = body.index(b'"id":"') + 6
    created = timestamp(ids.created_at(body[id_at : body.index(b'"', id_at)].decode()))
    return b'{"object":"event","created_at":"' + created.encode() + b'",' + body[1:]
