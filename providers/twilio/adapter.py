"""Sends SMS through Twilio. Our attempt id goes in the query of the status callback, which Twilio calls unchanged."""

from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from policies.fallback_values import FailureClass
from providers.http_calls import accepted, basic, fields, form, get_json, post, rejected, short_text, succeeded
from providers.protocol import Callback, CallbackResponse, MalformedCallback, SignatureInvalid
from providers.twilio.codes import STATES, class_of, opt_out_of
from providers.twilio.signature import is_signed
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import TwilioConfig, TwilioCredentials
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult, callback_path
from spine.notifications.provider_templates import parameter

_ATTEMPT: Final = "attempt"
_EMPTY_ANSWER: Final = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
_MAX_VALIDITY_S: Final = 36_000
_REDELIVERIES: Final = "#rc=5&rp=all"
"""Twilio calls once more by default; with this fragment, which is not part of the call, up to 5 times."""


class TwilioProvider:
    """Sends from one number or messaging service. `public_url` is where Twilio reports."""

    kind = "twilio"

    def __init__(self, http_client: HttpClient, public_url: str) -> None:
        self._http_client = http_client
        self._public_url = public_url

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Send one SMS, valid for as long as the step waits."""
        credentials, config = _typed(account)
        callback = f"{self._public_url}{callback_path(account.id)}?{_ATTEMPT}={call.attempt_id}{_REDELIVERIES}"
        values = {"To": call.to, "StatusCallback": callback, "ValidityPeriod": str(_validity_s(call))}
        if config.messaging_service_sid is not None:
            values["MessagingServiceSid"] = config.messaging_service_sid
        else:
            assert config.sender is not None
            values["From"] = config.sender
        template = call.provider_templates.get("twilio")
        if template is None:
            values["Body"] = call.content.text
        else:
            variables = {number: parameter(call.vars, name) for number, name in template["variables"].items()}
            values |= {"ContentSid": template["content_sid"], "ContentVariables": orjson.dumps(variables).decode()}
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Authorization": basic(credentials.account_sid, credentials.auth_token),
        }
        url = f"{credentials.api_url}/Accounts/{credentials.account_sid}/Messages.json"
        return await post(self._http_client, account, url, headers, urlencode(values).encode(), _result)

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Read a status or a reply. A reply is answered with an empty TwiML document, so that Twilio says nothing."""
        try:
            sent = form(callback.body)
        except MalformedCallback as error:  # the signature is over the fields
            raise SignatureInvalid from error
        signature = callback.headers.get("x-twilio-signature") or ""
        settings = callback.headers.get("x-twilio-webhooks-signature-settings") or ""
        if not is_signed(_typed(account)[0].auth_token, callback.url, sent, signature, settings):
            raise SignatureInvalid
        values = dict(sent)
        id = short_text(values.get("MessageSid") or values.get("SmsSid"))
        if id is None:
            raise MalformedCallback("MessageSid is missing")
        attempt_id = short_text(callback.query.get(_ATTEMPT))
        report = _status(id, values, attempt_id) if "MessageStatus" in values else _reply(id, values)
        return CallbackResponse([report], _EMPTY_ANSWER, "text/xml")

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Read the account."""
        credentials, _ = _typed(account)
        url = f"{credentials.api_url}/Accounts/{credentials.account_sid}.json"
        result, document = await self._get(credentials, account, url)
        if (
            isinstance(document, dict)
            and result.outcome == "accepted"
            and document.get("status") not in {None, "active"}
        ):
            return ProviderResult("rejected", None, "config", "account_suspended", result.http_status, raw=result.raw)
        return result

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Read the message, because Twilio gives up a callback after a few tries."""
        credentials, _ = _typed(account)
        url = f"{credentials.api_url}/Accounts/{credentials.account_sid}/Messages/{quote(provider_message_id, safe='')}.json"
        result, document = await self._get(credentials, account, url)
        if result.outcome != "accepted" or not isinstance(document, dict):
            return None
        state = short_text(document.get("status"))
        if state is None or document.get("sid") != provider_message_id:
            return None
        values = {"MessageStatus": state, "ErrorCode": short_text(document.get("error_code")) or ""}
        return _status(provider_message_id, values, None)

    async def _get(
        self, credentials: TwilioCredentials, account: ProviderAccount, url: str
    ) -> tuple[ProviderResult, Any]:
        login = {"Authorization": basic(credentials.account_sid, credentials.auth_token)}
        return await get_json(self._http_client, account, url, login)


def _typed(account: ProviderAccount) -> tuple[TwilioCredentials, TwilioConfig]:
    credentials, config = account.credentials, account.config
    assert isinstance(credentials, TwilioCredentials)
    assert isinstance(config, TwilioConfig)
    return credentials, config


def _validity_s(call: ProviderCall) -> int:
    return min(max(call.wait_s, 1), _MAX_VALIDITY_S)


def _result(response: HttpResponse, document: Any) -> ProviderResult:
    values = fields(document)
    if succeeded(response):
        segments = values.get("num_segments")
        raw = {"segments": int(segments)} if isinstance(segments, str) and segments.isdigit() else {}
        return accepted(response, short_text(values.get("sid")), **raw)
    code = _code(values.get("code"))
    failure = class_of(code, response.status or 0)
    return rejected(response, failure, short_text(code) or f"http_{response.status}", opt_out=opt_out_of(code))


def _code(value: Any) -> int | None:
    text = short_text(value)
    return int(text) if text is not None and text.isdigit() else None


def _status(id: str, values: dict[str, str], attempt_id: str | None) -> ProviderReport:
    state, code = values["MessageStatus"], _code(values.get("ErrorCode"))
    reported = STATES.get(state, state)
    failure: FailureClass | None = class_of(code) if reported == "failed" and code is not None else None
    # A state comes once, so the state tells a report from its repetitions; RawDlrDoneDate has no time zone (failure case 28).
    return ProviderReport(
        id, short_text(reported) or "unknown", "", attempt_id, code=short_text(code), failure=failure,
        opt_out=opt_out_of(code) if reported == "failed" else None,
    )  # fmt: skip


def _reply(id: str, values: dict[str, str]) -> ProviderReport:
    kind = values.get("OptOutType", "").lower()
    return ProviderReport(
        id,
        "replied",
        "",
        None,
        text=values.get("Body", "")[:8192].replace("\x00", "\ufffd"),
        in_reply_to=short_text(values.get("OriginalRepliedMessageSid")),
        sender=short_text(values.get("From")),
        wish="stop" if kind == "stop" else "start" if kind == "start" else None,
    )
