"""Ids: a prefix for the kind of object, and a ULID that holds the creation time (requirements P-09 to P-11).

Every prefix is registered here, once. A prefix is never reused for another kind.
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
    # products.md: reserved for resources that are not served yet
    "lead": "ld",
    "interest": "int",
    "deal": "dl",
    "call_session": "cs",
    "call": "cal",
    "catalog_item": "itm",
    "sequence": "seq",
    "enrollment": "enr",
    "project": "prj",
    "project_template": "tpl",  # `template` in paths and events; the noun alone would be that of messages
    "milestone": "mst",
    "task": "tsk",
    "invoice": "inv",
    "ticket": "tkt",
    "thread_entry": "thr",
    "evidence": "evd",
    "routing_rule": "rrl",
    "sla_policy": "sla",
    "form": "frm",
    "quota": "quo",
    "resource": "rsc",
    "service": "svc",
    "slot": "slt",
    "appointment": "apt",
    "waitlist_entry": "wtl",
    "booking_page": "pag",
}
_KNOWN: Final = frozenset(PREFIXES.values())
_ULID_PATTERN: Final = "[0-7][0-9A-HJKMNP-TV-Z]{25}"


def mint(prefix: str) -> str:
    """Return a new id. Ids of one process sort in creation order. An id is no secret: neighbouring ids can be guessed."""
    return f"{prefix}_{ULID()}"


def pattern(prefix: str) -> str:
    """Return the regular expression of a whole id of this kind."""
    return f"^{prefix}_{_ULID_PATTERN}$"


def created_at(id: str) -> datetime:
    """Return the creation time in an id, in UTC, to the millisecond. Raises ValueError if the text is no id."""
    return ULID.from_str(id.partition("_")[2]).datetime.astimezone(UTC)


def is_id(text: str, prefix: str) -> bool:
    """True if the text is a well-formed id of this kind."""
    head, _, tail = text.partition("_")
    return head == prefix and prefix in _KNOWN and len(tail) == 26 and tail[0] <= "7" and _is_crockford(tail)


def _is_crockford(text: str) -> bool:
    return all(c in "0123456789ABCDEFGHJKMNPQRSTVWXYZ" for c in text)
