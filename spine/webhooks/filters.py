"""Payload filters: an endpoint with a filter gets only the events whose `data` contains a given JSON object.

Filters are evaluated here, on the bytes that are sent, and not in SQL, because jsonb does not accept every JSON payload.
A payload that cannot be evaluated matches every filter, so no event is dropped by mistake (ADR 11).
"""

from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, Field

from policies.json_containment import Steps, TooManySteps, contains

MAX_BYTES: Final = 1024
MAX_DEPTH: Final = 5
STEPS_OF_AN_EVENT: Final = 100_000
"""The limit for all filters of one event, about 50 ms. It suffices to search the largest payload for one array element."""
STEPS_OF_A_BATCH: Final = 200_000
"""The limit for one batch of events. The batch ends there, so that the process can do its other work."""
_BYTES_A_STEP: Final = 100
"""Bytes of payload that are parsed in the time of one step."""

Json = dict[str, Any]


def usable(filter: Json) -> Json:
    """Return the filter unchanged. Raises ValueError with the reason if it is invalid."""
    _check(filter, MAX_DEPTH)
    size = len(orjson.dumps(filter))
    if size > MAX_BYTES:
        raise ValueError(f"a filter may have {MAX_BYTES} bytes of JSON; this has {size}: name fewer fields")
    return filter


def _check(part: Any, depth_left: int) -> None:
    if isinstance(part, str) and "\x00" in part:
        raise ValueError("a filter's names and texts must not hold the character U+0000: leave that field out")
    if isinstance(part, (dict, list)):
        if not depth_left:
            raise ValueError(f"a filter may be nested {MAX_DEPTH} deep: leave the inner ones out")
        for name in part if isinstance(part, dict) else ():
            _check(name, depth_left)
        for item in part.values() if isinstance(part, dict) else part:
            _check(item, depth_left - 1)


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
    """Return the filter as stored in its column. Equal filters have equal texts."""
    return None if filter is None else orjson.dumps(filter, option=orjson.OPT_SORT_KEYS).decode()


def read(text: str | None) -> Json | None:
    """Return a filter from its column, or None if there is none."""
    if text is None:
        return None
    filter: Json = orjson.loads(text)
    return filter


class Payload:
    """The payload of one event, matched against the filters of its subscribers. The first match parses it."""

    __slots__ = ("_body", "_data", "_steps", "spent")

    def __init__(self, body: bytes | None) -> None:
        self._body = body
        self._data: Any = None
        self._steps: Steps | None = None
        self.spent = 0
        """Steps that its filters have used."""

    def meets(self, filter: Json) -> bool:
        """Return True if the payload contains the filter, or cannot be evaluated: erased, invalid, or too many steps."""
        if self._steps is None:
            self._parse()
        if self._body is None or self._steps is None:
            return True
        try:
            return contains(self._data, filter, self._steps)
        except TooManySteps:
            return True
        finally:
            self.spent = STEPS_OF_AN_EVENT - max(self._steps.left, 0)

    def _parse(self) -> None:
        if self._body is None:
            return
        try:
            self._data = orjson.loads(self._body)["data"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self._body = None
            return
        self._steps = Steps(STEPS_OF_AN_EVENT - len(self._body) // _BYTES_A_STEP)
