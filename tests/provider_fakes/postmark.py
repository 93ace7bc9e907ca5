"""A fake of Postmark's e-mail API, after its developer documents. Its webhooks carry no signature."""

from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tests.provider_fakes.service import OUTCOMES, FakeService, Sent

SERVER_TOKEN, CALLBACK_TOKEN = "server-token-1", "postmark-callback-token1"
_FIELDS = {"From", "To", "Subject", "TextBody", "HtmlBody", "ReplyTo", "MessageStream", "Metadata"}
_ERRORS = {
    "recipient": (422, 406, "You tried to send to a recipient that has been marked as inactive."),
    "transient": (503, 100, "Maintenance"),
    "rate": (429, 0, "Too many requests"),
    "config": (401, 10, "Bad or missing server token"),
}


@dataclass
class FakePostmark(FakeService):
    """Postmark, for one server. The local part of a recipient scripts the outcome."""

    def routes(self) -> dict[str, Any]:
        """Sending, and reading the server."""
        return {"POST /email": self._send, "GET /server": self._server}

    def credentials(self, **more: str) -> dict[str, str]:
        """The credentials of an account."""
        return {"server_token": SERVER_TOKEN, "callback_token": CALLBACK_TOKEN, "api_url": self.url} | more

    async def _server(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"ID": 1}) if _logged_in(request) else _error(*_ERRORS["config"])

    async def _send(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        if not _logged_in(request):
            return _error(*_ERRORS["config"])
        if set(body) - _FIELDS or not {"From", "To"} <= set(body) or not (body.get("TextBody") or body.get("HtmlBody")):
            self.refuse(f"fields {sorted(body)}")
            return _error(422, 300, "Invalid email request")
        outcome = str(body["To"]).partition("@")[0]
        outcome = outcome if outcome in OUTCOMES else "accepted"
        if outcome in _ERRORS:
            return _error(*_ERRORS[outcome])
        sent = Sent(self.next_id("b7bc2f4a-", 20), body["Metadata"]["attempt_id"], body)
        self.sent.append(sent)
        if outcome == "lost":
            return await self.lose(request)
        return web.json_response({"To": body["To"], "MessageID": sent.id, "ErrorCode": 0, "Message": "OK"})


def _logged_in(request: web.Request) -> bool:
    return request.headers.get("X-Postmark-Server-Token") == SERVER_TOKEN


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"ErrorCode": code, "Message": message}, status=status)


def webhook(sent: Sent, kind: str, **fields: Any) -> bytes:
    """The body of a webhook about a mail."""
    record = {"RecordType": kind, "MessageID": sent.id, "Metadata": sent.fields["Metadata"], "ServerID": 1}
    return orjson.dumps(record | fields)
