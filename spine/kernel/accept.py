"""Accepting events and messages: one SQL statement claims the idempotency key, writes the rows and commits.

These routes are the hot path. They call SQL functions through asyncpg instead of the unit of work, and keep its promises:
a request with a used Idempotency-Key gets the stored response, and a refusal is stored as the key's result (ruling X17).
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from spine.kernel.authentication import Caller
from spine.kernel.errors import SpineError
from spine.kernel.idempotency import KEY_TTL, Claim, StoredResponse, in_use
from spine.kernel.platform import Platform

_CLAIM: Final = "SELECT * FROM spine.idempotency_claim($1, $2, $3, $4)"
_FINISH: Final = "SELECT spine.unit_finish($1, $2::smallint, NULL, $3, false, '{}', '{}', '{}')"


@dataclass(frozen=True, slots=True)
class AcceptRequest:
    """One authenticated accept request: its caller, its request id and its claim to an idempotency key."""

    platform: Platform
    caller: Caller
    request_id: str
    claim: Claim

    @asynccontextmanager
    async def hold_key(self) -> AsyncIterator[None]:
        """Hold the key within this process. Raises Conflict `idempotency_key_in_use` while another request holds it."""
        async with self.platform.key_locks.hold(self.caller.workspace_id, self.claim.key):
            try:
                yield
            except asyncpg.LockNotAvailableError as error:
                raise in_use() from error

    async def store_refusal(self, error: SpineError) -> StoredResponse | asyncpg.Record:
        """Store a refusal as the key's result. Returns it, or the row of an earlier request that used the key."""
        async with self.platform.pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                _CLAIM, self.caller.workspace_id, self.claim.key, self.claim.fingerprint, KEY_TTL
            )
            assert row is not None
            if not row["claimed"]:
                return row
            body = error.body(self.request_id)
            await connection.execute(_FINISH, self.claim.key, error.status, body)
        return StoredResponse(error.status, body, None)


def render_batch(bodies: list[bytes], *, batch: bool) -> bytes:
    """Return the response body of an accept: the single JSON object, or with `batch` all objects under `data`."""
    return b'{"data":[' + b",".join(bodies) + b"]}" if batch else bodies[0]


@contextmanager
def prefix_error_params(path: str | None) -> Iterator[None]:
    """Prefix the `param` and the detail of a SpineError with the path of its batch item. None: the request is no batch."""
    try:
        yield
    except SpineError as error:
        if path is not None:
            error.param = f"{path}.{error.param}" if error.param else path
            error.detail = f"{path}: {error.detail}"
            for field in error.errors or ():
                field.param = f"{path}.{field.param}"
        raise
