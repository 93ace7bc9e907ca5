"""Idempotency keys: claim, work, response and events in one transaction (requirements P-05 to P-08, rulings X3, X15, X17).

A second request with the same key waits for the first one's transaction and then reads its row. With the same fingerprint
it gets the stored response again, byte for byte; with another one it gets 409. A crash rolls everything back, so a retry
runs as a first request.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import orjson

from spine.kernel.errors import BadRequest, Conflict
from spine.kernel.request_body import too_deep
from spine.kernel.vault import Place, Vault

KEY_TTL: Final = timedelta(hours=24)
HEADER: Final = "Idempotency-Key"
WAIT_S: Final = 3.0
"""Seconds that a second request waits for the first one to end before it gets 409 `idempotency_key_in_use`."""
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it was first sent."""

    status: int
    body: bytes
    location: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A request's claim to a key: the key and the fingerprint of the request."""

    key: str
    fingerprint: bytes


def read_key(header: str | None) -> str:
    """Return the key in the header. Raises BadRequest if it is missing, over 255 characters or not visible ASCII."""
    if not header:
        raise BadRequest(
            f"give every POST, PUT, PATCH and DELETE an {HEADER} header, for example a UUID",
            code="idempotency_key_required",
            param=HEADER,
        )
    if not _VISIBLE_ASCII.fullmatch(header):
        raise BadRequest(
            f"an {HEADER} is 1 to 255 visible ASCII characters", code="idempotency_key_invalid", param=HEADER
        )
    return header


def fingerprint(method: str, path: str, query: str, body: Any) -> bytes:
    """Return the SHA-256 of method, path, query and the body with sorted keys and no white space."""
    try:
        canonical = b"" if body is None else orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:  # parsed JSON cannot be encoded only if it is nested too deeply
        raise too_deep() from error
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), query.encode(), canonical))).digest()


def in_use() -> Conflict:
    """Return the error for a key whose first request is still running."""
    return Conflict(
        "another request with this Idempotency-Key is still running; try again in a second",
        code="idempotency_key_in_use",
        param=HEADER,
        headers={"Retry-After": "1"},
    )


def require_replayable(row: Any, claim: Claim) -> None:
    """Raises Conflict unless the key's row belongs to this same request and holds a response."""
    if row["fingerprint"] != claim.fingerprint:
        raise Conflict(
            "this Idempotency-Key was used for another request; take a new key for a new request",
            code="idempotency_key_reused",
            param=HEADER,
        )
    if row["status"] is None:
        raise in_use()


def response_place(workspace_id: str, key: str) -> Place:
    """Return where the sealed response of a key is stored."""
    return Place(workspace_id, "idempotency_keys", key, "body")


def replay(row: Any, workspace_id: str, claim: Claim, vault: Vault) -> StoredResponse:
    """Return the stored response of a used key. Raises Conflict if it was used for another request."""
    require_replayable(row, claim)
    body = vault.open(row["body"], response_place(workspace_id, claim.key)) if row["sealed"] else row["body"]
    return StoredResponse(row["status"], body, row["location"])


@dataclass(slots=True)
class _KeyLock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class KeyLocks:
    """Locks that let one request per key run in this process. Duplicates wait here, without a database connection.

    The database orders the requests of all processes. These locks only keep waiting duplicates from using up the pool.
    """

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._locks: dict[tuple[str, str], _KeyLock] = {}

    @contextlib.asynccontextmanager
    async def hold(self, workspace_id: str, key: str) -> AsyncIterator[None]:
        """Hold the lock of a key. Raises Conflict `idempotency_key_in_use` if the lock is not free within `wait_s`."""
        name = (workspace_id, key)
        entry = self._locks.get(name)
        if entry is None:
            entry = self._locks[name] = _KeyLock()
        entry.users += 1
        try:
            try:
                async with asyncio.timeout(self._wait_s if entry.lock.locked() else None):
                    await entry.lock.acquire()
            except TimeoutError as error:
                raise in_use() from error
            try:
                yield
            finally:
                entry.lock.release()
        finally:
            entry.users -= 1
            if not entry.users:
                del self._locks[name]
