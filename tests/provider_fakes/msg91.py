"""A fake of MSG91's flow API, after its help pages. Its reports carry no signature."""

from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tests.provider_fakes.service import FakeService, Sent, outcome_of

AUTHKEY, CALLBACK_TOKEN, FLOW = "authkey-1", "msg91-callback-token-0001", "665f0a1b2c"
_ERRORS = {
    "recipient": (400, "Invalid mobile number"),
    "transient": (502, "Bad gateway"),
    "rate": (429, "Too many requests"),
    "config": (418, "IP is not whitelisted"),
}


@dataclass
class FakeMsg91(FakeService):
    """MSG91, for one key."""

    def routes(self) -> dict[str, Any]:
        """Sending."""
        return {"POST /flow": self._send}

    def credentials(self, **more: str) -> dict[str, str]:
        """The credentials of an account."""
        return {"authkey": AUTHKEY, "callback_token": CALLBACK_TOKEN, "api_url": self.url} | more

    async def _send(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authkey") != AUTHKEY:
            return _error(401, "Authkey is invalid")
        body = orjson.loads(await request.read())
        recipients = body.get("recipients", [])
        if set(body) - {"template_id", "short_url", "recipients"} or len(recipients) != 1:
            self.refuse(f"{sorted(body)}, {len(recipients)} recipients")
            return _error(400, "Invalid request")
        if body["template_id"] != FLOW:
            return _error(200, "Template does not exist")  # MSG91 says so with 200
        number = recipients[0]["mobiles"]
        if not number.isdigit():
            self.refuse("mobiles has no plus")
            return _error(400, "Invalid mobile number")
        outcome = outcome_of(number)
        if outcome in _ERRORS:
            return _error(*_ERRORS[outcome])
        request_id = self.next_id("3466", 20)
        self.sent.append(Sent(f"{request_id}:{number}", "", recipients[0]))
        if outcome == "lost":
            return await self.lose(request)
        return web.json_response({"message": request_id, "type": "success"})


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"type": "error", "message": message}, status=status)


def report(id: str, status: str, date: str = "2026-11-26 10:06:20", *others: tuple[str, str]) -> dict[str, str]:
    """A report of version 2 as a form: one field that is JSON. `others` are (number, status) of the same request."""
    request_id, _, number = id.partition(":")
    numbers = [(number, status), *others]
    items = [{"date": date, "number": one, "status": state, "desc": "", "failedReason": ""} for one, state in numbers]
    data = [{"senderId": "SPINEX", "requestId": request_id, "report": items, "userId": "1", "campaignName": "API"}]
    return {"data": orjson.dumps(data).decode()}
