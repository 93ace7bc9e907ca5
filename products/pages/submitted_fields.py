"""The body of a submitted page: `application/x-www-form-urlencoded`, read under limits."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from fastapi import Request

from spine.kernel.errors import InvalidBody, TooLarge

MAX_BODY_BYTES: Final = 144 * 1024
"""Room for a message of 10,000 characters of which each is four bytes, all escaped (12 bytes on the wire)."""
MAX_FIELDS: Final = 32
FORM: Final = "application/x-www-form-urlencoded"


async def read_fields(request: Request) -> dict[str, str]:
    """Return the fields of the body. Raises TooLarge, and InvalidBody for a malformed body."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise InvalidBody(f"send this form as {FORM}, as a browser does")
    if int(request.headers.get("content-length") or 0) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return parse_fields(bytes(body))


def parse_fields(body: bytes) -> dict[str, str]:
    """Parse the body. Raises InvalidBody for more than MAX_FIELDS fields, a repeated one or no UTF-8."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidBody("the form is not in UTF-8") from error
    except ValueError as error:
        raise InvalidBody(f"a form may have {MAX_FIELDS} fields") from error
    named = {name: _clean(value) for name, value in pairs}
    if len(named) != len(pairs):
        raise InvalidBody("the form has a field twice")
    return named


def _clean(text: str) -> str:
    """Return the text with plain line ends and without control characters, which Postgres or readers cannot take."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in lines if char in "\n\t" or (char >= " " and char != "\x7f"))


def text_of(fields: Mapping[str, str], name: str) -> str:
    """Return a field without white space at its ends, or an empty text."""
    return fields.get(name, "").strip()


def _too_large() -> TooLarge:
    return TooLarge(f"a form may have {MAX_BODY_BYTES} bytes")
