"""A fake of Exotel's SMS API, after its developer portal. Its callbacks carry no signature."""

import base64
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.provider_fakes.service import FakeService, Sent, outcome_of

ACCOUNT_SID, KEY, TOKEN, CALLBACK_TOKEN = "spine1", "key-1", "token-1", "exotel-callback-token-01"
FIELDS = frozenset(
    {"From", "To", "Body", "EncodingType", "StatusCallback", "CustomField", "DltEntityId", "DltTemplateId", "SmsType"}
)
_ERRORS = {"recipient": 404, "transient": 503, "rate": 429, "config": 403}


@dataclass
class FakeExotel(FakeService):
    """Exotel, for one account."""

    def routes(self) -> dict[str, Any]:
        """Sending, reading a message and reading the account."""
        account = f"/Accounts/{ACCOUNT_SID}"
        return {
            f"POST {account}/Sms/send.json": self._send,
            f"GET {account}/SMS/Messages/{{sid}}.json": self._read,
            f"GET {account}.json": self._account,
        }

    def credentials(self, **more: str) -> dict[str, str]:
        """The credentials of an account."""
        return {
            "account_sid": ACCOUNT_SID,
            "api_key": KEY,
            "api_token": TOKEN,
            "callback_token": CALLBACK_TOKEN,
            "api_url": self.url,
        } | more

    async def _account(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"Account": {"Sid": ACCOUNT_SID}}) if _logged_in(request) else _error(401)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        found = [one for one in self.sent if one.id == request.match_info["sid"]]
        if not _logged_in(request) or not found:
            return _error(404)
        message = {
            "Sid": found[0].id,
            "Status": "sent",
            "DetailedStatus": found[0].status,
            "DateSent": "2026-11-26 10:00:00",
        }
        return web.json_response({"SMSMessage": message})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        fields = {name: str(value) for name, value in (await request.post()).items()}
        if not _logged_in(request):
            return _error(401)
        if set(fields) - FIELDS or not {"From", "To", "Body"} <= set(fields) or len(fields["Body"]) > 2000:
            self.refuse(f"fields {sorted(fields)}")
            return _error(400)
        outcome = outcome_of(fields["To"])
        if outcome in _ERRORS:
            return _error(_ERRORS[outcome])
        sent = Sent(self.next_id("", 32), fields["CustomField"], fields, "SUBMITTED")
        self.sent.append(sent)
        if outcome == "lost":
            return await self.lose(request)
        return web.json_response({"SMSMessage": {"Sid": sent.id, "Status": "queued", "To": fields["To"]}})

    async def report(self, sent: Sent, status: str, detailed: str, code: str = "0") -> tuple[int, str, str]:
        """Call back with a state of a message."""
        fields = {"SmsSid": sent.id, "To": str(sent.fields["To"]), "Status": status, "SmsUnits": "1", "DetailedStatus": detailed,
                  "DetailedStatusCode": code, "DateSent": "2026-11-26 10:00:00", "CustomField": sent.attempt_id}  # fmt: skip
        return await self.call_back(str(sent.fields["StatusCallback"]), fields)


def _logged_in(request: web.Request) -> bool:
    given = request.headers.get("Authorization", "")
    return given == "Basic " + base64.b64encode(f"{KEY}:{TOKEN}".encode()).decode()


def _error(status: int) -> web.Response:
    return web.json_response(
        {"RestException": {"Status": status, "Message": "refused", "Code": 34000 + status}}, status=status
    )
