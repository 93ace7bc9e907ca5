"""The protocol of a provider adapter, and the signed report that the HTTP provider and the sandbox share."""

import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.webhooks.signing import Verifier

CALL_TIMEOUT_S: Final = 20.0
"""The longest time that a call takes. A lease is longer."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,200}")
_MAX_TEXT_CHARS: Final = 8192
_MAX_TIMESTAMP_CHARS: Final = 200


class SignatureInvalid(Exception):
    """A callback has no valid signature, or is too old. The sender does not learn which."""


class MalformedCallback(Exception):
    """A callback has a valid signature, but its body is not a report."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A provider's request to the inbound route, as it came.

    `url` is the public one, with its query, as the provider calls and signs it: made from SPINE_PUBLIC_URL and never
    from the request's own Host. `token` is the part of the path after the account, for providers that sign nothing.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str]
    token: str | None = None


@dataclass(frozen=True, slots=True)
class CallbackResponse:
    """What a callback reported, and the answer that its provider expects. Without `content` it is a JSON object."""

    reports: Sequence[ProviderReport] = ()
    content: bytes | None = None
    media_type: str = "application/json"


class Provider(Protocol):
    """An adapter. It keeps no state of a call, never raises for what a provider does, and never retries by itself."""

    kind: str

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Make one call to the provider, within CALL_TIMEOUT_S, with the attempt's id as its reference.

        Returns `rejected` only if nothing can have been sent, and `unknown` if bytes were sent and no response came.
        """
        ...

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Verify a callback and read its reports. Raises SignatureInvalid, MalformedCallback."""
        ...

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Ask the provider whether it takes the account's credentials. None: it has no call for this that sends nothing."""
        ...

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Ask the provider what became of a message. None: it did not say, or has no call for this."""
        ...


def require_token(expected: str, callback: Callback) -> None:
    """Raise SignatureInvalid unless a callback's path ends with the account's token. It stands for a signature."""
    if not hmac.compare_digest(expected.encode(), (callback.token or "").encode()):
        raise SignatureInvalid


def signed_report(secret: str, callback: Callback) -> CallbackResponse:
    """Return the one report in a body that is signed as webhooks are (wire.md): `{attempt_id, id, status, timestamp}`.

    Optional fields: `error`, the reason; `text`, the person's reply, if the status is `replied`; `from`, the address
    that it came from. Raises SignatureInvalid, MalformedCallback.
    """
    headers, body = callback.headers, callback.body
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
    read = ProviderReport(
        provider_message_id=token(report, "id") or "",
        status=token(report, "status") or "",
        reported_at=_reported_at(report),
        attempt_id=token(report, "attempt_id", optional=True),
        text=text(report, "text"),
        code=text(report, "error"),
        in_reply_to=token(report, "in_reply_to", optional=True),
        sender=token(report, "from", optional=True),
    )
    return CallbackResponse([read])


def token(report: Mapping[str, Any], name: str, *, optional: bool = False) -> str | None:
    """Return a field that is a short word. Raises MalformedCallback if it is another thing, or missing and not optional."""
    value = report.get(name)
    if value is None and optional:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise MalformedCallback(f"{name} is missing, or no short text")
    return value


def _reported_at(report: Mapping[str, Any]) -> str:
    """Return when the provider says that it was, in whatever form: it tells a report from another one, and orders none."""
    value = report.get("timestamp")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise MalformedCallback("timestamp is missing, or no text")
    return str(value)[:_MAX_TIMESTAMP_CHARS].replace("\x00", "\ufffd")


def text(report: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is a text, shortened to 8,192 characters, without NUL; None if it is no text."""
    value = report.get(name)
    return value[:_MAX_TEXT_CHARS].replace("\x00", "\ufffd") if isinstance(value, str) else None
