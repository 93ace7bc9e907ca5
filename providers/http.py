"""The generic HTTP provider: any service that accepts a signed POST and sends signed receipts (providers.md 2.5)."""

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from policies.fallback_values import FailureClass
from policies.retry import parse_retry_after
from providers.protocol import signed_report
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.notifications.provider_kinds import HttpConfig, HttpCredentials
from spine.webhooks.signing import sign

_PATH_PART: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d{1,4})\]")
_NOT_SENT_CODES: Final = frozenset(
    {"connect_refused", "connect_unreachable", "connect_timeout", "dns_error", "tls_error"}
)
_CONFIG_CODES: Final = frozenset({"egress_blocked", "invalid_url", "invalid_request"})
_AUTH_STATUSES: Final = frozenset({401, 403, 407})


class HttpProvider:
    """Sends through the SSRF-guarded HTTP client."""

    kind = "http"

    def __init__(self, http_client: HttpClient) -> None:
        self._http_client = http_client

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Make one signed POST."""
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
        response = await self._http_client.post(
            credentials.url, headers, body, https_required=account.env == "live", workspace_id=account.workspace_id
        )
        return _result(response, config)

    def reports(
        self, account: ProviderAccount, secret: str, headers: Mapping[str, str], body: bytes
    ) -> list[ProviderReport]:
        """Return the report of a callback that is signed by Standard Webhooks."""
        return signed_report(secret, headers, body)


def _result(response: HttpResponse, config: HttpConfig) -> ProviderResult:
    """Return the result of a call: by its HTTP status, or without one, by whether the provider may have acted on it."""
    if response.status is None or response.error is not None:
        return _result_without_response(response)
    document = _parse_json(response.body_excerpt)
    raw = {"http_status": response.status}
    if 200 <= response.status < 300:
        id = find(document, config.id)
        status = find(document, config.status) if config.status else None
        return ProviderResult(
            "accepted",
            _short_text(id),
            http_status=response.status,
            raw=raw | ({"status": _short_text(status)} if status else {}),
        )
    code = _short_text(find(document, config.error)) or f"http_{response.status}"
    failure: FailureClass = "recipient"
    if response.status == 429:
        failure = "rate"
    elif response.status in {408, 425} or response.status >= 500:
        failure = "transient"
    elif response.status in _AUTH_STATUSES:
        failure = "config"
    retry_after_s = (
        parse_retry_after(response.retry_after, response.ended_at) if response.status in {429, 503} else None
    )
    return ProviderResult("rejected", None, failure, code, response.status, retry_after_s, raw)


def _result_without_response(response: HttpResponse) -> ProviderResult:
    code = response.error or "no_answer"
    raw: dict[str, Any] = {"error": code}
    if code in _NOT_SENT_CODES:
        return ProviderResult("rejected", None, "connect", code, response.status, raw=raw)
    if code in _CONFIG_CODES:
        return ProviderResult("rejected", None, "config", code, response.status, raw=raw)
    return ProviderResult("unknown", None, "timeout", code, response.status, raw=raw)


def _parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _short_text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:200].replace("\x00", "\ufffd") or None


def find(document: Any, path: str) -> Any:
    """Return the value at a JSONPath of dots and indexes, such as `$.messages[0].id`. Returns None if there is none."""
    value = document
    for name, index in _PATH_PART.findall(path):
        if name and isinstance(value, dict):
            value = value.get(name)
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return value
