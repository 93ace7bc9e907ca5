"""Checks of data against JSON Schemas: each takes counted steps, may take so many, and others go on in between.

A schema and its data come from one tenant, and a check runs in a process that all tenants share. Therefore everything whose
cost the tenant chooses is paid in steps of at most about 20 µs, and the event loop gets a turn after each 500 of them. The
keywords are those of jsonschema; only what applies them is our own, since its validators count nothing.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from sqlalchemy.util import await_only, greenlet_spawn

from spine.kernel.turns import next_turn
from spine.webhooks.schema_patterns import Matcher, matcher
from spine.webhooks.schema_references import References

BUDGET: Final = 75_000
"""Steps for one request: less than 1 s of the slowest kind."""
STEPS_PER_TURN: Final = 500
"""Steps after which others get a turn: about 10 ms of the slowest kind."""
MAX_STEPS_AT_ONCE: Final = 2_500
"""Steps that nothing can interrupt, such as one match of a pattern: at most 50 ms."""
_MAX_ERRORS: Final = 20
_MAX_MESSAGE_CHARS: Final = 500
_MESSAGE_CHARS_PER_STEP: Final = 2_000
_BYTES_PER_STEP: Final = 1_000
"""Bytes of JSON that are sorted and written in one step."""
_NAMES_PER_STEP: Final = 100
_MATCH_STEP_S: Final = 20e-6
_PAID_BY_PART: Final = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))


class BudgetExceeded(Exception):
    """The schemas take too many steps for the data of this request."""


class Budget:
    """The steps that the checks of one request may still take."""

    def __init__(self) -> None:
        self.left = BUDGET
        self._until_turn = STEPS_PER_TURN

    def spend(self, steps: int) -> None:
        """Pay for steps, and give others a turn when they are due. Raises BudgetExceeded."""
        self.left -= steps
        if self.left < 0:
            raise BudgetExceeded
        self._until_turn -= steps
        if self._until_turn <= 0:
            self._until_turn = STEPS_PER_TURN
            await_only(next_turn())

    def spend_at_once(self, steps: int) -> None:
        """Pay beforehand for steps between which others get no turn. Raises BudgetExceeded, also if they take too long."""
        if steps > MAX_STEPS_AT_ONCE:
            raise BudgetExceeded
        self.spend(steps)


class Check:
    """One schema, or a part of it, applied to data. It has what the keywords of jsonschema want of a validator."""

    __slots__ = ("_references", "budget", "schema")
    format_checker: Final = None

    def __init__(self, schema: Any, references: References, budget: Budget) -> None:
        self.schema = schema
        self.budget = budget
        self._references = references

    def is_type(self, instance: Any, type: str) -> bool:
        """Tell whether the instance has this type of JSON Schema."""
        found: bool = Draft202012Validator.TYPE_CHECKER.is_type(instance, type)
        return found

    def evolve(self, *, schema: Any) -> "Check":
        """Return the check of another part of the schema."""
        return Check(schema, self._references, self.budget)

    def is_valid(self, instance: Any) -> bool:
        """Tell whether the instance meets the schema."""
        return next(self.descend(instance, self.schema), None) is None

    def descend(
        self,
        instance: Any,
        schema: Any,
        path: Any = None,
        schema_path: Any = None,  # noqa: ARG002  # the keywords pass it
    ) -> Iterator[ValidationError]:
        """Yield what in the instance violates this part of the schema."""
        spend = self.budget.spend
        spend(1)
        if schema is True:
            return
        if schema is False:
            yield ValidationError("nothing may stand here", validator="false", path=() if path is None else (path,))
            return
        part = Check(schema, self._references, self.budget)
        for name, value in schema.items():
            keyword = _KEYWORDS.get(name)
            if keyword is None:
                continue
            spend(1 + (len(value) if isinstance(value, (list, dict)) and name not in _PAID_BY_PART else 0))
            for error in keyword(part, value, instance, schema) or ():
                spend(len(error.message) // _MESSAGE_CHARS_PER_STEP)
                error.message = error.message[:_MAX_MESSAGE_CHARS]  # it may quote all of the data
                if not isinstance(error.validator, str):
                    error.validator = name
                if path is not None:
                    error.relative_path.appendleft(path)
                yield error

    def _validate_reference(self, ref: str, instance: Any) -> Iterator[ValidationError]:
        return self.descend(instance, self._references.find(ref))


_Keyword = Callable[[Check, Any, Any, dict[str, Any]], Iterator[ValidationError] | None]
_LIBRARY: Final[dict[str, _Keyword]] = dict(Draft202012Validator.VALIDATORS)


def _pattern(check: Check, pattern: str, instance: Any, _: dict[str, Any]) -> Iterator[ValidationError]:
    if not isinstance(instance, str):
        return
    try:
        compiled: Matcher = matcher(pattern)
    except ValueError as error:  # registered under older rules
        raise BudgetExceeded from error
    # A long text pays beforehand what it may take at worst, since nothing ends a match; every text pays what it took.
    check.budget.spend_at_once(compiled.steps_at_worst(instance))
    valid, took_s = compiled.match(instance)
    check.budget.spend(int(took_s / _MATCH_STEP_S))
    if not valid:
        yield ValidationError(f"{instance[:100]!r} does not match {pattern!r}")


def _unique(check: Check, wanted: bool, instance: Any, _: dict[str, Any]) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list):
        seen = set()
        for item in instance:
            text = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
            check.budget.spend(1 + len(text) // _BYTES_PER_STEP)
            seen.add(text)
        if len(seen) < len(instance):
            yield ValidationError("its elements are not unique")


def _equal(name: str) -> _Keyword:
    """Return `const` or `enum` such that a comparison of lists and objects pays for all that they hold."""

    def keyword(check: Check, value: Any, instance: Any, schema: dict[str, Any]) -> Iterator[ValidationError]:
        if isinstance(instance, (list, dict)):
            for one in value if name == "enum" else (value,):
                check.budget.spend(_values_in(one))
        yield from _LIBRARY[name](check, value, instance, schema) or ()

    return keyword


def _values_in(value: Any) -> int:
    """Count the values in a list or object, at any depth."""
    found, todo = 0, [value]
    while todo:
        inner = todo.pop()
        if isinstance(inner, (list, dict)):
            found += len(inner)
            todo.extend(inner.values() if isinstance(inner, dict) else inner)
    return found


def _additional(check: Check, value: Any, instance: Any, schema: dict[str, Any]) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        check.budget.spend(len(instance) // _NAMES_PER_STEP)
        yield from _LIBRARY["additionalProperties"](check, value, instance, schema) or ()


def _refused(_: Check, _value: Any, _instance: Any, _schema: dict[str, Any]) -> Iterator[ValidationError]:
    raise BudgetExceeded  # registered under older rules


_KEYWORDS: Final[dict[str, _Keyword]] = {
    **_LIBRARY,
    "pattern": _pattern,
    "uniqueItems": _unique,
    "const": _equal("const"),
    "enum": _equal("enum"),
    "additionalProperties": _additional,
    **dict.fromkeys(("$dynamicRef", "patternProperties", "unevaluatedItems", "unevaluatedProperties"), _refused),
}


async def find_errors(schema: Any, references: References, data: Any, budget: Budget) -> list[ValidationError]:
    """Return 20 violations, ordered by their path in the data. Raises BudgetExceeded."""
    return await greenlet_spawn(_find_errors, Check(schema, references, budget), data)


def _find_errors(check: Check, data: Any) -> list[ValidationError]:
    try:
        found = list(itertools.islice(check.descend(data, check.schema), _MAX_ERRORS))
    except RecursionError as error:
        raise BudgetExceeded from error
    return sorted(found, key=lambda error: list(map(str, error.absolute_path)))
