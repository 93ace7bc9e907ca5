"""JSON Schemas of callers: judged when they are registered, and applied so that none of them can stop a process.

A schema comes from a tenant and runs in everybody's process. So references stay inside it, patterns are matched in
linear time (Rust's regular expressions, the ones that pydantic uses), and each request gets a budget of steps.
"""

import functools
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, cast

import jsonschema
import orjson
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

MAX_BYTES: Final = 64 * 1024
_BUDGET: Final = 50_000
"""Steps for one request: under a second of the slowest kind."""
_REFUSED: Final = re.compile(r'"(\$id|\$dynamicRef|\$recursiveRef|patternProperties|unevaluatedProperties)":')
_REMOTE: Final = re.compile(r'"\$ref":"(?!#)')
_MAX_FAULTS: Final = 20

_left: ContextVar[int] = ContextVar("steps left for this request")
_Keyword = Callable[[Any, Any, Any, dict[str, Any]], Iterator[ValidationError] | None]


class TooCostly(Exception):
    """The schemas take too many steps for this request's data."""


def _spend(steps: int) -> None:
    left = _left.get() - steps
    if left < 0:
        raise TooCostly
    _left.set(left)


def _counted(keyword: _Keyword) -> _Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: dict[str, Any]) -> Iterator[ValidationError]:
        _spend(1 + (len(value) if isinstance(value, (list, dict)) else 0))
        yield from keyword(validator, value, instance, schema) or ()

    return check


@functools.lru_cache(maxsize=1000)
def _matcher(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _pattern(validator: Any, pattern: str, instance: Any, _: dict[str, Any]) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _matcher(pattern).isinstance_python(instance):
        yield ValidationError(f"{instance[:100]!r} does not match {pattern!r}")


def _unique(validator: Any, wanted: bool, instance: Any, _: dict[str, Any]) -> Iterator[ValidationError]:
    if wanted and validator.is_type(instance, "array"):
        _spend(len(instance))
        seen = {orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("its elements are not unique")


_Bounded = extend(  # type: ignore[no-untyped-call]  # the library leaves it so
    jsonschema.Draft202012Validator,
    {
        name: _counted(cast(_Keyword, keyword))
        for name, keyword in {
            **jsonschema.Draft202012Validator.VALIDATORS,
            "pattern": _pattern,
            "uniqueItems": _unique,
        }.items()
    },
)


def usable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as it was given. ValueError says why it cannot be registered."""
    try:
        text = orjson.dumps(schema).decode()
        if len(text) > MAX_BYTES:
            raise ValueError(f"a schema may have {MAX_BYTES} bytes")
        refused = _REFUSED.search(text)
        if refused:
            raise ValueError(f"{refused[1]} is not supported")
        if _REMOTE.search(text):
            raise ValueError("$ref may only point inside the schema itself (#/…)")
        jsonschema.Draft202012Validator.check_schema(schema)
        _check_parts(schema, schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"no valid JSON Schema: {error.message[:300]}") from error
    except (RecursionError, orjson.JSONEncodeError) as error:
        raise ValueError("it is nested too deeply") from error
    return schema


def _check_parts(part: Any, root: dict[str, Any]) -> None:
    """Every pattern must be one that we can match, every reference must lead somewhere."""
    if isinstance(part, list):
        for item in part:
            _check_parts(item, root)
    if not isinstance(part, dict):
        return
    pattern, reference = part.get("pattern"), part.get("$ref")
    if isinstance(pattern, str):
        try:
            _matcher(pattern)
        except SchemaError as error:
            raise ValueError(f"the pattern {pattern[:100]!r} is none that we support (no look-around)") from error
    if isinstance(reference, str):
        try:
            compiled(root)._resolver.lookup(reference)  # type: ignore[attr-defined]  # the library offers no other way
        except Unresolvable as error:
            raise ValueError(f"$ref {reference[:100]!r} leads nowhere") from error
    for item in part.values():
        _check_parts(item, root)


def compiled(schema: dict[str, Any]) -> Validator:
    """The schema, ready for use; it fetches nothing from anywhere."""
    return cast(Validator, _Bounded(schema, registry=Registry()))


def begin() -> None:
    """Give the running request its budget."""
    _left.set(_BUDGET)


def faults(validator: Validator, data: Any) -> list[ValidationError]:
    """What does not fit, in the order of the places, the first of them. Raises TooCostly."""
    try:
        found = sorted(validator.iter_errors(data), key=lambda error: list(map(str, error.absolute_path)))
    except RecursionError as error:
        raise TooCostly from error
    return found[:_MAX_FAULTS]
