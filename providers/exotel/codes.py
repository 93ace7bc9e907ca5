"""States of Exotel's messages and classes of their failures (providers.md 2.3).

Exotel's own documents give different numbers for one state, so texts decide: `DetailedStatus` first, then `Status`.
"""

from collections.abc import Mapping
from typing import Final

from policies.fallback_values import FailureClass

_STATES: Final[Mapping[str, str]] = {"sent": "sent", "failed": "failed", "failed_dnd": "failed", "failed-dnd": "failed"}
_CONFIG_PREFIXES: Final = ("DLT", "FAILED_ENTITY", "FAILED_HEADER", "FAILED_TELEMARKETER", "ACCOUNT", "LOW_CREDITS")
_CONTENT_WORDS: Final = ("TEMPLATE", "CONTENT", "SPAM")


def state_of(status: str, detailed: str) -> str:
    """Return our state. A `sent` message is delivered where the detail says so, since `sent` alone means different things."""
    state = _STATES.get(status.lower(), status.lower())
    return "delivered" if state == "sent" and "DELIVERED" in detailed.upper() else state


def class_of_failure(status: str, detailed: str) -> FailureClass:
    """Return the class of a reported failure. An unknown detail is judged by the status (failure case 18)."""
    text = detailed.upper()
    if "dnd" in status.lower() or "DND" in text:
        return "policy"
    if any(word in text for word in _CONTENT_WORDS):
        return "content"
    return "config" if text.startswith(_CONFIG_PREFIXES) else "recipient"


def class_of_answer(http_status: int) -> FailureClass:
    """Return the class of a refused call. 409 means that Exotel has this message already."""
    if http_status == 429:
        return "rate"
    if http_status in {401, 402, 403}:
        return "config"
    return "transient" if http_status >= 500 else "content" if http_status == 400 else "recipient"
