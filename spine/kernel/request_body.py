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
    """Parse JSON (RFC 8259) in UTF-8. Raises InvalidBody `invalid_json`, also for a name that an object has twice (RFC 7493
    section 2.3) and for integers that do not fit 64 bits.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _invalid(str(error)) from error
    if _LONG_NUMBER.search(raw) or _may_repeat_a_name(raw, value):
        _refuse_what_was_lost(raw)
    return value


def _may_repeat_a_name(raw: bytes, value: Any) -> bool:
    """True if `raw` may hold a name that `value` lost, because orjson keeps the last one of a name alone.

    Each member of an object has one colon. orjson never escapes a colon, so unless `raw` does, the parsed value has as many
    colons as `raw`, or fewer if a member was lost. A parser that calls Python for each object costs five times as much.
    """
    if b"\\u003a" in raw or b"\\u003A" in raw:
        return True
    try:
        return raw.count(b":") != orjson.dumps(value).count(b":")
    except orjson.JSONEncodeError:  # nested too deeply
        return True


def _refuse_what_was_lost(raw: bytes) -> None:
    """Raises InvalidBody for what orjson would change: a repeated name, or an integer that would become a rounded float."""
    try:
        json.loads(raw, parse_int=_check_64_bits, object_pairs_hook=_check_names)
    except RecursionError as error:
        raise too_deep() from error


def _check_names(members: list[tuple[str, Any]]) -> None:
    names = set()
    for name, _ in members:
        if name in names:
            raise _invalid(f"an object has the name {json.dumps(name[:100])} twice; send each name once")
        names.add(name)


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
