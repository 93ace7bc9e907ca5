"""Request bodies: read under a size limit, and parsed strictly and once."""

import json
import re
from typing import Any, Final

import orjson
from fastapi import Request

from spine.kernel.errors import InvalidBody, TooLarge

_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**64 - 1


class BodyRequest(Request):
    """A request whose body is limited to SPINE_MAX_BODY_BYTES and whose JSON is parsed once for all readers."""

    async def body(self) -> bytes:
        """Return the bytes of the body. Raises TooLarge before more than the limit is in memory."""
        if not hasattr(self, "_body"):
            limit: int = self.app.state.platform.http.max_body_bytes
            if int(self.headers.get("content-length") or 0) > limit:
                raise _too_large(limit)
            chunks = bytearray()
            async for chunk in self.stream():
                chunks += chunk
                if len(chunks) > limit:
                    raise _too_large(limit)
            self._body = bytes(chunks)
        return self._body

    async def json(self) -> Any:
        """Return the parsed body, or None if it is empty. Raises InvalidBody `invalid_json`."""
        if not hasattr(self, "_json"):
            raw = await self.body()
            self._json = parse(raw) if raw else None
        return self._json


def parse(raw: bytes) -> Any:
    """Parse JSON (RFC 8259) in UTF-8. Raises InvalidBody `invalid_json`, also for integers that do not fit 64 bits."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _invalid(str(error)) from error
    if _LONG_NUMBER.search(raw):
        _refuse_wide_integers(raw)
    return value


def _refuse_wide_integers(raw: bytes) -> None:
    """Raises InvalidBody for an integer beyond 64 bits: orjson would turn it into a rounded float, a value that nobody sent."""
    try:
        json.loads(raw, parse_int=_check_64_bits)
    except RecursionError as error:
        raise too_deep() from error


def _check_64_bits(digits: str) -> int:
    if len(digits) > 20 or not _LOWEST <= int(digits) <= _HIGHEST:
        raise _invalid(f"the integer {digits[:40]} does not fit 64 bits; send it as a text")
    return 0


def too_deep() -> InvalidBody:
    """Return the error for JSON that is nested more deeply than it can be serialised."""
    return _invalid("it is nested too deeply")


def _invalid(why: str) -> InvalidBody:
    return InvalidBody(f"the body is not JSON that we can take: {why}", code="invalid_json")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"a body may have {limit} bytes")
