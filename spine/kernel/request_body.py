"""Request bodies: read under a limit, parsed strictly and once."""

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
    """A request whose body is read under the settings' limit, and whose JSON is what every reader of it gets."""

    async def body(self) -> bytes:
        """The bytes of the body. Raises TooLarge before more than the limit is held."""
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
        """The parsed body; None where there is none. Raises InvalidBody `invalid_json`."""
        if not hasattr(self, "_json"):
            raw = await self.body()
            self._json = parse(raw) if raw else None
        return self._json


def parse(raw: bytes) -> Any:
    """JSON as RFC 8259 has it, in UTF-8. Raises InvalidBody `invalid_json`, also for integers that 64 bits do not hold."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _invalid(str(error)) from error
    if _LONG_NUMBER.search(raw):
        _refuse_wide_integers(raw)
    return value


def _refuse_wide_integers(raw: bytes) -> None:
    """The fast parser would make a rounded float of such a number, and we do not pass on what nobody sent."""
    try:
        json.loads(raw, parse_int=_narrow)
    except RecursionError as error:
        raise too_deep() from error


def _narrow(digits: str) -> int:
    if len(digits) > 20 or not _LOWEST <= int(digits) <= _HIGHEST:
        raise _invalid(f"the integer {digits[:40]} does not fit 64 bits; send it as a text")
    return 0


def too_deep() -> InvalidBody:
    """The error for JSON that is nested beyond what we can write again."""
    return _invalid("it is nested too deeply")


def _invalid(why: str) -> InvalidBody:
    return InvalidBody(f"the body is not JSON that we can take: {why}", code="invalid_json")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"a body may have {limit} bytes")
