"""JSON Schemas of callers: validated at registration, and applied with a limit on their cost.

A schema comes from one tenant and runs in a process that all tenants share. Therefore references may only point inside the
schema, patterns match in linear time (with Rust's regular expressions) and have a limited size, and each request has a budget of
steps.
"""

import functools
import re
import time
from collections.abc import Callable, Iterator, Set
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, cast

import jsonschema
import jsonschema_rs
import orjson
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

MAX_BYTES: Final = 64 * 1024
_BUDGET: Final = 50_000
"""Steps for one request: less than 1 s of the slowest kind."""
_REFUSED: Final = re.compile(r'"(\$id|\$dynamicRef|\$recursiveRef|patternProperties|unevaluatedProperties)":')
_REMOTE: Final = re.compile(r'"\$ref":"(?!#)')
_MAX_ERRORS: Final = 20
_MAX_PATTERNS: Final = 20
_MAX_PATTERN_CHARS: Final = 250
_PATTERN_SIZES: Final = tuple(kib * 1024 for kib in (1, 4, 16, 64, 160, 320))
_STEP_S: Final = 20e-6
_SHORT_CHARS: Final = 256
_PATTERN_BYTES_PER_STEP: Final = 128 * 1024
"""Compiled bytes for which one character takes one step at worst; mostly it takes far less."""

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


@dataclass(frozen=True, slots=True)
class _Matcher:
    """A compiled pattern. `size` is an upper bound of its compiled bytes, which decide what a character costs at worst."""

    is_valid: Callable[[Any], bool]
    size: int


@functools.lru_cache(maxsize=300)
def _matcher(pattern: str) -> _Matcher:
    """Compile a pattern. Raises ValueError if it is none, or larger than the largest of _PATTERN_SIZES."""
    for size in _PATTERN_SIZES:
        options = jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=_PATTERN_SIZES[1])
        try:
            compiled = jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=options)
        except jsonschema_rs.ValidationError:
            continue
        return _Matcher(compiled.is_valid, size)
    raise ValueError(
        f"the pattern {pattern[:100]!r} is none that we support (no look-around), or larger than "
        f"{_PATTERN_SIZES[-1]} bytes when compiled; repeat less, and bound lengths by minLength and maxLength"
    )


def _pattern(validator: Any, pattern: str, instance: Any, _: dict[str, Any]) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "string"):
        return
    try:
        matcher = _matcher(pattern)
    except ValueError as error:  # registered under older rules
        raise BudgetExceeded from error
    # A long text pays beforehand what it may take at worst, since nothing ends a match; every text pays what it took.
    _spend(max(0, len(instance) - _SHORT_CHARS) * matcher.size // _PATTERN_BYTES_PER_STEP)
    start_s = time.thread_time()
    valid = matcher.is_valid(instance)
    _spend(int((time.thread_time() - start_s) / _STEP_S))
    if not valid:
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
        patterns = set(_patterns(schema))
        _check_number(patterns)
        # Without its check of formats, which compiles each pattern with Python's engine.
        jsonschema.Draft202012Validator.check_schema(schema, format_checker=jsonschema.FormatChecker(formats=()))
        _check_references(schema, schema)
        for pattern in sorted(patterns):
            _matcher(pattern)
    except jsonschema.SchemaError as error:
        raise ValueError(f"no valid JSON Schema: {error.message[:300]}") from error
    except (RecursionError, orjson.JSONEncodeError) as error:
        raise ValueError("it is nested too deeply") from error
    return schema


def _patterns(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from _patterns(item)


def _check_number(patterns: Set[str]) -> None:
    """Raise ValueError for more or longer patterns than a schema may have. Compiling one takes up to 5 ms."""
    if len(patterns) > _MAX_PATTERNS:
        raise ValueError(f"it has {len(patterns)} different patterns; {_MAX_PATTERNS} are possible")
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise ValueError(f"the pattern {pattern[:100]!r}… is longer than {_MAX_PATTERN_CHARS} characters")


def _check_references(part: Any, root: dict[str, Any]) -> None:
    """Check that each reference resolves. Raises ValueError."""
    if isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str):
            try:
                compile_schema(root)._resolver.lookup(reference)  # type: ignore[attr-defined]  # the library offers no other way
            except Unresolvable as error:
                raise ValueError(f"$ref {reference[:100]!r} leads nowhere") from error
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            _check_references(item, root)


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
