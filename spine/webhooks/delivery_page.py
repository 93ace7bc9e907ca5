"""One page of a list of deliveries, from a snapshot that all pages of the traversal share (requirement P-12)."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import text

from spine.kernel.cursors import Position
from spine.kernel.routes import PageRequest
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

_PAGE: Final = """
    SELECT {columns}, pg_current_snapshot()::text AS snapshot
      FROM {table}
     WHERE workspace_id = :ws {conditions}
     ORDER BY id DESC LIMIT :limit
"""


async def read_page(
    unit: UnitOfWork,
    paging: PageRequest,
    table: str,
    columns: str,
    conditions: list[str],
    values: dict[str, Any],
    out: Callable[[Any], Any],
) -> Page[Any]:
    """Return a page of the rows that meet the SQL `conditions` with `values`, newest first, each converted by `out`."""
    binding = f"{unit.workspace_id} {unit.path} {sorted((name, str(value)) for name, value in values.items())}"
    snapshot = None
    if paging.cursor:
        position = unit.platform.cursors.decode(binding, paging.cursor)
        snapshot = position.snapshot
        conditions = [
            *conditions,
            "id < :after",
            "pg_visible_in_snapshot(xid, cast(cast(:snapshot AS text) AS pg_snapshot))",
        ]
        values = values | {"after": position.after[0], "snapshot": snapshot}
    query = text(
        _PAGE.format(columns=columns, table=table, conditions="".join(f" AND {condition}" for condition in conditions))
    )
    rows = (await unit.session.execute(query, {"ws": unit.workspace_id, "limit": paging.limit + 1, **values})).all()
    page = rows[: paging.limit]
    has_more = len(rows) > paging.limit
    next_cursor = None
    if has_more:
        position = Position(snapshot or rows[0].snapshot, (page[-1].id,))
        next_cursor = unit.platform.cursors.encode(binding, position)
    return Page(data=[out(row) for row in page], has_more=has_more, next_cursor=next_cursor)
