"""Patterns of event types: `ticket.created`, `ticket.*`, `*`, with one meaning for endpoints, feeds, lists and replays.

The search for an event's subscribers uses the inverse: the SQL function `spine.patterns_met` returns the patterns that
match a type.
"""

from typing import Annotated, Any

from pydantic import StringConstraints

Pattern = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(\.\*)?)$", max_length=128)]


def split_patterns(patterns: list[str] | None) -> tuple[list[str], list[str]] | None:
    """Return the exact types and the prefixes of families (`order.` for `order.*`). None if the patterns match every type."""
    if not patterns or "*" in patterns:
        return None
    exact = [name for name in patterns if not name.endswith(".*")]
    return exact, [name.removesuffix("*") for name in patterns if name.endswith(".*")]


def type_condition(patterns: list[str] | None) -> tuple[list[str], dict[str, Any]]:
    """Return the SQL condition that a column `type` matches one of the patterns, and its values. Empty if all types match."""
    split = split_patterns(patterns)
    if split is None:
        return [], {}
    exact, prefixes = split
    condition = (
        "(type = ANY (cast(:types AS text[])) "
        "OR EXISTS (SELECT FROM unnest(cast(:families AS text[])) f WHERE starts_with(type, f)))"
    )
    return [condition], {"types": exact, "families": prefixes}
