"""Idempotency keys: claim, work, answer and events in one transaction (requirements P-05 to P-08, rulings X3, X15, X17).

A second request with the same key waits for the first one's transaction, then sees its row: the same fingerprint gets
the stored answer again, byte for byte; another one gets 409. A crash leaves nothing behind, so a retry runs afresh.
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
from spine.kernel.vault import Vault

KEY_TTL: Final = timedelta(hours=24)
HEADER: Final = "Idempotency-Key"
WAIT_S: Final = 3.0
"""How long a second request waits for the first one's end before it is told that the key is in use."""
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """An answer as it went out the first time."""

    status: int
    body: bytes
    location: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's claim to a key."""

    key: str
    fingerprint: bytes


def read_key(header: str | None) -> str:
    """The key in the header. Raises BadRequest where it is missing, over 255 characters or not visible ASCII."""
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
    """What the request asks for: SHA-256 over method, path, query and the body with sorted keys and no white space."""
    try:
        canonical = b"" if body is None else orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:  # text that was parsed is refused only for its depth
        raise too_deep() from error
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), query.encode(), canonical))).digest()


def in_use() -> Conflict:
    """The error for a key whose first request is still running."""
    return Conflict(
        "another request with this Idempotency-Key is still running; try again in a second",
        code="idempotency_key_in_use",
        param=HEADER,
        headers={"Retry-After": "1"},
    )


def check(row: Any, claim: Claim) -> None:
    """Raises Conflict unless the row of an earlier use of the key is of this very request, and answered."""
    if row["fingerprint"] != claim.fingerprint:
        raise Conflict(
            "this Idempotency-Key was used for another request; take a new key for a new request",
            code="idempotency_key_reused",
            param=HEADER,
        )
    if row["status"] is None:
        raise in_use()


def replay(row: Any, claim: Claim, vault: Vault) -> StoredResponse:
    """The stored answer for a key that was used before. Raises Conflict where it was used for something else."""
    check(row, claim)
    return StoredResponse(row["status"], vault.open(row["body"]) if row["sealed"] else row["body"], row["location"])


@dataclass(slots=True)
class _KeyLock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class KeyLocks:
    """One request at a time for each key in this process: its duplicates wait here, where they hold no connection.

    The database keeps order between processes all the same; this only keeps waiting duplicates from taking the pool.
    """

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._locks: dict[tuple[str, str], _KeyLock] = {}

    @contextlib.asynccontextmanager
    async def hold(self, workspace_id: str, key: str) -> AsyncIterator[None]:
        """Hold the key's turn. Raises Conflict `idempotency_key_in_use` when it does not come in time."""
        name = (workspace_id, key)
        hold = self._locks.get(name)
        if hold is None:
            hold = self._locks[name] = _KeyLock()
        hold.wanted += 1
        try:
            try:
                async with asyncio.timeout(self._wait_s if hold.lock.locked() else None):
                    await hold.lock.acquire()
            except TimeoutError as error:
                raise in_use() from error
            try:
                yield
            finally:
                hold.lock.release()
        finally:
            hold.wanted -= 1
            if not hold.wanted:
                del self._locks[name]
