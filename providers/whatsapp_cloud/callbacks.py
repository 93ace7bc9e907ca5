"""Meta's callbacks: the set-up call, statuses, replies and changes of number, each item read by itself (failure case 16)."""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any, Final

from providers.http_calls import items, json_object, short_text
from providers.protocol import Callback, CallbackResponse, MalformedCallback, SignatureInvalid, text
from providers.whatsapp_cloud.codes import class_of, code_of, opt_out_of
from spine.notifications.account_models import WhatsAppCloudCredentials
from spine.notifications.provider_calls import ProviderReport

_STATES: Final = {"sent": "sent", "delivered": "delivered", "read": "read", "played": "read", "failed": "failed"}


def read_callback(credentials: WhatsAppCloudCredentials, callback: Callback) -> CallbackResponse:
    """Return the reports of a callback. Raises SignatureInvalid, MalformedCallback."""
    if callback.method == "GET":
        return _answer_setup(credentials, callback.query)
    expected = "sha256=" + hmac.new(credentials.app_secret.encode(), callback.body, hashlib.sha256).hexdigest()
    given = callback.headers.get("x-hub-signature-256") or ""
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise SignatureInvalid
    document = json_object(callback.body)
    reports = []
    for entry in items(document, "entry"):
        for change in items(entry, "changes"):
            value = change.get("value")
            if isinstance(value, dict):
                reports += [report for report in _reports(value) if report is not None]
    return CallbackResponse(reports)


def _answer_setup(credentials: WhatsAppCloudCredentials, query: Mapping[str, str]) -> CallbackResponse:
    """Answer the call by which Meta proves that the URL is the app's: its challenge, for the token that was agreed on."""
    token = query.get("hub.verify_token", "")
    if not hmac.compare_digest(credentials.verify_token.encode(), token.encode()):
        raise SignatureInvalid
    if query.get("hub.mode") != "subscribe" or not query.get("hub.challenge"):
        raise MalformedCallback("hub.mode is not subscribe, or hub.challenge is missing")
    return CallbackResponse(content=query["hub.challenge"][:1000].encode(), media_type="text/plain")


def _reports(value: Mapping[str, Any]) -> Iterator[ProviderReport | None]:
    for status in items(value, "statuses"):
        yield _status(status)
    for message in items(value, "messages"):
        yield _message(message)


def _status(status: Mapping[str, Any]) -> ProviderReport | None:
    id, state = short_text(status.get("id")), short_text(status.get("status"))
    if id is None or state is None:
        return None
    errors = items(status, "errors")
    code = code_of(errors[0]) if errors else None
    failed = state == "failed"
    return ProviderReport(
        provider_message_id=id,
        status=_STATES.get(state, state),
        reported_at=short_text(status.get("timestamp")) or "",
        attempt_id=short_text(status.get("biz_opaque_callback_data")),
        code=short_text(code),
        raw={"pricing": status["pricing"]} if isinstance(status.get("pricing"), dict) else {},
        failure=class_of(code) if failed and code is not None else None,
        opt_out=opt_out_of(code) if failed else None,
    )


def _message(message: Mapping[str, Any]) -> ProviderReport | None:
    id, sender = short_text(message.get("id")), short_text(message.get("from"))
    if id is None:
        return None
    kind = short_text(message.get("type")) or "unknown"
    reported_at = short_text(message.get("timestamp")) or ""
    address = f"+{sender}" if sender is not None and sender.isdigit() else None
    if kind == "system":
        system = message.get("system")
        new = short_text(system.get("wa_id")) if isinstance(system, dict) else None
        changed = f"+{new}" if new is not None and new.isdigit() else None
        return ProviderReport(id, "number_changed", reported_at, None, sender=address, new_address=changed)
    context = message.get("context")
    # Meta's document has message_id here and its examples have id.
    replied_to = (context.get("id") or context.get("message_id")) if isinstance(context, dict) else None
    return ProviderReport(
        id, "replied", reported_at, None, text=_text_of(message, kind), in_reply_to=short_text(replied_to), sender=address
    )  # fmt: skip


def _text_of(message: Mapping[str, Any], kind: str) -> str:
    """Return what a person wrote, or the label of the button; for other kinds, the caption or the kind in brackets."""
    part = message.get(kind)
    if not isinstance(part, dict):
        return f"[{kind}]"
    if kind == "interactive":
        answers = [part[name] for name in ("button_reply", "list_reply") if isinstance(part.get(name), dict)]
        part = answers[0] if answers else part
    for name in ("body", "text", "title", "caption", "emoji"):
        found = text(part, name)
        if found is not None:
            return found
    return f"[{kind}]"
