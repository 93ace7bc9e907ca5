"""SQL that reads the figures of the queues for the metrics. Each statement reads a bounded number of rows, whatever waits."""

from typing import Final

SAMPLE_BLOCKS: Final = 1_000
"""Blocks of a table that a count reads at most: 8 MB, up to 40,000 rows."""
COUNT_LIMIT: Final = 20_000
"""Rows up to which a count is exact, also in a table that has grown and is nearly empty."""

BLOCKS: Final = "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint"

_OUTBOX: Final = "count(*) AS outbox_rows"
_DELIVERIES: Final = """
    count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'retrying') AS retrying,
    count(*) FILTER (WHERE state = 'held') AS held, count(*) FILTER (WHERE due_at <= now()) AS due,
    count(*) FILTER (WHERE leased_by IS NOT NULL) AS leased, count(*) FILTER (WHERE due_at = 'infinity') AS parked
"""
_SENDS: Final = """
    count(*) AS sends, count(*) FILTER (WHERE leased_by IS NOT NULL) AS sends_leased,
    count(*) FILTER (WHERE due_at <= now()) AS sends_due
"""
_ENDPOINTS: Final = "count(*) FILTER (WHERE status = 'disabled' AND deleted_at IS NULL) AS disabled"


def _counts(table: str, counts: str, key: str) -> tuple[str, str, str]:
    sample = f"SELECT count(*) AS all_rows, {counts} FROM {table} TABLESAMPLE SYSTEM ($1)"
    first = f"SELECT {counts} FROM (SELECT * FROM {table} ORDER BY {key} LIMIT {COUNT_LIMIT}) t"
    return table, sample, first


COUNTED: Final = (
    _counts("spine.outbox", _OUTBOX, "seq"),
    _counts("spine.deliveries_open", _DELIVERIES, "workspace_id, id"),
    _counts("spine.sends_open", _SENDS, "workspace_id, id"),
    _counts("spine.webhook_endpoints", _ENDPOINTS, "workspace_id, id"),
)
"""Of each table: its name, the counts in a part of its blocks (`$1`, percent), and the counts in its first rows."""

OLDEST: Final = (
    "SELECT extract(epoch FROM now() - accepted_at) FROM spine.outbox ORDER BY seq LIMIT 1",
    """
    SELECT extract(epoch FROM now() - least(
               (SELECT due_at FROM spine.deliveries_open WHERE leased_by IS NULL AND state <> 'held' AND due_at <> 'infinity'
                 ORDER BY due_at LIMIT 1),
               (SELECT due_at FROM spine.deliveries_open WHERE leased_by IS NOT NULL AND state <> 'held' ORDER BY due_at LIMIT 1)
           ))
    """,
    "SELECT extract(epoch FROM now() - due_at) FROM spine.sends_open ORDER BY due_at LIMIT 1",
)
"""How many seconds the first row of the outbox, of the deliveries and of the messages has waited; negative while it is not due.

One statement for each table, so that what locks several of them never waits for a reader that waits for it.
"""

FAILING: Final = """
    WITH failing AS MATERIALIZED (
        SELECT extract(epoch FROM now() - h.failing_since) AS since_s
          FROM spine.endpoint_health h JOIN spine.webhook_endpoints w ON w.workspace_id = h.workspace_id AND w.id = h.endpoint_id
         WHERE h.failing_since < now() - interval '5 min' AND w.status = 'enabled' AND w.deleted_at IS NULL
         LIMIT $2
    )
    SELECT (SELECT count(*) FROM failing WHERE since_s >= longer.s) AS endpoints
      FROM unnest($1::float8[]) WITH ORDINALITY AS longer (s, n) ORDER BY n
"""
"""Of at most `$2` endpoints without a success, how many have been failing for each of these seconds."""

DEAD_LETTERS: Final = (
    "SELECT count(*) FROM (SELECT FROM spine.deliveries_closed WHERE state = 'dead' LIMIT $1) AS found"
)
DEAD_LETTERS_ESTIMATE: Final = """
    SELECT coalesce(sum(greatest(i.reltuples, 0)), 0)::bigint
      FROM pg_inherits p JOIN pg_class i ON i.oid = p.inhrelid WHERE p.inhparent = 'spine.deliveries_closed_dead'::regclass
"""
"""The entries of the indexes of dead letters when they were last vacuumed or analysed."""
