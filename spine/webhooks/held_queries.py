"""SQL for deliveries that follow their endpoint's row, and for held ones: each statement reads a bounded number of rows."""

from typing import Final

from spine.webhooks.queries import REPLAYS_COUNT

TRANSITION_TAKE: Final = """
    SELECT workspace_id, endpoint_id AS id FROM spine.endpoint_transitions
     WHERE workspace_id > $1 AND due_at <= now() ORDER BY workspace_id, due_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
"""Locks the endpoint transition of the next workspace after `$1` that has waited longest for its next step."""

TRANSITION_STEP: Final = "SELECT moved, done FROM spine.endpoint_follow($1, $2, $3)"

TRANSITION_PUT_OFF: Final = """
    UPDATE spine.endpoint_transitions
       SET failures = failures + 1, error = $3,
           due_at = clock_timestamp() + least(interval '1 s' * power(2, least(failures, 10)), interval '5 min')
     WHERE workspace_id = $1 AND endpoint_id = $2
"""

TRANSITIONS_ADD: Final = """
    INSERT INTO spine.endpoint_transitions (workspace_id, endpoint_id)
    SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING
"""

TRANSITIONS_COUNT: Final = "SELECT count(*) FROM spine.endpoint_transitions"

HELD_FIND: Final = """
    WITH RECURSIVE endpoint AS (
        (SELECT endpoint_id, 1 AS n FROM spine.deliveries_open
          WHERE state = 'held' AND endpoint_id > $1 ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.endpoint_id FROM spine.deliveries_open o
                 WHERE o.state = 'held' AND o.endpoint_id > endpoint.endpoint_id ORDER BY o.endpoint_id LIMIT 1), n + 1
          FROM endpoint WHERE endpoint.endpoint_id IS NOT NULL AND n < $2
    )
    SELECT w.workspace_id, w.id, w.status = 'enabled' OR w.deleted_at IS NOT NULL AS stray,
           o.accepted_at < now() - $3::interval AS expired
      FROM endpoint e
      JOIN LATERAL (
               SELECT workspace_id, accepted_at FROM spine.deliveries_open o
                WHERE o.endpoint_id = e.endpoint_id AND o.state = 'held' ORDER BY o.id LIMIT 1
           ) o ON true
      JOIN spine.webhook_endpoints w ON w.workspace_id = o.workspace_id AND w.id = e.endpoint_id
     ORDER BY w.id
"""
"""The next `$2` endpoints with an id above `$1` that have held deliveries: a loose index scan with one probe per endpoint.

`stray` ones are enabled or deleted: the relay read the endpoint just before it changed. `expired` says whether the oldest held
delivery is older than the retention period `$3`.
"""

HELD_EXPIRE: Final = f"""
    WITH old AS MATERIALIZED (
        SELECT o.ctid FROM (
                   SELECT ctid, accepted_at FROM spine.deliveries_open
                    WHERE endpoint_id = $1 AND state = 'held' ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
               ) o
         WHERE o.accepted_at < now() - $2::interval
    ), deleted AS (
        DELETE FROM spine.deliveries_open o WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING o.*
    ), {REPLAYS_COUNT.format(column="failed")}
    INSERT INTO spine.deliveries_closed
        (workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id, accepted_at, created_at, xid)
    SELECT workspace_id, id, event_id, type, endpoint_id, 'dead', 'expired', series, attempts, replay_id, accepted_at, created_at, xid
      FROM deleted
    RETURNING workspace_id, id, event_id, type, endpoint_id, reason, series, attempts, closed_at
"""
"""Moves held deliveries of endpoint `$1` to the dead letters if their event is older than `$2`. Looks at the first `$3`."""
