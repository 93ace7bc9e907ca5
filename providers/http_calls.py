"""What adapters that speak HTTP share: the result of a call without an answer, and careful reading of answers."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from policies.fallback_values import FailureClass
from policies.retry import parse_retry_after
from providers.protocol import MalformedCallback
from spine.kernel.http_client import HttpClient, HttpResponse
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderResult

_NOT_SENT_CODES: Final = frozenset(
    {"connect_refused", "connect_unreachable", "connect_timeout", "dns_error", "tls_error"}
)
_CONFIG_CODES: Final = frozenset({"egress_blocked", "invalid_url", "invalid_request"})
_AUTH_STATUSES: Final = frozenset({401, 403, 407})
_MAX_FIELDS: Final = 1_000


def result_without_response(response: HttpResponse) -> ProviderResult | None:
    """Return the result of a call that has no complete answer; None if it has one."""
    if response.status is not None and response.error is None:
        return None
    code = response.error or "no_answer"
    raw: dict[str, Any] = {"error": code}
    if code in _NOT_SENT_CODES:
        return ProviderResult("rejected", None, "connect", code, response.status, raw=raw)
    if code in _CONFIG_CODES:
        return ProviderResult("rejected", None, "config", code, response.status, raw=raw)
    return ProviderResult("unknown", None, "timeout", code, response.status, raw=raw)


def succeeded(response: HttpResponse) -> bool:
    """True for an answer with a status of 2xx."""
    return response.status is not None and 200 <= response.status < 300


def class_of_status(status: int) -> FailureClass:
    """Return the class of a refusal by its HTTP status (providers.md 2.5)."""
    if status == 429:
        return "rate"
    if status in {408, 425} or status >= 500:
        return "transient"
    return "config" if status in _AUTH_STATUSES else "recipient"


def retry_after_s(response: HttpResponse) -> float | None:
    """Return the seconds that a 429 or a 503 asks to wait; None if it does not say."""
    if response.status not in {429, 503}:
        return None
    return parse_retry_after(response.retry_after, response.ended_at)


def rejected(
    response: HttpResponse, failure: FailureClass, code: str, *, opt_out: str | None = None, wait_s: float | None = None
) -> ProviderResult:
    """Return the result of a refused call. `wait_s` is the pause before the next call, where the answer gives none."""
    pause_s = retry_after_s(response)
    raw = {"http_status": response.status}
    return ProviderResult(
        "rejected", None, failure, code, response.status, wait_s if pause_s is None else pause_s, raw, opt_out
    )


def accepted(response: HttpResponse, id: str | None, **raw: Any) -> ProviderResult:
    """Return the result of a call that the provider took."""
    return ProviderResult("accepted", id, http_status=response.status, raw={"http_status": response.status, **raw})


def parse_json(body: bytes) -> Any:
    """Return the document, or None if the body is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def json_object(body: bytes) -> dict[str, Any]:
    """Return the object in a callback's body. Raises MalformedCallback."""
    document = parse_json(body)
    if not isinstance(document, dict):
        raise MalformedCallback("the body is no JSON object")
    return document


def form(body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a callback's form, in order. Raises MalformedCallback for more than 1,000, or no UTF-8."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise MalformedCallback("the body is no form") from error


def short_text(value: Any) -> str | None:
    """Return a text or a number as a text of 200 characters at most, without NUL; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:200].replace("\x00", "\ufffd") or None


def fields(document: Any) -> dict[str, Any]:
    """Return a document that is an object; an empty one for any other."""
    return document if isinstance(document, dict) else {}


def items(document: Any, name: str) -> list[dict[str, Any]]:
    """Return the objects in a list of an object; none if it has no such list."""
    found = fields(document).get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


async def get_json(
    http_client: HttpClient, account: ProviderAccount, url: str, headers: Mapping[str, str]
) -> tuple[ProviderResult, Any]:
    """Read a document from a provider. Returns how the call went, and the document or None."""
    response = await http_client.call(
        url,
        {"Accept": "application/json", "User-Agent": "Spine", **headers},
        b"",
        https_required=account.env == "live",
        workspace_id=account.workspace_id,
        method="GET",
    )
    failed = result_without_response(response)
    if failed is not None:
        return failed, None
    document = parse_json(response.body_excerpt)
    if not succeeded(response):
        return rejected(response, class_of_status(response.status or 0), f"http_{response.status}"), document
    return accepted(response, None), document


async def post(
    http_client: HttpClient,
    account: ProviderAccount,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    read: Callable[[HttpResponse, Any], ProviderResult],
) -> ProviderResult:
    """POST to a provider, through the SSRF guard. A live account's call is never in clear, except to allowed ranges.

    `read` makes the result of a complete answer, with its document or None.
    """
    response = await http_client.call(
        url,
        {"Accept": "application/json", "User-Agent": "Spine", **headers},
        body,
        https_required=account.env == "live",
        workspace_id=account.workspace_id,
    )
    failed = result_without_response(response)
    return failed if failed is not None else read(response, parse_json(response.body_excerpt))
