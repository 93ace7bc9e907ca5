"""The generic HTTP provider: any service that takes a signed POST and sends signed receipts (providers.md 2.5)."""

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from policies.fallback_values import FailureClass
from policies.retry import parse_retry_after
from providers.protocol import signed_report
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.provider_accounts import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.notifications.provider_kinds import HttpConfig, HttpCredentials
from spine.webhooks.signing import sign

_STEP: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d{1,4})\]")
_UNSENT: Final = frozenset({"connect_refused", "connect_unreachable", "connect_timeout", "dns_error", "tls_error"})
_MISCONFIGURED: Final = frozenset({"egress_blocked", "invalid_url", "invalid_request"})
_AUTH: Final = frozenset({401, 403, 407})


class HttpProvider:
    """Calls out through the guarded door."""

    kind = "http"

    def __init__(self, egress: HttpClient) -> None:
        self._http_client = egress

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """One signed POST."""
        credentials, config = account.credentials, account.config
        assert isinstance(credentials, HttpCredentials)
        assert isinstance(config, HttpConfig)
        body = orjson.dumps(
            {
                "attempt_id": call.attempt_id,
                "channel": call.channel,
                "to": call.to,
                "content": {"text": call.content.text, "subject": call.content.subject, "html": call.content.html},
                "vars": call.vars,
                "env": call.env,
                "validity_s": call.wait_s,
            }
        )
        timestamp_s = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "Spine",
            "Idempotency-Key": call.attempt_id,
            "webhook-id": call.attempt_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(call.attempt_id, timestamp_s, body, [credentials.secret]),
        }
        response = await self._http_client.post(credentials.url, headers, body, https_required=account.env == "live")
        return _read(response, config)

    def reports(
        self, account: ProviderAccount, secret: str, headers: Mapping[str, str], body: bytes
    ) -> list[ProviderReport]:
        """Standard Webhooks, the other way round."""
        return signed_report(secret, headers, body)


def _read(response: HttpResponse, config: HttpConfig) -> ProviderResult:
    """What an answer means. A status decides; without one, whether any byte of ours can have been acted on."""
    if response.status is None or response.error is not None:
        return _without_answer(response)
    given = _parsed(response.body_excerpt)
    raw = {"http_status": response.status}
    if 200 <= response.status < 300:
        id = find(given, config.id)
        status = find(given, config.status) if config.status else None
        return ProviderResult(
            "accepted",
            _short(id),
            http_status=response.status,
            raw=raw | ({"status": _short(status)} if status else {}),
        )
    code = _short(find(given, config.error)) or f"http_{response.status}"
    failure: FailureClass = "recipient"
    if response.status == 429:
        failure = "rate"
    elif response.status in {408, 425} or response.status >= 500:
        failure = "transient"
    elif response.status in _AUTH:
        failure = "config"
    retry_after_s = (
        parse_retry_after(response.retry_after, response.ended_at) if response.status in {429, 503} else None
    )
    return ProviderResult("rejected", None, failure, code, response.status, retry_after_s, raw)


def _without_answer(response: HttpResponse) -> ProviderResult:
    code = response.error or "no_answer"
    raw: dict[str, Any] = {"error": code}
    if code in _UNSENT:
        return ProviderResult("rejected", None, "connect", code, response.status, raw=raw)
    if code in _MISCONFIGURED:
        return ProviderResult("rejected", None, "config", code, response.status, raw=raw)
    return ProviderResult("unknown", None, "timeout", code, response.status, raw=raw)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _short(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:200].replace("\x00", "\ufffd") or None


def find(document: Any, path: str) -> Any:
    """What stands at a JSONPath of dots and indexes, such as `$.messages[0].id`; None where nothing does."""
    here = document
    for name, index in _STEP.findall(path):
        if name and isinstance(here, dict):
            here = here.get(name)
        elif index and isinstance(here, list) and int(index) < len(here):
            here = here[int(index)]
        else:
            return None
    return here
