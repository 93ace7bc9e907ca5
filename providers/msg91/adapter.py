"""Sends SMS through MSG91's flows, one recipient per call. A report finds its attempt by request id and number."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson

from providers.http_calls import accepted, fields, form, parse_json, post, rejected, short_text, succeeded
from providers.msg91.codes import DELIVERED, FAILURES, class_of
from providers.protocol import Callback, CallbackResponse, MalformedCallback, require_token
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import Msg91Credentials
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.notifications.provider_templates import parameter


class Msg91Provider:
    """Sends from one MSG91 account. The text is the flow's own: our template names the flow and its variables."""

    kind = "msg91"

    def __init__(self, http_client: HttpClient) -> None:
        self._http_client = http_client

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Start the flow for one person. Without a flow in our template nothing is called."""
        credentials = _typed(account)
        template = call.provider_templates.get("msg91")
        if template is None:
            return ProviderResult("rejected", None, "content", "provider_template_missing")
        number = call.to.removeprefix("+")
        variables = {name: parameter(call.vars, source) for name, source in template["variables"].items()}
        body = {
            "template_id": template["template_id"],
            "short_url": "0",
            "recipients": [{"mobiles": number, **variables}],
        }
        headers = {"Content-Type": "application/json", "authkey": credentials.authkey}
        url = f"{credentials.api_url}/flow"
        return await post(self._http_client, account, url, headers, orjson.dumps(body), partial(_result, number))

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Read reports in MSG91's version 2 (a form whose field is JSON) or 3 (JSON)."""
        require_token(_typed(account).callback_token, callback)
        return CallbackResponse([report for item in _items(callback.body) if (report := _report(item)) is not None])

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Return None: MSG91 documents no call that only proves the key."""
        return None

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Return None: MSG91 documents no call for the state of one message."""
        return None


def _typed(account: ProviderAccount) -> Msg91Credentials:
    credentials = account.credentials
    assert isinstance(credentials, Msg91Credentials)
    return credentials


def _result(number: str, response: HttpResponse, document: Any) -> ProviderResult:
    values = fields(document)
    message = short_text(values.get("message")) or ""
    if values.get("type") == "success" and succeeded(response):
        return accepted(response, message_id(message, number))
    code = "error" if succeeded(response) else f"http_{response.status}"
    return rejected(response, class_of(response.status or 0, message), code)


def message_id(request_id: str, number: str) -> str:
    """Return the id of a message: several people may share a request id (failure case 17)."""
    return f"{request_id}:{number}"


def _items(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the reports in a body, each with its request id. Raises MalformedCallback."""
    document = parse_json(body)
    if document is None:
        document = parse_json(dict(form(body)).get("data", "").encode())
    if isinstance(document, dict) and isinstance(document.get("data"), str):
        document = parse_json(document["data"].encode())
    requests = document if isinstance(document, list) else [document]
    for request in requests:
        if not isinstance(request, dict):
            raise MalformedCallback("the body holds no report")
        reports = request.get("report", [request])
        for report in reports if isinstance(reports, list) else []:
            if isinstance(report, dict):
                yield {**report, "requestId": request.get("requestId")}


def _report(item: dict[str, Any]) -> ProviderReport | None:
    request_id, number = short_text(item.get("requestId")), short_text(item.get("number"))
    status = short_text(item.get("status"))
    if request_id is None or number is None or status is None:
        return None
    state = "delivered" if status == DELIVERED else "failed" if status in FAILURES else f"msg91_{status}"
    # `date` has no time zone (failure case 28): it tells a report from its repetitions and is not a time.
    return ProviderReport(
        message_id(request_id, number.removeprefix("+")), state, short_text(item.get("date")) or "", None,
        code=status if state == "failed" else None, failure=FAILURES.get(status),
    )  # fmt: skip
