"""Every error that the API returns: one class tree and one body format (RFC 9457; ruling X16).

    SpineError
    ├── BadRequest 400          idempotency_key_required, idempotency_key_invalid, invalid_cursor, invalid_if_match
    ├── Unauthenticated 401     unauthenticated
    ├── Forbidden 403           scope_missing
    ├── NotFound 404            not_found
    ├── MethodNotAllowed 405    method_not_allowed
    ├── Conflict 409            idempotency_key_reused, idempotency_key_in_use, illegal_transition, version_conflict, …
    ├── RequestTimeout 408      request_timeout
    ├── TooLarge 413            body_too_large
    ├── UrlTooLong 414          url_too_long
    ├── HeadersTooLarge 431     headers_too_large
    ├── Unprocessable 422       validation_failed, reference_not_found, …
    ├── TooManyRequests 429     rate_limited, backlog_full, quota_exceeded, …
    └── Unavailable 503         unavailable

`code` is stable. The docstring of a class is its default `detail`.
"""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, Field


class FieldError(BaseModel):
    """One field that was refused."""

    param: str = Field(description="The field, as a path from the body's root, the query or the headers.")
    code: str
    detail: str


class Error(BaseModel):
    """An RFC 9457 problem: what went wrong, where, and how to mend it."""

    type: str = Field(description="A URI that names this kind of problem.")
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; decide on this.")
    param: str | None = Field(default=None, description="The field at fault.")
    errors: list[FieldError] | None = Field(
        default=None, description="Every field at fault, where there may be several."
    )
    allowed: list[str] | None = Field(default=None, description="What would have been possible instead.")
    existing_id: str | None = Field(default=None, description="The id of what is there already.")
    request_id: str


class SpineError(Exception):
    """The request could not be served."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    code: str = "internal_error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        errors: Sequence[FieldError] | None = None,
        allowed: Sequence[str] | None = None,
        headers: dict[str, str] | None = None,
        existing_id: str | None = None,
    ) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.code = code or type(self).code
        self.param = param
        self.errors = list(errors) if errors else None
        self.allowed = list(allowed) if allowed is not None else None
        self.headers = headers or {}
        self.existing_id = existing_id
        super().__init__(self.detail)

    @property
    def is_result(self) -> bool:
        """True if this is the result of executed work, which an idempotency key replays (ruling X17)."""
        return self.status in (404, 409, 422)

    def body(self, request_id: str) -> bytes:
        """Return the problem document as JSON."""
        problem = Error(
            type=f"urn:spine:problem:{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            param=self.param,
            errors=self.errors,
            allowed=self.allowed,
            existing_id=self.existing_id,
            request_id=request_id,
        )
        return problem.model_dump_json(exclude_none=True).encode()


class InternalError(SpineError):
    """Our fault; it is logged under this request_id, and the request is safe to send again."""


class BadRequest(SpineError):
    """The request is malformed."""

    status, title, code = 400, "Bad request", "bad_request"


class Unauthenticated(SpineError):
    """Give a valid key: Authorization: Bearer sk_test_… or sk_live_…"""

    status, title, code = 401, "Not authenticated", "unauthenticated"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(SpineError):
    """The key lacks the scope that this call needs."""

    status, title, code = 403, "Forbidden", "scope_missing"


class NotFound(SpineError):
    """There is no such thing here."""

    status, title, code = 404, "Not found", "not_found"


class MethodNotAllowed(SpineError):
    """This path does not take that method."""

    status, title, code = 405, "Method not allowed", "method_not_allowed"


class Conflict(SpineError):
    """The request conflicts with the present state."""

    status, title, code = 409, "Conflict", "conflict"


class IllegalTransition(Conflict):
    """That move is not possible from the present state."""

    code = "illegal_transition"


class TooLarge(SpineError):
    """The body is too large."""

    status, title, code = 413, "Too large", "body_too_large"


class RequestTimeout(SpineError):
    """The request did not arrive in time; send its head and its body without a pause."""

    status, title, code = 408, "Request timeout", "request_timeout"


class UrlTooLong(SpineError):
    """The URL is too long."""

    status, title, code = 414, "URL too long", "url_too_long"


class HeadersTooLarge(SpineError):
    """The head of the request is too large."""

    status, title, code = 431, "Headers too large", "headers_too_large"


class Unprocessable(SpineError):
    """The request is well-formed but cannot be carried out."""

    status, title, code = 422, "Unprocessable", "validation_failed"


class InvalidBody(Unprocessable):
    """The body does not fit its schema."""

    # It is raised before any work is done, so no idempotency key stores it (ruling X17).
    @property
    def is_result(self) -> bool:
        return False


class TooManyRequests(SpineError):
    """Too many requests; wait and try again."""

    status, title, code = 429, "Too many requests", "rate_limited"

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after_s: int,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(max(1, retry_after_s)), **(headers or {})})


class Unavailable(SpineError):
    """The database is out of reach for a moment; nothing was done. Try again with the same Idempotency-Key."""

    status, title, code = 503, "Unavailable", "unavailable"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})
