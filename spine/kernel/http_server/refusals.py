"""Refusals of a request that has not reached the application: the errors of a head, and their responses."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from spine.kernel import ids
from spine.kernel.errors import BadRequest, HeadersTooLarge, SpineError, UrlTooLong
from spine.kernel.metrics import http_request
from spine.kernel.responses import PROBLEM
from spine.kernel.settings import HttpSettings

Headers = list[tuple[bytes, bytes]]


def refusal_response(error: SpineError) -> bytes:
    """Return the response for an error, as the last one of its connection."""
    request_id = ids.mint("req")
    body = error.body(request_id)
    headers = {
        "content-type": PROBLEM,
        "content-length": str(len(body)),
        "request-id": request_id,
        "connection": "close",
        **error.headers,
    }
    http_request("", "refused", error.status, 0)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[error.status] + lines.encode() + b"\r\n" + body


def check_head(url: bytes, headers: Headers, names: list[bytes], settings: HttpSettings) -> None:
    """Raises SpineError for a head with too long a URL, too many lines, or another number of Host headers than one."""
    if len(url) > settings.max_url_bytes:
        raise _url_too_long(settings)
    if len(headers) > settings.max_headers:
        raise HeadersTooLarge(f"a request may have {settings.max_headers} header lines")
    if names.count(b"host") != 1:
        raise BadRequest("a request has exactly one Host header (RFC 9112 section 3.2)", code="invalid_host")


def too_many_bytes(url: bytes, settings: HttpSettings) -> SpineError:
    """Return the error for more bytes than a head may have. `url` is that of a head without a header so far."""
    if len(url) > settings.max_url_bytes:
        return _url_too_long(settings)
    return HeadersTooLarge(
        f"a head may have {settings.max_header_bytes} bytes, and so may what stands between two parts of a body"
    )


def not_http(why: Exception) -> SpineError:
    """Return the error for what is not HTTP/1.1, with the parser's reason."""
    return BadRequest(f"this is not HTTP/1.1: {why}", code="malformed_request")


def _url_too_long(settings: HttpSettings) -> SpineError:
    return UrlTooLong(f"a URL may have {settings.max_url_bytes} bytes")
