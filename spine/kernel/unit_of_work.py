"""The unit of work: one transaction per request, with its idempotency claim, its events and its stored response.

    claim the key ─► savepoint ─► work ─► events + response ─► commit ─► send the wakeups
                        └─ a domain error rolls back to here; its response is stored too (ruling X17)

The transaction sets one workspace, and the database's row-level security hides all others.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Any, Final

import structlog
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from spine.kernel import ids
from spine.kernel.authentication import Caller
from spine.kernel.database_errors import LOCK_TIMEOUT, RETRYABLE, sqlstate
from spine.kernel.errors import SpineError
from spine.kernel.events import Actor, EventType, NewEvent, check_data_size, event_body
from spine.kernel.idempotency import KEY_TTL, Claim, StoredResponse, in_use, replay, response_place
from spine.kernel.metrics import idempotent_replay
from spine.kernel.platform import Platform
from spine.kernel.wakeups import WakeupKind

_CLAIM: Final = text("SELECT * FROM spine.idempotency_claim(:ws, :key, :fingerprint, :keep)")
_IS_ANSWERED: Final = text(
    "SELECT EXISTS (SELECT FROM spine.idempotency_keys "
    "WHERE workspace_id = :ws AND key = :key AND status IS NOT NULL AND expires_at > now())"
)
_SET_WORKSPACE: Final = text("SELECT set_config('app.ws', :ws, true)")
_BEGIN_READ: Final = text("SELECT set_config('app.ws', :ws, true), set_config('statement_timeout', :timeout, true)")
_NOW: Final = text("SELECT now()")
_CONSUME: Final = text(
    "INSERT INTO spine.jobs (workspace_id, kind, subject_id, due_at) SELECT current_setting('app.ws'), kind, event_id, now() "
    "FROM unnest(cast(:kinds AS text[]), cast(:event_ids AS text[])) AS c (kind, event_id)"
)
_FINISH: Final = text(
    "SELECT spine.unit_finish(:key, cast(:status AS smallint), :location, :body, :sealed, "
    "cast(:ids AS text[]), cast(:types AS text[]), cast(:bodies AS bytea[]))"
)
_log = structlog.get_logger(__name__)


class UnitOfWork:
    """One request's transaction in one workspace. Handlers use `session`, `emit` and `wake`; the route calls the rest."""

    session: AsyncSession
    prepared: Any = None
    """The result of the handler's preparation (`spine.kernel.handlers.prepared_by`)."""

    def __init__(self, platform: Platform, caller: Caller, request_id: str, path: str, claim: Claim | None) -> None:
        self.platform = platform
        self.caller = caller
        self.request_id = request_id
        self.path = path
        self.claim = claim
        self._events: list[NewEvent] = []
        self._wakeups: set[WakeupKind] = set()
        self._after_commit: list[Callable[[], None]] = []

    @property
    def workspace_id(self) -> str:
        """The only workspace that this unit sees."""
        return self.caller.workspace_id

    def emit(
        self, type: EventType, data: BaseModel, *, sequence: int, actor: Actor | None = None, at: datetime | None = None
    ) -> str:
        """Insert an event in this transaction and return its id. It is delivered if, and only if, the transaction commits.

        Raises ValueError if the type is not in the catalogue, TooLarge for more data than an event may have.
        """
        if type.name not in self.platform.catalogue.types:
            raise ValueError(f"event type {type.name} is not in the catalogue")
        serialised = data.model_dump_json(by_alias=True).encode()
        check_data_size(type.name, serialised, self.platform.http.max_event_bytes)
        id = ids.mint(ids.PREFIXES["event"])
        body = event_body(
            id=id,
            type=type.name,
            at=at or ids.created_at(id),
            workspace_id=self.workspace_id,
            env=self.caller.env,
            request_id=self.request_id,
            actor=actor or self.caller.actor,
            sequence=sequence,
            data=serialised,
        )
        self._events.append(NewEvent(id, type.name, body))
        self._wakeups.add("relay")
        return id

    async def now(self) -> datetime:
        """Return the transaction's time, by the database's clock."""
        now: datetime = await self.session.scalar(_NOW)
        return now

    def wake(self, kind: WakeupKind) -> None:
        """Send a wakeup of this kind after the commit."""
        self._wakeups.add(kind)

    def after_commit(self, act: Callable[[], None]) -> None:
        """Call `act` after the commit."""
        self._after_commit.append(act)

    async def read(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run a read-only handler and return its result. Raises TooManyRequests `too_many_reads`."""
        limits = self.platform.read_limits
        async with (
            limits.hold(self.workspace_id),
            AsyncSession(self.platform.engine, expire_on_commit=False, autoflush=False) as self.session,
        ):
            await self.session.execute(
                _BEGIN_READ, {"ws": self.workspace_id, "timeout": f"{int(limits.timeout_s * 1000)}ms"}
            )
            return await work()

    async def write(
        self,
        work: Callable[[], Awaitable[Any]],
        render: Callable[[Any], StoredResponse],
        *,
        sealed: bool = False,
        prepare: Callable[[], Awaitable[Any]] | None = None,
    ) -> tuple[StoredResponse, bool]:
        """Run a mutating handler under its claim. Returns the response, and True if it is a replay.

        `prepared` is set to the result of `prepare`, which runs before the transaction opens, and not for a replay. Two
        first requests with one key in two processes at the same time both prepare; one of them then is the replay.
        """
        async with self._key_lock():
            if prepare is not None and not await self._is_answered():
                self.prepared = await prepare()
            stored, replayed = await self._transaction_with_retry(work, render, sealed)
        if not replayed:
            for kind in self._wakeups:
                self.platform.wakeups.wake(kind)
            for act in self._after_commit:
                act()
        return stored, replayed

    def _key_lock(self) -> AbstractAsyncContextManager[None]:
        """Let one request of the claim's key run at a time in this process."""
        if self.claim is None:
            return nullcontext()
        return self.platform.key_locks.hold(self.workspace_id, self.claim.key)

    async def _is_answered(self) -> bool:
        """Whether the claim's key has a stored response."""
        if self.claim is None:
            return False
        async with AsyncSession(self.platform.engine) as session, session.begin():
            await session.execute(_SET_WORKSPACE, {"ws": self.workspace_id})
            return bool(await session.scalar(_IS_ANSWERED, {"ws": self.workspace_id, "key": self.claim.key}))

    async def _transaction_with_retry(
        self, work: Callable[[], Awaitable[Any]], render: Callable[[Any], StoredResponse], sealed: bool
    ) -> tuple[StoredResponse, bool]:
        try:
            return await self._transaction(work, render, sealed)
        except DBAPIError as error:
            if sqlstate(error) not in RETRYABLE:
                raise
            _log.info("transaction retried", sqlstate=sqlstate(error))
            return await self._transaction(work, render, sealed)

    async def _transaction(
        self, work: Callable[[], Awaitable[Any]], render: Callable[[Any], StoredResponse], sealed: bool
    ) -> tuple[StoredResponse, bool]:
        self._events, self._wakeups, self._after_commit = [], set(), []
        async with (
            AsyncSession(self.platform.engine, expire_on_commit=False, autoflush=False) as self.session,
            self.session.begin(),
        ):
            earlier = await self._claim()
            if earlier is not None:
                idempotent_replay()
                return earlier, True
            try:
                async with self.session.begin_nested():
                    result = await work()
                    await self.session.flush()
                    stored = render(result)
            except SpineError as error:
                if self.claim is None or not error.is_result:
                    raise
                self._events, self._wakeups, self._after_commit, sealed = [], set(), [], False
                stored = StoredResponse(error.status, error.body(self.request_id), None)
            await self._finish(stored, sealed)
        return stored, False

    async def _claim(self) -> StoredResponse | None:
        claim = self.claim
        if claim is None:
            await self.session.execute(_SET_WORKSPACE, {"ws": self.workspace_id})
            return None
        try:
            found = await self.session.execute(
                _CLAIM, {"ws": self.workspace_id, "key": claim.key, "fingerprint": claim.fingerprint, "keep": KEY_TTL}
            )
        except DBAPIError as error:
            if sqlstate(error) == LOCK_TIMEOUT:
                raise in_use() from error
            raise
        row = found.mappings().one()
        return None if row["claimed"] else replay(row, self.workspace_id, claim, self.platform.vault)

    async def _finish(self, stored: StoredResponse, sealed: bool) -> None:
        if self.claim is None and not self._events:
            return
        await self._schedule_consumers()
        await self.session.execute(
            _FINISH,
            {
                "key": self.claim.key if self.claim else None,
                "status": stored.status,
                "location": stored.location,
                "body": self._seal(stored.body) if sealed else stored.body,
                "sealed": sealed,
                "ids": [event.id for event in self._events],
                "types": [event.type for event in self._events],
                "bodies": [event.body for event in self._events],
            },
        )

    async def _schedule_consumers(self) -> None:
        """Schedule a job for each consumer of each event of this transaction (`spine.kernel.jobs`)."""
        consumers = self.platform.catalogue.consumers
        found = [(kind, event.id) for event in self._events for kind in consumers.get(event.type, ())]
        if found:
            kinds, event_ids = zip(*found, strict=True)
            await self.session.execute(_CONSUME, {"kinds": list(kinds), "event_ids": list(event_ids)})
            self._wakeups.add("job")

    def _seal(self, body: bytes) -> bytes:
        assert self.claim is not None  # a route whose response is sealed requires an Idempotency-Key
        return self.platform.vault.seal(body, response_place(self.workspace_id, self.claim.key))
