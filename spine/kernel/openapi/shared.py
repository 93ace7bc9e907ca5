"""What every document shares, written once: the problem responses, parameters, headers and the security scheme (P-24)."""

from typing import Any, Final

from spine.kernel.idempotency import HEADER
from spine.kernel.responses import PROBLEM

INTRODUCTION: Final = """\
**Keys.** `Authorization: Bearer sk_test_…` or `sk_live_…`. Test and live are separate workspaces. `x-scope` of an operation
is the scope that its key needs.

**Ids** have the prefix of their kind and sort by the time they were made. The id of another workspace is not found (404).

**Mutations** take an `Idempotency-Key`. The same key and the same request return the first response again for 24 hours. The
same key with another request is a 409.

**Lists** return `data`, `has_more` and `next_cursor`. Give `next_cursor` as `cursor` to read on: no row is skipped or
repeated while others write.

**Errors** are RFC 9457 problems. Decide on `code`, which is stable; `param` names the field.

**Events** are signed (Standard Webhooks, HMAC-SHA256) and delivered at least once: retries after 1 s, 4 s, 16 s, 1 m, 5 m,
30 m and 2 h, then a dead letter that can be replayed. `x-events` of an operation are the events that it emits.
"""

PROBLEMS: Final = {
    "400": "The Idempotency-Key, the cursor or a header is missing or malformed.",
    "401": "No valid key was given.",
    "403": "The key lacks the scope.",
    "404": "There is no such thing in this workspace.",
    "408": "The request did not arrive in time.",
    "409": "It conflicts with the present state, or the Idempotency-Key was used for something else.",
    "413": "The body is too large.",
    "414": "The URL is too long.",
    "422": "The request does not fit its schema, or breaks a rule.",
    "429": "Too many requests; Retry-After says when to go on.",
    "431": "The head of the request is too large.",
    "500": "Our fault; the same request with the same Idempotency-Key is safe to send again.",
    "503": "Out of reach for a moment; the same request with the same Idempotency-Key is safe to send again.",
}
SECURITY_SCHEMES: Final = {"bearer": {"type": "http", "scheme": "bearer", "description": "sk_test_… or sk_live_…"}}
SERVERS: Final = [{"url": "/", "description": "The installation that serves this document"}]

PARAMETER_NAMES: Final = {"cursor": "Cursor", "limit": "Limit", "If-Match": "IfMatch"}
"""The components of parameters that many operations take, by the parameter's name."""
IDEMPOTENCY_KEY: Final = {
    "name": HEADER,
    "in": "header",
    "required": True,
    "description": "Same key and same request: the first answer again, for 24 hours. Same key, another request: 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
}
WEBHOOK_PARAMETERS: Final = {
    "WebhookId": {
        "name": "webhook-id",
        "in": "header",
        "required": True,
        "description": "The event's id, the same for all retries and replays: keep it to recognise a repeat.",
        "schema": {"type": "string"},
    },
    "WebhookTimestamp": {
        "name": "webhook-timestamp",
        "in": "header",
        "required": True,
        "description": "When this attempt was signed, in seconds since 1970. Refuse one that is more than 5 minutes off.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WebhookSignature": {
        "name": "webhook-signature",
        "in": "header",
        "required": True,
        "description": "`v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64; after a rotation two, with a space between.",
        "schema": {"type": "string"},
    },
}
HEADERS: Final = {
    "RequestId": {
        "description": "The id of this request, in the log and in its events. Name it when you ask for help.",
        "required": True,
        "schema": {"type": "string"},
    },
    "RateLimit": {"description": "What is left of the rate limit: `r` requests for `t` seconds.", "schema": {"type": "string"}},
    "RateLimitPolicy": {"description": "The rate limit: `q` requests in `w` seconds.", "schema": {"type": "string"}},
    "Location": {"description": "The path of what was made.", "schema": {"type": "string"}},
    "IdempotentReplayed": {
        "description": "Present if this is the stored response of an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "const": "true"},
    },
    "RetryAfter": {"description": "Seconds to wait.", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "WwwAuthenticate": {"description": "The challenge.", "required": True, "schema": {"type": "string", "const": "Bearer"}},
}  # fmt: skip
"""Response headers by component name."""
_HEADER_NAMES: Final = {
    "RequestId": "Request-Id",
    "RateLimitPolicy": "RateLimit-Policy",
    "IdempotentReplayed": "Idempotent-Replayed",
    "RetryAfter": "Retry-After",
    "WwwAuthenticate": "WWW-Authenticate",
}
_PROBLEM_HEADERS: Final = {"401": ("WwwAuthenticate",), "429": ("RetryAfter",), "503": ("RetryAfter",)}


def headers(*components: str) -> dict[str, Any]:
    """Return the `headers` of a response: references to these components, by the headers' names."""
    return {_HEADER_NAMES.get(name, name): {"$ref": f"#/components/headers/{name}"} for name in components}


def problem_responses() -> dict[str, Any]:
    """Return the response component of each status of an error."""
    return {
        f"Problem{status}": {
            "description": description,
            "headers": headers("RequestId", *_PROBLEM_HEADERS.get(status, ())),
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, description in PROBLEMS.items()
    }
