"""Classes of Postmark's error codes and bounces (providers.md 2.4)."""

from collections.abc import Mapping
from typing import Final

from policies.fallback_values import FailureClass

_CLASSES: Final[Mapping[int, FailureClass]] = {
    10: "config",
    100: "transient",
    300: "content",
    400: "config",
    401: "config",
    402: "content",
    403: "content",
    405: "config",
    406: "recipient",
    409: "content",
    410: "content",
    411: "content",
    412: "config",
    413: "config",
}
"""10 token, 100 maintenance, 300 request, 400/401 sender, 405 credit, 406 inactive recipient, 412 approval, 413 trial."""

_TEMPORARY_BOUNCES: Final = frozenset({"Transient", "DnsError", "SoftBounce", "AutoResponder", "Subscribe"})
"""Bounces after which the address is still good; Postmark itself goes on trying or the mail has arrived."""
_CONTENT_BOUNCES: Final = frozenset(
    {"SpamNotification", "ChallengeVerification", "VirusNotification", "DMARCPolicy", "SMTPApiError"}
)


def class_of(code: int | None, http_status: int) -> FailureClass:
    """Return the class of a refusal. An unknown code is judged by the HTTP status."""
    found = _CLASSES.get(code or 0)
    if found is not None:
        return found
    if http_status == 429:
        return "rate"
    if http_status in {401, 403}:
        return "config"
    return "transient" if http_status >= 500 else "content"


def class_of_bounce(kind: str) -> FailureClass | None:
    """Return the class of a bounce by its `Type`; None for one that is no failure of this mail."""
    if kind in _TEMPORARY_BOUNCES:
        return None
    return "content" if kind in _CONTENT_BOUNCES else "recipient"
