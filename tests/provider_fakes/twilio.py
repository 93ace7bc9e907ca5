"""A fake of Twilio's Messages resource, after its published OpenAPI document. Its callbacks are signed by Twilio's library."""

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import urldefrag

from aiohttp import web
from twilio.request_validator import RequestValidator

from tests.provider_fakes.service import FakeService, Sent, outcome_of

ACCOUNT_SID, AUTH_TOKEN = "AC" + "0" * 31 + "1", "test-auth-token"
SENDER = "+15005550006"
FIELDS = frozenset(
    {"To", "From", "MessagingServiceSid", "Body", "ContentSid", "ContentVariables", "StatusCallback", "ValidityPeriod"}
)
"""The fields of CreateMessage that Spine may use."""
_ERRORS = {
    "recipient": (400, 21211, "Invalid 'To' Phone Number"),
    "transient": (503, 20503, "Service unavailable"),
    "rate": (429, 20429, "Too Many Requests"),
    "config": (401, 20003, "Authenticate"),
}


@dataclass
class FakeTwilio(FakeService):
    """Twilio, for one account."""

    def routes(self) -> dict[str, Any]:
        """Sending, reading a message and reading the account."""
        account = f"/Accounts/{ACCOUNT_SID}"
        return {
            f"POST {account}/Messages.json": self._send,
            f"GET {account}/Messages/{{sid}}.json": self._read,
            f"GET {account}.json": self._account,
        }

    def credentials(self, **more: str) -> dict[str, str]:
        """The credentials of an account."""
        return {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "api_url": self.url} | more

    async def _account(self, request: web.Request) -> web.StreamResponse:
        if not _logged_in(request):
            return _error(*_ERRORS["config"])
        return web.json_response({"sid": ACCOUNT_SID, "status": "active"})

    async def _read(self, request: web.Request) -> web.StreamResponse:
        found = [one for one in self.sent if one.id == request.match_info["sid"]]
        if not _logged_in(request) or not found:
            return _error(404, 20404, "The requested resource was not found")
        code = 30005 if found[0].status == "undelivered" else None
        return web.json_response({"sid": found[0].id, "status": found[0].status, "error_code": code})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        fields = {name: str(value) for name, value in (await request.post()).items()}
        if not _logged_in(request):
            return _error(*_ERRORS["config"])
        why = _mistake(fields)
        if why is not None:
            self.refuse(why)
            return _error(400, 21601, why)
        outcome = outcome_of(fields["To"])
        if outcome in _ERRORS:
            return _error(*_ERRORS[outcome])
        attempt_id = fields["StatusCallback"].partition("attempt=")[2].partition("#")[0]
        sent = Sent(self.next_id("SM"), attempt_id, fields)
        self.sent.append(sent)
        if outcome == "lost":
            return await self.lose(request)
        segments = str(1 + len(fields.get("Body", "")) // 153)
        body = {"sid": sent.id, "status": "queued", "num_segments": segments, "price": None, "error_code": None}
        return web.json_response(body, status=201)

    async def report(self, sent: Sent, state: str, code: int | None = None) -> tuple[int, str, str]:
        """Call back with a state of a message, as Twilio does: at the given URL, without its fragment."""
        sent.status = state
        url = urldefrag(str(sent.fields["StatusCallback"])).url
        fields = {"MessageSid": sent.id, "MessageStatus": state, "SmsSid": sent.id, "SmsStatus": state,
                  "AccountSid": ACCOUNT_SID, "From": SENDER, "To": str(sent.fields["To"]), "ApiVersion": "2010-04-01"}  # fmt: skip
        if code is not None:
            fields["ErrorCode"] = str(code)
        return await self.call_back(url, fields, signed(url, fields))

    async def reply(self, url: str, id: str, sender: str, text: str, **more: str) -> tuple[int, str, str]:
        """Call back with a message that a person sent."""
        fields = {"MessageSid": id, "SmsSid": id, "AccountSid": ACCOUNT_SID, "From": sender, "To": SENDER, "Body": text,
                  "NumMedia": "0", "NumSegments": "1", **more}  # fmt: skip
        return await self.call_back(url, fields, signed(url, fields))


def signed(url: str, fields: dict[str, str], token: str = AUTH_TOKEN) -> dict[str, str]:
    """The headers of a callback, signed by Twilio's own library."""
    return {"X-Twilio-Signature": RequestValidator(token).compute_signature(url, fields)}


def _logged_in(request: web.Request) -> bool:
    given = request.headers.get("Authorization", "")
    return given == "Basic " + base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()


def _error(status: int, code: int, message: str) -> web.Response:
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return web.json_response(body, status=status)


def _mistake(fields: dict[str, str]) -> str | None:
    """Why Twilio would refuse a message; None if it would not."""
    if set(fields) - FIELDS:
        return f"unknown fields: {sorted(set(fields) - FIELDS)}"
    if ("From" in fields) == ("MessagingServiceSid" in fields):
        return "one sender is required"
    if ("Body" in fields) == ("ContentSid" in fields):
        return "one content is required"
    if not 1 <= int(fields["ValidityPeriod"]) <= 36_000:
        return "ValidityPeriod"
    return None if len(fields.get("Body", "")) <= 1600 else "Body is too long"
