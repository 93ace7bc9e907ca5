"""Subscriptions: the patterns and the filter of an endpoint, each with the period in which it is valid."""

from typing import Final

from sqlalchemy import text

from spine.kernel.unit_of_work import UnitOfWork

# The same instant ends the old subscriptions and starts the new ones, so no event is accepted in a gap between them.
_REPLACE: Final = text("""
    WITH at AS MATERIALIZED (SELECT clock_timestamp() AS instant), ended AS (
        UPDATE spine.subscriptions s SET valid_to = at.instant FROM at
         WHERE s.workspace_id = :ws AND s.endpoint_id = :id AND s.valid_to = 'infinity'
           AND (s.pattern <> ALL (cast(:patterns AS text[])) OR s.filter IS DISTINCT FROM cast(:filter AS text))
    )
    INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern, filter, valid_from)
    SELECT :ws, :id, p, cast(:filter AS text), at.instant FROM at, unnest(cast(:patterns AS text[])) p
     WHERE NOT EXISTS (SELECT FROM spine.subscriptions s
                        WHERE s.workspace_id = :ws AND s.endpoint_id = :id AND s.pattern = p AND s.valid_to = 'infinity'
                          AND s.filter IS NOT DISTINCT FROM cast(:filter AS text))
""")


async def replace_subscriptions(unit: UnitOfWork, endpoint_id: str, patterns: list[str], filter: str | None) -> None:
    """Make these the endpoint's patterns and filter from now on. Events accepted earlier keep the old ones (ADR 3)."""
    values = {"ws": unit.workspace_id, "id": endpoint_id, "patterns": sorted(set(patterns)), "filter": filter}
    await unit.session.execute(_REPLACE, values)
