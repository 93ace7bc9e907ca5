"""Filters of payloads: an endpoint's wish to get only the events whose `data` holds a piece of JSON.

They are judged here, on the very bytes that are sent, and not in SQL, whose jsonb cannot take every payload that is
JSON. What cannot be judged counts as meeting every filter: nothing is dropped on a guess (ADR 11).
"""

from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, Field

from policies.json_containment import Steps, TooManySteps, contains

MAX_BYTES: Final = 1024
MAX_DEPTH: Final = 5
STEPS_OF_AN_EVENT: Final = 100_000
"""For all filters of one event: some 50 ms. One array element is looked for to the end in the largest payload."""
STEPS_OF_A_BATCH: Final = 200_000
"""Where a batch of events is cut, so that the process turns to its other work."""
_BYTES_A_STEP: Final = 100
"""Payload that is parsed in the time of a step."""

Json = dict[str, Any]


def usable(filter: Json) -> Json:
    """The filter as it was given. ValueError says why it cannot be one."""
    _check(filter, MAX_DEPTH)
    size = len(orjson.dumps(filter))
    if size > MAX_BYTES:
        raise ValueError(f"a filter may have {MAX_BYTES} bytes of JSON; this has {size}: name fewer fields")
    return filter


def _check(part: Any, deeper: int) -> None:
    if isinstance(part, str) and "\x00" in part:
        raise ValueError("a filter's names and texts must not hold the character U+0000: leave that field out")
    if isinstance(part, (dict, list)):
        if not deeper:
            raise ValueError(f"a filter may be nested {MAX_DEPTH} deep: leave the inner ones out")
        for name in part if isinstance(part, dict) else ():
            _check(name, deeper)
        for item in part.values() if isinstance(part, dict) else part:
            _check(item, deeper - 1)


Filter = Annotated[
    Json,
    AfterValidator(usable),
    Field(
        description="Only events whose `data` holds this, among those of `events`: each field here stands there with the "
        "same value, objects field by field, arrays element by element in any order. "
        f"Up to {MAX_BYTES:,} bytes, nested up to {MAX_DEPTH} deep; null for every event.",
        examples=[{"pipeline": "sales", "customer": {"tier": "gold"}}],
    ),
]


def written(filter: Json | None) -> str | None:
    """A filter as its column has it: two that mean the same read the same."""
    return None if filter is None else orjson.dumps(filter, option=orjson.OPT_SORT_KEYS).decode()


def read(text: str | None) -> Json | None:
    """A filter from its column; None where there is none."""
    if text is None:
        return None
    filter: Json = orjson.loads(text)
    return filter


class Payload:
    """One event's payload before the filters of those who listen; parsed when the first of them asks."""

    __slots__ = ("_body", "_data", "_steps", "spent")

    def __init__(self, body: bytes | None) -> None:
        self._body = body
        self._data: Any = None
        self._steps: Steps | None = None
        self.spent = 0
        """Steps that judging it took."""

    def meets(self, filter: Json) -> bool:
        """Whether the payload holds the filter, or cannot be judged: erased, unreadable, or too costly."""
        if self._steps is None:
            self._open()
        if self._body is None or self._steps is None:
            return True
        try:
            return contains(self._data, filter, self._steps)
        except TooManySteps:
            return True
        finally:
            self.spent = STEPS_OF_AN_EVENT - max(self._steps.left, 0)

    def _open(self) -> None:
        if self._body is None:
            return
        try:
            self._data = orjson.loads(self._body)["data"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self._body = None
            return
        self._steps = Steps(STEPS_OF_AN_EVENT - len(self._body) // _BYTES_A_STEP)
