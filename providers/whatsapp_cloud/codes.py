"""Classes of Meta's error codes (providers.md 2.1). The same codes come in answers and, later, in statuses."""

from collections.abc import Mapping
from typing import Any, Final

from policies.fallback_values import FailureClass

_TRANSIENT: Final = frozenset({1, 2, 131000, 131016, 131057, 133004})
_RATE: Final = frozenset({4, 80007, 130429, 131048, 131064})
_PAIR_RATE: Final = 131056
_RECIPIENT: Final = frozenset({131026, 131030, 131021, 130472, 131049, 130497})
_WINDOW_CLOSED: Final = 131047
_MARKETING_STOPPED: Final = 131050
_CONTENT: Final = frozenset(
    {100, 131008, 131009, 131051, 131053, 132000, 132001, 132005, 132007, 132012, 132015, 132016}
)
_CONFIG: Final = frozenset({0, 3, 10, 33, 190, 368, 131005, 131031, 131037, 131042, 131045})
_PERMISSIONS: Final = range(200, 300)

PAIR_PAUSE_S: Final = 6.0
"""Meta takes one message in 6 s from one number to one person (131056)."""


def class_of(code: int | None, *, is_transient: bool = False, http_status: int = 400) -> FailureClass:
    """Return the class of an error. An unknown code is judged by Meta's own flag, then by the HTTP status."""
    if code == _PAIR_RATE:
        return "recipient_rate"
    if code in {_WINDOW_CLOSED, _MARKETING_STOPPED}:
        return "policy"
    if code in _RATE:
        return "rate"
    if code in _RECIPIENT:
        return "recipient"
    if code in _CONTENT:
        return "content"
    if code in _CONFIG or code in _PERMISSIONS:
        return "config"
    if is_transient or code in _TRANSIENT or http_status >= 500:
        return "transient"
    return "rate" if http_status == 429 else "config" if http_status in {401, 403} else "content"


def opt_out_of(code: int | None) -> str | None:
    """Return the category that a person has stopped, if an error says so: marketing, and nothing else (131050)."""
    return "marketing" if code == _MARKETING_STOPPED else None


def code_of(error: Any) -> int | None:
    """Return the code of an error object; None if it has none."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None
