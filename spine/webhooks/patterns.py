"""Patterns of event types: `ticket.created`, `ticket.*`, `*`; one meaning for endpoints, feeds, lists and replays."""

import functools
from typing import Annotated, Any

from pydantic import StringConstraints

Pattern = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(\.\*)?)$", max_length=128)]


@functools.lru_cache(maxsize=4096)
def candidates(type: str) -> tuple[str, ...]:
    """The patterns that match a type: itself, each of its families with `.*`, and `*`."""
    words = type.split(".")
    return (type, *(".".join(words[:n]) + ".*" for n in range(len(words) - 1, 0, -1)), "*")


def type_condition(patterns: list[str] | None) -> tuple[list[str], dict[str, Any]]:
    """The SQL condition that a column `type` matches one of these patterns, and its values; none where all do."""
    if not patterns or "*" in patterns:
        return [], {}
    condition = (
        "(type = ANY (cast(:types AS text[])) "
        "OR EXISTS (SELECT FROM unnest(cast(:families AS text[])) f WHERE starts_with(type, f)))"
    )
    return [condition], {
        "types": [name for name in patterns if not name.endswith(".*")],
        "families": [name.removesuffix("*") for name in patterns if name.endswith(".*")],
    }
