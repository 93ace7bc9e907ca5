"""States of MSG91's delivery reports, and the classes of its refusals (providers.md 2.3)."""

import re
from collections.abc import Mapping
from typing import Final

from policies.fallback_values import FailureClass

DELIVERED: Final = "1"
FAILURES: Final[Mapping[str, FailureClass]] = {
    "2": "recipient",
    "9": "policy",
    "16": "content",
    "17": "policy",
    "25": "content",
}
"""2 failed; 9 on the register of people who want no promotion (NDNC); 16 and 25 rejected; 17 blocked number."""

_IP_NOT_ALLOWED: Final = 418
_CONFIG_WORDS: Final = frozenset({"authkey", "auth", "authentication", "ip", "balance", "credits", "permission"})
_CONTENT_WORDS: Final = frozenset({"template", "flow", "variable", "variables", "sender", "dlt"})
_WORD: Final = re.compile(r"[a-z]+")


def class_of(status: int, message: str) -> FailureClass:
    """Return the class of a refusal. MSG91 says `type: error` with any HTTP status, and the reason as a text."""
    if status == 429:
        return "rate"
    if status in {401, 403, _IP_NOT_ALLOWED}:
        return "config"
    if status >= 500:
        return "transient"
    words = set(_WORD.findall(message.lower()))
    if words & _CONFIG_WORDS:
        return "config"
    return "content" if words & _CONTENT_WORDS else "recipient"
