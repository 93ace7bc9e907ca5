"""JSON Schemas of callers: validated at registration, and applied with a limit on their cost.

A schema comes from one tenant and runs in a process that all tenants share. Therefore references may only point inside the
schema, patterns match in linear time (with pydantic's Rust regular expressions), and each request has a budget of steps.
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
"""Steps for one request: less than 1 s of the slowest kind."""
_REFUSED: Final = re.compile(r'"(\$id|\$dynamicRef|\$recursiveRef|patternProperties|unevaluatedProperties)":')
_REMOTE: Final = re.compile(r'"\$ref":"(?!#)')
_MAX_ERRORS: Final = 20

_left: ContextVar[int] = ContextVar("steps left for this request")
_Keyword = Callable[[Any, Any, Any, dict[str, Any]], Iterator[ValidationError] | None]


class BudgetExceeded(Exception):
    """The schemas take too many steps for the data of this request."""


def _spend(steps: int) -> None:
    left = _left.get() - steps
    if left < 0:
        raise BudgetExceeded
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


def validate_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema unchanged. Raises ValueError with the reason if it cannot be registered."""
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
    """Check that each pattern is supported and that each reference resolves. Raises ValueError."""
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
            compile_schema(root)._resolver.lookup(reference)  # type: ignore[attr-defined]  # the library offers no other way
        except Unresolvable as error:
            raise ValueError(f"$ref {reference[:100]!r} leads nowhere") from error
    for item in part.values():
        _check_parts(item, root)


def compile_schema(schema: dict[str, Any]) -> Validator:
    """Return a validator for the schema. It never fetches a remote reference."""
    return cast(Validator, _Bounded(schema, registry=Registry()))


def reset_budget() -> None:
    """Set the budget of the current request to its full size."""
    _left.set(_BUDGET)


def find_errors(validator: Validator, data: Any) -> list[ValidationError]:
    """Return the first 20 violations, ordered by their path in the data. Raises BudgetExceeded."""
    try:
        found = sorted(validator.iter_errors(data), key=lambda error: list(map(str, error.absolute_path)))
    except RecursionError as error:
        raise BudgetExceeded from error
    return found[:_MAX_ERRORS]
