"""Sends SMS through Exotel. Our attempt id goes in `CustomField`, which the status callback echoes."""

from typing import Any, Final
from urllib.parse import quote, urlencode

from policies.sms_segments import sms_segments
from providers.exotel.codes import class_of_answer, class_of_failure, state_of
from providers.http_calls import accepted, basic, fields, form, get_json, post, rejected, short_text, succeeded
from providers.protocol import Callback, CallbackResponse, MalformedCallback, require_token
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import ExotelConfig, ExotelCredentials
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult, callback_path

_SMS_TYPES: Final = {
    "transactional": "transactional",
    "service_implicit": "transactional",
    "service_explicit": "transactional_opt_in",
    "promotional": "promotional",
}


class ExotelProvider:
    """Sends from one Exotel account. `public_url` is where Exotel reports."""

    kind = "exotel"

    def __init__(self, http_client: HttpClient, public_url: str) -> None:
        self._http_client = http_client
        self._public_url = public_url

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Send one SMS, from the header that the template is registered with, else from the account's sender."""
        credentials, config = _typed(account)
        dlt = call.dlt
        sender = dlt["header"] if dlt is not None else config.sender
        if sender is None:
            return ProviderResult("rejected", None, "config", "sender_missing")
        text = call.content.text
        values = {
            "From": sender,
            "To": call.to,
            "Body": text,
            "EncodingType": "plain" if sms_segments(text).encoding == "gsm7" else "unicode",
            "StatusCallback": f"{self._public_url}{callback_path(account.id, credentials.callback_token)}",
            "CustomField": call.attempt_id,
        }
        if dlt is not None:
            values |= {
                "DltEntityId": dlt["entity_id"],
                "DltTemplateId": dlt["template_id"],
                "SmsType": _SMS_TYPES[dlt["category"]],
            }
        headers = {"Content-Type": "application/x-www-form-urlencoded", **_login(credentials)}
        url = f"{credentials.api_url}/Accounts/{credentials.account_sid}/Sms/send.json"
        return await post(self._http_client, account, url, headers, urlencode(values).encode(), _result)

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Read a status."""
        require_token(_typed(account)[0].callback_token, callback)
        values = dict(form(callback.body))
        id = short_text(values.get("SmsSid"))
        if id is None or not values.get("Status"):
            raise MalformedCallback("SmsSid or Status is missing")
        attempt_id = short_text(values.get("CustomField"))
        detailed, number = values.get("DetailedStatus", ""), values.get("DetailedStatusCode", "")
        return CallbackResponse([_report(id, values["Status"], detailed, number, values.get("DateSent"), attempt_id)])

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Read the account."""
        credentials, _ = _typed(account)
        url = f"{credentials.api_url}/Accounts/{credentials.account_sid}.json"
        result, _ = await get_json(self._http_client, account, url, _login(credentials))
        return result

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Read the message."""
        credentials, _ = _typed(account)
        url = f"{credentials.api_url}/Accounts/{credentials.account_sid}/SMS/Messages/{quote(provider_message_id, safe='')}.json"
        result, document = await get_json(self._http_client, account, url, _login(credentials))
        message = fields(fields(document).get("SMSMessage"))
        if result.outcome != "accepted" or message.get("Sid") != provider_message_id:
            return None
        values = {name: short_text(value) or "" for name, value in message.items()}
        if not values.get("Status"):
            return None
        detailed, number = values.get("DetailedStatus", ""), values.get("DetailedStatusCode", "")
        return _report(provider_message_id, values["Status"], detailed, number, values.get("DateSent"), None)


def _typed(account: ProviderAccount) -> tuple[ExotelCredentials, ExotelConfig]:
    credentials, config = account.credentials, account.config
    assert isinstance(credentials, ExotelCredentials)
    assert isinstance(config, ExotelConfig)
    return credentials, config


def _login(credentials: ExotelCredentials) -> dict[str, str]:
    return {"Authorization": basic(credentials.api_key, credentials.api_token)}


def _result(response: HttpResponse, document: Any) -> ProviderResult:
    if succeeded(response):
        return accepted(response, short_text(fields(fields(document).get("SMSMessage")).get("Sid")))
    code = short_text(fields(fields(document).get("RestException")).get("Code"))
    if response.status == 409:
        return ProviderResult("unknown", None, "ours", "duplicate", 409, raw={"http_status": 409})
    return rejected(response, class_of_answer(response.status or 0), code or f"http_{response.status}")


def _report(
    id: str, status: str, detailed: str, number: str, sent_at: str | None, attempt_id: str | None
) -> ProviderReport:
    state = state_of(status, detailed)
    failed = state == "failed"
    return ProviderReport(
        id,
        short_text(state) or "unknown",
        short_text(sent_at) or "",
        attempt_id,
        code=(detailed or status)[:200] if failed else None,
        raw={"detailed_status": detailed[:200], "detailed_status_code": number[:20]},
        failure=class_of_failure(status, detailed) if failed else None,
    )
