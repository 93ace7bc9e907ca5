"""Ids: a prefix that names the kind and a ULID that tells the time (requirements P-09 to P-11).

Every prefix of the suite is registered here, once; a prefix is never reused for another kind.
"""

from datetime import UTC, datetime
from typing import Final

from ulid import ULID

PREFIXES: Final[dict[str, str]] = {
    "organisation": "org",
    "workspace": "wsp",
    "api_key": "key",
    "user": "usr",
    "webhook_endpoint": "whe",
    "event": "evt",
    "event_type": "ety",
    "delivery": "dlv",
    "replay": "rpl",
    "request": "req",
    "contact": "ctc",
    "message": "msg",
    "attempt": "att",
    "template": "ntp",
    "channel_policy": "pol",
    "provider_account": "prv",
    "preference": "prf",
    "timeline_entry": "tme",
    "receipt": "rct",
}
_KNOWN: Final = frozenset(PREFIXES.values())
_ULID_PATTERN: Final = "[0-7][0-9A-HJKMNP-TV-Z]{25}"


def mint(prefix: str) -> str:
    """A new id; ids of one process sort in the order of their making. Never a capability: neighbours can be guessed."""
    return f"{prefix}_{ULID()}"


def pattern(prefix: str) -> str:
    """The regular expression that an id of this kind matches whole."""
    return f"^{prefix}_{_ULID_PATTERN}$"


def created_at(id: str) -> datetime:
    """The instant in an id, in UTC, to the millisecond. ValueError when the text is no id."""
    return ULID.from_str(id.partition("_")[2]).datetime.astimezone(UTC)


def is_id(text: str, prefix: str) -> bool:
    """Whether the text is a well-formed id of this kind."""
    head, _, tail = text.partition("_")
    return head == prefix and prefix in _KNOWN and len(tail) == 26 and tail[0] <= "7" and _is_crockford(tail)


def _is_crockford(text: str) -> bool:
    return all(c in "0123456789ABCDEFGHJKMNPQRSTVWXYZ" for c in text)
