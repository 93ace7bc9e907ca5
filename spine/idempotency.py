"""Idempotency keys: claim, work, answer and events in one transaction (requirements P-05 to P-08, rulings X3, X15, X17).

A second request with the same key waits for the first one's transaction, then sees its row: the same fingerprint gets
the stored answer again, byte for byte; another one gets 409. A crash leaves nothing behind, so a retry runs afresh.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import orjson

from spine.errors import BadRequest, Conflict
from spine.vault import Vault

KEEP: Final = timedelta(hours=24)
HEADER: Final = "Idempotency-Key"
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Stored:
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
    canonical = b"" if body is None else orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
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


def replay(row: Any, claim: Claim, vault: Vault) -> Stored:
    """The stored answer for a key that was used before. Raises Conflict where it was used for something else."""
    check(row, claim)
    return Stored(row["status"], vault.open(row["body"]) if row["sealed"] else row["body"], row["location"])
