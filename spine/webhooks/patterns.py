"""Patterns of event types: `ticket.created`, `ticket.*`, `*`; one meaning for endpoints, feeds, lists and replays.

Which endpoints listen to a type is asked the other way round: `spine.patterns_met` lists the patterns that a type meets.
"""

from typing import Annotated, Any

from pydantic import StringConstraints

Pattern = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(\.\*)?)$", max_length=128)]


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
