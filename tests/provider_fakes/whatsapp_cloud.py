"""A fake of Meta's Cloud API, after the request and webhook schemas of its published OpenAPI document (v23.0)."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tests.provider_fakes.service import FakeService, Sent, outcome_of

TOKEN, APP_SECRET, VERIFY_TOKEN = "EAAG-token", "app-secret", "verify-me"
PHONE_NUMBER_ID = "106540352242922"
_FIELDS = {
    "messaging_product",
    "recipient_type",
    "to",
    "type",
    "biz_opaque_callback_data",
    "context",
    "text",
    "template",
}
_ERRORS: dict[str, tuple[int, dict[str, Any]]] = {
    "recipient": (400, {"code": 131026, "message": "(#131026) Message undeliverable", "type": "OAuthException"}),
    "transient": (
        500,
        {"code": 131016, "message": "(#131016) Service overloaded", "type": "OAuthException", "is_transient": True},
    ),
    "rate": (400, {"code": 131056, "message": "(#131056) Pair rate limit hit", "type": "OAuthException"}),
    "config": (401, {"code": 190, "message": "Invalid OAuth access token", "type": "OAuthException"}),
}


@dataclass
class FakeWhatsAppCloud(FakeService):
    """Meta, for one number."""

    def routes(self) -> dict[str, Any]:
        """Sending, and reading the number."""
        return {f"POST /{PHONE_NUMBER_ID}/messages": self._send, f"GET /{PHONE_NUMBER_ID}": self._read}

    def credentials(self, **more: str) -> dict[str, str]:
        """The credentials of an account."""
        return {
            "access_token": TOKEN,
            "app_secret": APP_SECRET,
            "verify_token": VERIFY_TOKEN,
            "api_url": self.url,
        } | more

    async def _read(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(*_ERRORS["config"])
        return web.json_response({"id": PHONE_NUMBER_ID})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(*_ERRORS["config"])
        body = orjson.loads(await request.read())
        why = _mistake(body)
        if why is not None:
            self.refuse(why)
            return _error(400, {"code": 100, "message": why, "type": "OAuthException"})
        outcome = outcome_of(body["to"])
        if outcome in _ERRORS:
            return _error(*_ERRORS[outcome])
        sent = Sent(self.next_id("wamid."), body["biz_opaque_callback_data"], body)
        self.sent.append(sent)
        if outcome == "lost":
            return await self.lose(request)
        return web.json_response(
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": body["to"], "wa_id": body["to"]}],
                "messages": [{"id": sent.id, "message_status": "accepted"}],
            }
        )


def _error(status: int, error: dict[str, Any]) -> web.Response:
    return web.json_response({"error": error | {"fbtrace_id": "A1"}}, status=status)


def _mistake(body: dict[str, Any]) -> str | None:
    """Why Meta would refuse a message; None if it would not."""
    if set(body) - _FIELDS:
        return f"unknown fields: {sorted(set(body) - _FIELDS)}"
    if body.get("messaging_product") != "whatsapp" or body.get("recipient_type") != "individual":
        return "messaging_product or recipient_type"
    if not str(body.get("to", "")).isdigit():
        return "to is digits"
    if body.get("type") == "text":
        return None if set(body["text"]) <= {"body", "preview_url"} and body["text"]["body"] else "text"
    template = body.get("template", {})
    if body.get("type") != "template" or not template.get("name") or not template.get("language", {}).get("code"):
        return "template needs name and language"
    for component in template.get("components", []):
        if component["type"] not in {"header", "body", "button"}:
            return "component type"
        if component["type"] == "button" and not {"sub_type", "index"} <= set(component):
            return "a button needs sub_type and index"
        if not all(one.get("type") == "text" and one.get("text") for one in component.get("parameters", [])):
            return "parameters are texts that are not empty"
    return None


def signed(body: bytes, secret: str = APP_SECRET) -> dict[str, str]:
    """The headers of a webhook."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}", "Content-Type": "application/json"}


def status(id: str, state: str, attempt_id: str | None = None, code: int | None = None, at: int = 1) -> dict[str, Any]:
    """A status, as it stands in a change's value."""
    found: dict[str, Any] = {"id": id, "status": state, "timestamp": str(1_750_000_000 + at), "recipient_id": "1"}
    if attempt_id is not None:
        found["biz_opaque_callback_data"] = attempt_id
    if code is not None:
        found["errors"] = [{"code": code, "title": "failed", "message": "failed"}]
    return found


def message(id: str, sender: str, text: str, replied_to: str | None = None) -> dict[str, Any]:
    """A text that a person sent, as it stands in a change's value."""
    found: dict[str, Any] = {
        "from": sender,
        "id": id,
        "timestamp": "1750000009",
        "type": "text",
        "text": {"body": text},
    }
    return found | ({"context": {"from": "1555", "id": replied_to}} if replied_to is not None else {})


def moved(id: str, old: str, new: str) -> dict[str, Any]:
    """A person's change of number, as it stands in a change's value."""
    system = {"body": f"User changed from {old} to {new}", "wa_id": new, "type": "user_changed_number"}
    return {"from": old, "id": id, "timestamp": "1750000010", "type": "system", "system": system}


def webhook(*values: dict[str, Any]) -> bytes:
    """The body of a webhook with these changes' values: `{statuses: […]}`, `{messages: […]}`, or both."""
    changes = [
        {"field": "messages", "value": {"messaging_product": "whatsapp", "metadata": {"phone_number_id": "1"}, **value}}
        for value in values
    ]
    return orjson.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]})
