"""Sends through Meta's Cloud API. Our attempt id goes in `biz_opaque_callback_data`, which statuses echo."""

from typing import Any, Final

import orjson

from providers.http_calls import accepted, fields, get_json, items, post, rejected, short_text, succeeded
from providers.protocol import Callback, CallbackResponse
from providers.whatsapp_cloud.callbacks import read_callback
from providers.whatsapp_cloud.codes import PAIR_PAUSE_S, class_of, code_of, opt_out_of
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import WhatsAppCloudConfig, WhatsAppCloudCredentials
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.notifications.provider_templates import parameter

_STATUSES: Final = frozenset({"accepted", "held_for_quality_assessment", "paused"})


class WhatsAppCloudProvider:
    """Sends from one WhatsApp number."""

    kind = "whatsapp_cloud"

    def __init__(self, http_client: HttpClient) -> None:
        self._http_client = http_client

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Send an approved template, if our template names one; else a text, which Meta takes for 24 h after a reply."""
        credentials, config = _typed(account)
        body = orjson.dumps(
            {
                "messaging_product": "whatsapp",
                "recipient_type": "individual",
                "to": call.to.removeprefix("+"),
                "biz_opaque_callback_data": call.attempt_id,
                **_content(call),
            }
        )
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {credentials.access_token}"}
        url = f"{credentials.api_url}/{config.phone_number_id}/messages"
        return await post(self._http_client, account, url, headers, body, _result)

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Read statuses and messages; answer Meta's set-up call."""
        return read_callback(_typed(account)[0], callback)

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Read the sending number."""
        credentials, config = _typed(account)
        url = f"{credentials.api_url}/{config.phone_number_id}?fields=id"
        result, document = await get_json(
            self._http_client, account, url, {"Authorization": f"Bearer {credentials.access_token}"}
        )
        error = fields(document).get("error")
        if error is None or result.outcome == "accepted":
            return result
        failure = class_of(code_of(error), http_status=result.http_status or 0)
        return ProviderResult("rejected", None, failure, short_text(code_of(error)), result.http_status, raw=result.raw)

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Return None: Meta tells the state of a message in statuses alone."""
        return None


def _typed(account: ProviderAccount) -> tuple[WhatsAppCloudCredentials, WhatsAppCloudConfig]:
    credentials, config = account.credentials, account.config
    assert isinstance(credentials, WhatsAppCloudCredentials)
    assert isinstance(config, WhatsAppCloudConfig)
    return credentials, config


def _content(call: ProviderCall) -> dict[str, Any]:
    template = call.provider_templates.get("whatsapp_cloud")
    if template is None:
        return {"type": "text", "text": {"body": call.content.text, "preview_url": False}}
    components = []
    for part in ("header", "body"):
        names = template.get(part) or []
        if names:
            parameters = [{"type": "text", "text": parameter(call.vars, name)} for name in names]
            components.append({"type": part, "parameters": parameters})
    for index, name in enumerate(template.get("buttons") or []):
        parameters = [{"type": "text", "text": parameter(call.vars, name)}]
        components.append({"type": "button", "sub_type": "url", "index": str(index), "parameters": parameters})
    value = {
        "name": template["name"],
        "language": {"policy": "deterministic", "code": template["language"]},
        "components": components,
    }
    return {"type": "template", "template": value}


def _result(response: HttpResponse, document: Any) -> ProviderResult:
    if succeeded(response):
        message = next(iter(items(document, "messages")), {})
        status = message.get("message_status")
        raw = {"message_status": status} if status in _STATUSES else {}
        return accepted(response, short_text(message.get("id")), **raw)
    error = fields(document).get("error")
    code = code_of(error)
    transient = isinstance(error, dict) and error.get("is_transient") is True
    failure = class_of(code, is_transient=transient, http_status=response.status or 0)
    text = short_text(code) or f"http_{response.status}"
    pause_s = PAIR_PAUSE_S if failure == "recipient_rate" else None
    return rejected(response, failure, text, opt_out=opt_out_of(code), wait_s=pause_s)
