"""The protocol of a provider adapter, and the signed report that the HTTP provider and the sandbox share."""

import re
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.webhooks.signing import Verifier

CALL_TIMEOUT_S: Final = 20.0
"""The longest time that a call takes. A lease is longer."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,200}")
_MAX_TEXT_CHARS: Final = 8192


class SignatureInvalid(Exception):
    """A callback has no valid signature, or is too old. The sender does not learn which."""


class MalformedCallback(Exception):
    """A callback has a valid signature, but its body is not a report."""


class Provider(Protocol):
    """An adapter. It keeps no state of a call, never raises for what a provider does, and never retries by itself."""

    kind: str

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Make one call to the provider, within CALL_TIMEOUT_S, with the attempt's id as its reference.

        Returns `rejected` only if nothing can have been sent, and `unknown` if bytes were sent and no response came.
        """
        ...

    def reports(
        self, account: ProviderAccount, secret: str, headers: Mapping[str, str], body: bytes
    ) -> list[ProviderReport]:
        """Verify a callback's signature and return its reports. Raises SignatureInvalid, MalformedCallback."""
        ...


def signed_report(secret: str, headers: Mapping[str, str], body: bytes) -> list[ProviderReport]:
    """Return the one report in a body that is signed as webhooks are (wire.md): `{attempt_id, id, status, timestamp}`.

    Optional fields: `error`, the reason; `text`, the person's reply, if the status is `replied`. Raises
    SignatureInvalid, MalformedCallback.
    """
    verified = Verifier([secret]).verify(
        headers.get("webhook-id"), headers.get("webhook-timestamp"), headers.get("webhook-signature"), body, time.time()
    )
    if not verified:
        raise SignatureInvalid
    try:
        report = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedCallback("the body is not JSON") from error
    if not isinstance(report, dict):
        raise MalformedCallback("the body is not an object")
    return [
        ProviderReport(
            provider_message_id=_token(report, "id") or "",
            status=_token(report, "status") or "",
            reported_at=_token(report, "timestamp") or "",
            attempt_id=_token(report, "attempt_id", optional=True),
            text=_text(report, "text"),
            code=_text(report, "error"),
        )
    ]


def _token(report: Mapping[str, Any], name: str, *, optional: bool = False) -> str | None:
    value = report.get(name)
    if value is None and optional:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise MalformedCallback(f"{name} is missing, or no short text")
    return value


def _text(report: Mapping[str, Any], name: str) -> str | None:
    value = report.get(name)
    return value[:_MAX_TEXT_CHARS].replace("\x00", "\ufffd") if isinstance(value, str) else None
