"""Judges the response to a delivery attempt: delivered, failed with a code, or endpoint gone."""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final

from policies.retry import parse_retry_after

ENDPOINT_GONE: Final = "endpoint_gone"

_HONOURS_RETRY_AFTER: Final = frozenset({429, 503})

_WHY: Final[dict[str, str]] = {
    "connect_refused": "the receiver refused the connection",
    "connect_unreachable": "no route to the receiver",
    "connect_timeout": "no connection within the connect time-out",
    "timeout": "no complete answer within the time-out",
    "tls_error": "TLS could not be agreed, or the certificate is not trusted",
    "dns_error": "the host name could not be resolved",
    "egress_blocked": "the target is not a permitted address",
    "connection_reset": "the connection ended before the answer was complete",
    "response_too_large": "the response body is over the cap",
    "invalid_response": "the answer is not valid HTTP",
    "invalid_url": "the URL cannot be called",
    "invalid_request": "the request cannot be written as HTTP",
}


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver accepted the event with any 2xx."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed. `code` is part of the API, `why` is for people. `retry_after_s` is set for 429 and 503 only."""

    code: str
    why: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver answered 410: the delivery is dead at once and the endpoint is disabled."""

    code: str = ENDPOINT_GONE
    why: str = "the receiver answered 410 Gone"


Verdict = Delivered | Failed | Gone

_DELIVERED: Final = Delivered()
_GONE: Final = Gone()


def judge(status: int | None, error: str | None, retry_after: str | None, now: datetime) -> Verdict:
    """Return the verdict on one attempt, as in the table of `webhooks.md`.

    An `error` code overrides a status: a 200 with a truncated or oversized body is not a success. Retry-After counts
    only for 429 and 503; `now` converts its date form into seconds. Raises ValueError without a status and an error.
    """
    if error is not None:
        return Failed(error, _WHY.get(error, error))
    if status is None:
        raise ValueError("an answer has a status or an error")
    if 200 <= status <= 299:
        return _DELIVERED
    if status == 410:
        return _GONE
    wait_s = parse_retry_after(retry_after, now) if status in _HONOURS_RETRY_AFTER else None
    return Failed(f"http_{status}", _why_status(status), wait_s)


def _why_status(status: int) -> str:
    try:
        answered = f"the receiver answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        answered = f"the receiver answered {status}"
    return f"{answered}; redirects are never followed" if 300 <= status <= 399 else answered
