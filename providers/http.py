"""The generic HTTP provider: any service that accepts a signed POST and sends signed receipts (providers.md 2.5)."""

import re
import time
from functools import partial
from typing import Any, Final

import orjson

from providers.http_calls import accepted, class_of_status, post, rejected, short_text, succeeded
from providers.protocol import Callback, CallbackResponse, signed_report
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import HttpConfig, HttpCredentials
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.webhooks.signing import sign

_PATH_PART: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d{1,4})\]")


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
            "Idempotency-Key": call.attempt_id,
            "webhook-id": call.attempt_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(call.attempt_id, timestamp_s, body, [credentials.secret]),
        }
        return await post(self._http_client, account, credentials.url, headers, body, partial(_result, config))

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Read the report of a callback that is signed by Standard Webhooks."""
        return signed_report(account.credentials.secret, callback)

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Return None: the service is called for messages alone."""
        return None

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Return None: the service sends receipts by itself."""
        return None


def _result(config: HttpConfig, response: HttpResponse, document: Any) -> ProviderResult:
    """Return the result of an answered call: by its HTTP status."""
    if succeeded(response):
        status = short_text(find(document, config.status)) if config.status else None
        return accepted(response, short_text(find(document, config.id)), **({"status": status} if status else {}))
    code = short_text(find(document, config.error)) or f"http_{response.status}"
    return rejected(response, class_of_status(response.status or 0), code)


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
