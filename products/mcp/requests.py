"""From a tool's arguments to the request of its operation. What only a tool can get wrong is refused here, by name."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from products.mcp.tools import IDEMPOTENCY_KEY, Argument, Tool
from spine.kernel.errors import BadRequest, FieldError, InvalidBody, NotFound, UrlTooLong
from spine.kernel.idempotency import HEADER, read_key
from spine.kernel.request_body import too_deep
from spine.kernel.responses import JSON

_MAX_ERRORS: Final = 20
_SCALARS: Final = (str, int, float, bool)
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """A request of an operation: `path` is not encoded, `query` is."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def to_request(tool: Tool, arguments: Mapping[str, Any], max_url_bytes: int) -> OperationRequest:
    """Return the request of a call. Raises BadRequest for the key, InvalidBody for other arguments, NotFound, UrlTooLong."""
    headers: dict[str, str] = {}
    if tool.takes_key:
        headers[HEADER] = _key(arguments.get(IDEMPOTENCY_KEY))
    given = {
        name: (tool.arguments.get(name) or Argument("body", name), value)
        for name, value in arguments.items()
        if name != IDEMPOTENCY_KEY or not tool.takes_key
    }
    _refuse_wrong_arguments(tool, given)
    segments: dict[str, str] = {}
    query: list[tuple[str, str]] = []
    body: dict[str, Any] = {}
    for target, value in given.values():
        if target.place == "path":
            segments[target.name] = _segment(value)
        elif target.place == "body":
            body[target.name] = value
        elif value is not None and target.place == "query":
            query += [(target.name, _text(part)) for part in (value if isinstance(value, list) else [value])]
        elif value is not None:
            headers[target.name] = _text(value)
    path = _PLACEHOLDER.sub(lambda found: segments[found[1]], tool.path)
    encoded = urlencode(query)
    if len(quote(path)) + len(encoded) > max_url_bytes:
        raise UrlTooLong("the arguments that become the URL are too long")
    content = _json(body) if body or tool.body == "required" else b""
    return OperationRequest(tool.method, path, encoded, headers | ({"Content-Type": JSON} if content else {}), content)


def _key(value: Any) -> str:
    try:
        return read_key(value if isinstance(value, str | None) else " ")
    except BadRequest as error:
        detail = (
            "give the argument idempotency_key, for example a UUID; give the same one again to repeat this call"
            if error.code == "idempotency_key_required"
            else "an idempotency_key is 1 to 255 visible ASCII characters"
        )
        raise BadRequest(detail, code=error.code, param=IDEMPOTENCY_KEY) from error


def _refuse_wrong_arguments(tool: Tool, given: Mapping[str, tuple[Argument, Any]]) -> None:
    """Raises InvalidBody for unknown arguments, missing parts of the path, and values that no URL or header can hold."""
    errors = [
        FieldError(param=name[:200], code="extra_forbidden", detail="this tool has no such argument")
        for name in given
        if name not in tool.arguments and not tool.open_body
    ]
    unknown = bool(errors)
    errors += [
        FieldError(param=name, code="missing", detail="this argument is required")
        for name, target in tool.arguments.items()
        if target.place == "path" and given.get(name, (target, None))[1] is None
    ]
    errors += [
        FieldError(param=name, code="invalid_type", detail=problem)
        for name, (target, value) in given.items()
        if value is not None and (problem := _wrong_type(target, value))
    ]
    if errors:
        detail = "; ".join(f"{error.param}: {error.detail}" for error in errors[:5])
        raise InvalidBody(
            detail,
            param=errors[0].param,
            errors=errors[:_MAX_ERRORS],
            allowed=sorted(tool.arguments) if unknown else None,
        )


def _wrong_type(target: Argument, value: Any) -> str | None:
    if target.place == "body":
        return None  # the operation checks its body itself
    if target.place == "path":
        return None if isinstance(value, str) else "give a text"
    if target.many and isinstance(value, list):
        return None if all(isinstance(part, _SCALARS) for part in value) else "give a list of texts or numbers"
    return None if isinstance(value, _SCALARS) else "give a text, a number or a boolean"


def _segment(value: str) -> str:
    """Return a value as one segment of a path. Raises NotFound for one that would lead to another path, as no id does."""
    if not value or "/" in value:
        raise NotFound("there is no such thing here; an id is one segment of a path")
    return value


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body).encode()
    except RecursionError as error:
        raise too_deep() from error
