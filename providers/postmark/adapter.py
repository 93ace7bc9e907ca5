"""Sends mail through Postmark. Our attempt id goes in `Metadata`, which webhooks echo."""

from typing import Any, Final

import orjson

from providers.http_calls import accepted, fields, get_json, json_object, post, rejected, short_text, succeeded
from providers.postmark.codes import class_of, class_of_bounce
from providers.protocol import Callback, CallbackResponse, MalformedCallback, require_token
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import PostmarkConfig, PostmarkCredentials
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult

_ATTEMPT: Final = "attempt_id"
_TIMES: Final = {
    "Delivery": "DeliveredAt",
    "Bounce": "BouncedAt",
    "SpamComplaint": "BouncedAt",
    "Open": "ReceivedAt",
    "SubscriptionChange": "ChangedAt",
}


class PostmarkProvider:
    """Sends from one Postmark server."""

    kind = "postmark"

    def __init__(self, http_client: HttpClient) -> None:
        self._http_client = http_client

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Send one mail to one person."""
        credentials, config = _typed(account)
        content = call.content
        body: dict[str, Any] = {
            "From": config.sender,
            "To": call.to,
            "Subject": content.subject or "",
            "TextBody": content.text,
            "MessageStream": config.message_stream,
            "Metadata": {_ATTEMPT: call.attempt_id},
        }
        if content.html is not None:
            body["HtmlBody"] = content.html
        if config.reply_to is not None:
            body["ReplyTo"] = config.reply_to
        headers = {"Content-Type": "application/json", "X-Postmark-Server-Token": credentials.server_token}
        url = f"{credentials.api_url}/email"
        return await post(self._http_client, account, url, headers, orjson.dumps(body), _result)

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Read a webhook: delivery, bounce, complaint, opening, or a change of subscription."""
        require_token(_typed(account)[0].callback_token, callback)
        document = json_object(callback.body)
        kind, id = short_text(document.get("RecordType")), short_text(document.get("MessageID"))
        if kind is None:
            raise MalformedCallback("RecordType is missing")
        return CallbackResponse([_report(kind, id or "", document)])

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Read the server that the token belongs to."""
        credentials, _ = _typed(account)
        headers = {"X-Postmark-Server-Token": credentials.server_token}
        result, _ = await get_json(self._http_client, account, f"{credentials.api_url}/server", headers)
        return result

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Return None: Postmark repeats its webhooks for hours."""
        return None


def _typed(account: ProviderAccount) -> tuple[PostmarkCredentials, PostmarkConfig]:
    credentials, config = account.credentials, account.config
    assert isinstance(credentials, PostmarkCredentials)
    assert isinstance(config, PostmarkConfig)
    return credentials, config


def _result(response: HttpResponse, document: Any) -> ProviderResult:
    values = fields(document)
    code = values.get("ErrorCode")
    code = code if isinstance(code, int) and not isinstance(code, bool) else None
    if succeeded(response) and not code:
        return accepted(response, short_text(values.get("MessageID")))
    return rejected(response, class_of(code, response.status or 0), short_text(code) or f"http_{response.status}")


def _report(kind: str, id: str, document: dict[str, Any]) -> ProviderReport:
    attempt_id = short_text(fields(document.get("Metadata")).get(_ATTEMPT))
    reported_at = short_text(document.get(_TIMES.get(kind, ""))) or ""
    bounce = short_text(document.get("Type")) or "Unknown"
    if kind == "Delivery":
        return ProviderReport(id, "delivered", reported_at, attempt_id)
    if kind == "Open":
        return ProviderReport(id, "read", reported_at, attempt_id)
    if kind == "Bounce":
        failure = class_of_bounce(bounce)
        status = "failed" if failure is not None else "deferred"
        return ProviderReport(id, status, reported_at, attempt_id, code=bounce, failure=failure)
    if kind == "SpamComplaint":
        return ProviderReport(id, "opted_out", reported_at, attempt_id, code=kind, opt_out="*")
    if kind == "SubscriptionChange" and document.get("SuppressSending") is True:
        reason = short_text(document.get("SuppressionReason"))
        category = "*" if reason == "ManualSuppression" else None  # a hard bounce is no wish of the person
        return ProviderReport(id, "opted_out", reported_at, attempt_id, code=reason, opt_out=category)
    return ProviderReport(id, f"postmark_{kind}"[:60], reported_at, attempt_id)
