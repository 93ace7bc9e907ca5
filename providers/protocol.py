"""What every provider's adapter is: one room each under this floor, with no doors between them."""

import re
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

from spine.notifications.provider_accounts import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.webhooks.signing import Verifier

CALL_TIMEOUT_S: Final = 20.0
"""No call lasts longer; a lease does."""
_WORD: Final = re.compile(r"[\x21-\x7e]{1,200}")
_MAX_TEXT: Final = 8192


class Refused(Exception):
    """A callback is not from the provider, or too old to be believed; nobody is told why."""


class Unreadable(Exception):
    """A callback is from the provider, and makes no sense."""


class Provider(Protocol):
    """An adapter. It keeps nothing of a call, never raises for what a provider does, and never calls twice by itself."""

    kind: str

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Make one call to the provider, within CALL_TIMEOUT_S, with the attempt's id as its reference.

        `rejected` only where nothing can have been sent; `unknown` where bytes left and no answer came.
        """
        ...

    def reports(
        self, account: ProviderAccount, secret: str, headers: Mapping[str, str], body: bytes
    ) -> list[ProviderReport]:
        """What a callback reports, once its signature is verified. Raises Refused, Unreadable."""
        ...


def signed_report(secret: str, headers: Mapping[str, str], body: bytes) -> list[ProviderReport]:
    """The one report in a body that is signed as webhooks are (wire.md): `{attempt_id, id, status, timestamp}`.

    `error` may say why, and `text` what the person answered, where the status is `replied`.
    """
    verified = Verifier([secret]).verify(
        headers.get("webhook-id"), headers.get("webhook-timestamp"), headers.get("webhook-signature"), body, time.time()
    )
    if not verified:
        raise Refused
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable("the body is not JSON") from error
    if not isinstance(given, dict):
        raise Unreadable("the body is not an object")
    return [
        ProviderReport(
            provider_message_id=_word(given, "id") or "",
            status=_word(given, "status") or "",
            reported_at=_word(given, "timestamp") or "",
            attempt_id=_word(given, "attempt_id", optional=True),
            text=_text(given, "text"),
            code=_text(given, "error"),
        )
    ]


def _word(given: Mapping[str, Any], name: str, *, optional: bool = False) -> str | None:
    value = given.get(name)
    if value is None and optional:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise Unreadable(f"{name} is missing, or no short text")
    return value


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    return value[:_MAX_TEXT].replace("\x00", "\ufffd") if isinstance(value, str) else None
