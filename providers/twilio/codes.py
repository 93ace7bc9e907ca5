"""Classes of Twilio's error codes (providers.md 2.2), and the states of its messages."""

from typing import Final

from policies.fallback_values import FailureClass

_RECIPIENT: Final = frozenset({21211, 21214, 21612, 21614, 30003, 30005, 30006, 30036})
"""30036: it was not sent within its validity, so the next channel may have it."""
_OPTED_OUT: Final = 21610
_BLOCKED: Final = 30004
_CONFIG: Final = frozenset({20003, 21212, 21408, 21606, 21608, 21609, 21901, 30002})
_CONTENT: Final = frozenset({21602, 21617, 30007, 30034})
_TRANSIENT: Final = frozenset({21611, 30001, 30008})
_RATE: Final = frozenset({20429})

STATES: Final = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "undelivered": "failed",
    "failed": "failed",
    "canceled": "failed",
}
"""States of a message that say something new. Others (queued, sending) change nothing."""


def class_of(code: int | None, http_status: int = 400) -> FailureClass:
    """Return the class of an error. An unknown code is judged by the HTTP status."""
    if code in _RECIPIENT:
        return "recipient"
    if code in {_OPTED_OUT, _BLOCKED}:
        return "policy"
    if code in _CONFIG:
        return "config"
    if code in _CONTENT:
        return "content"
    if code in _RATE:
        return "rate"
    if code in _TRANSIENT:
        return "transient"
    if http_status == 429:
        return "rate"
    if http_status in {401, 403}:
        return "config"
    return "transient" if http_status >= 500 else "recipient"


def opt_out_of(code: int | None) -> str | None:
    """Return `*` if an error says that the person wants nothing more from this sender."""
    return "*" if code == _OPTED_OUT else None
