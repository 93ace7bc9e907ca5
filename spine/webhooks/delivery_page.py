"""One page of a list of deliveries, from a snapshot that all pages of the traversal share (requirement P-12).

Open and closed deliveries are in two tables. A page looks at no more than SPINE_MAX_SCAN rows of each. If one table had more,
the page ends at the last row that was looked at, also if it has found too few deliveries by then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text

from spine.kernel.cursors import Position
from spine.kernel.routes import PageRequest
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

_SCAN: Final = """
    scanned_{n} AS MATERIALIZED (
        SELECT id, {matches} AS matches FROM {table} WHERE workspace_id = :ws {conditions} ORDER BY id DESC LIMIT :scan
    )
"""
_LAST: Final = "SELECT min(id) AS id FROM scanned_{n} HAVING count(*) = :scan"
_ALL: Final = "SELECT * FROM scanned_{n}"
_PAGE: Final = """
    WITH {scans}, reached AS (
        SELECT max(last.id) AS id FROM ({lasts}) last
    ), found AS (
        SELECT s.id FROM ({all}) s, reached
         WHERE s.matches AND (reached.id IS NULL OR s.id >= reached.id) ORDER BY s.id DESC LIMIT :limit
    )
    SELECT d.*, pg_current_snapshot()::text AS snapshot, reached.id AS reached
      FROM reached LEFT JOIN found ON true
      LEFT JOIN LATERAL (
               SELECT {columns} FROM spine.deliveries d WHERE d.workspace_id = :ws AND d.id = found.id LIMIT 1
           ) d ON true
     ORDER BY d.id DESC
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A table of deliveries: the conditions that an index supports, and those that are checked row by row."""

    table: str
    indexed: Sequence[str] = ()
    checked: Sequence[str] = ()


async def read_page(
    unit: UnitOfWork,
    paging: PageRequest,
    sources: Sequence[Source],
    columns: str,
    values: dict[str, Any],
    out: Callable[[Any], Any],
) -> Page[Any]:
    """Return a page of the rows that meet the SQL conditions with `values`, newest first, each converted by `out`."""
    binding = f"{unit.workspace_id} {unit.path} {sorted((name, str(value)) for name, value in values.items())}"
    snapshot, later = None, []
    if paging.cursor:
        position = unit.platform.cursors.decode(binding, paging.cursor)
        snapshot = position.snapshot
        later = ["id < :after", "pg_visible_in_snapshot(xid, cast(cast(:snapshot AS text) AS pg_snapshot))"]
        values = values | {"after": position.after[0], "snapshot": snapshot}
    values = values | {"ws": unit.workspace_id, "limit": paging.limit + 1, "scan": unit.platform.http.max_scan}
    rows = (await unit.session.execute(text(_query(sources, columns, later)), values)).all()
    found = [row for row in rows if row.id is not None]
    last: str | None = rows[0].reached
    if len(found) > paging.limit:
        found = found[: paging.limit]
        last = found[-1].id
    next_cursor = None
    if last is not None:
        next_cursor = unit.platform.cursors.encode(binding, Position(snapshot or rows[0].snapshot, (last,)))
    return Page(data=[out(row) for row in found], has_more=last is not None, next_cursor=next_cursor)


def _query(sources: Sequence[Source], columns: str, later: Sequence[str]) -> str:
    scans = (
        _SCAN.format(
            n=n,
            table=source.table,
            matches=" AND ".join(source.checked) or "true",
            conditions="".join(f" AND {condition}" for condition in (*source.indexed, *later)),
        )
        for n, source in enumerate(sources)
    )
    numbers = range(len(sources))
    return _PAGE.format(
        scans=",".join(scans),
        lasts=" UNION ALL ".join(_LAST.format(n=n) for n in numbers),
        all=" UNION ALL ".join(_ALL.format(n=n) for n in numbers),
        columns=columns,
    )
