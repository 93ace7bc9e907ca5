"""SQL of replays. Each statement looks at a bounded number of rows after the replay's place, and returns the new place.

The API runs the counting statements too, so none of them needs a right of the workers.
"""

from typing import Final

from spine.webhooks.attempts import EARLIER_ATTEMPTS

REPLAY_TAKE: Final = """
    SELECT * FROM spine.replays
     WHERE workspace_id > $1 AND status = 'running' AND due_at <= now()
     ORDER BY workspace_id, due_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
"""Locks the running replay of the next workspace after `$1` that has waited longest for its next step.

A call that pauses or cancels it waits until the step ends.
"""

REPLAY_PUT_OFF: Final = """
    UPDATE spine.replays
       SET failures = failures + 1, error = $3,
           due_at = clock_timestamp() + least(interval '1 s' * power(2, least(failures, 10)), interval '5 min')
     WHERE workspace_id = $1 AND id = $2 AND status = 'running'
"""

_OF_TYPES: Final = """
    ($4::text[] IS NULL OR {table}.type = ANY ($4)
     OR EXISTS (SELECT FROM unnest($5::text[]) family WHERE starts_with({table}.type, family)))
"""
_AFTER: Final = """{table}.workspace_id = $1
     AND {table}.id > greatest($2 COLLATE "C", '{prefix}' || spine.ulid_time(greatest($6, '1970-01-02'::timestamptz) - interval '1 h'))"""
"""Rows after the place `$2`. None whose id is made an hour before the time `$6` can be of an event accepted after it."""

_CLOSED_SEEN: Final = f"""
    WITH seen AS MATERIALIZED (
        SELECT c.id, c.type, c.endpoint_id, c.state, c.accepted_at, c.closed_at
          FROM spine.deliveries_closed c WHERE {_AFTER.format(table="c", prefix="dlv_")} AND {{scope}} ORDER BY c.id LIMIT $3
    ), matched AS (
        SELECT s.id FROM seen s
         WHERE {_OF_TYPES.format(table="s")} AND ($6::timestamptz IS NULL OR s.accepted_at >= $6)
           AND ($7::timestamptz IS NULL OR s.accepted_at < $7) AND ($8::text IS NULL OR s.endpoint_id = $8)
           AND s.state = $9 AND s.closed_at < $10
    )
"""
_CLOSED_COUNT: Final = """
    SELECT count(*) AS read, max(s.id) AS position, (SELECT count(*) FROM matched) AS matched FROM seen s
"""
_CLOSED_REOPEN: Final = f"""
    , picked AS MATERIALIZED (
        SELECT id FROM matched ORDER BY id LIMIT $11
    ), deleted AS (
        DELETE FROM spine.deliveries_closed c WHERE c.workspace_id = $1 AND c.id = ANY (ARRAY(SELECT id FROM picked))
        RETURNING c.*
    ), reopened AS (
        INSERT INTO spine.deliveries_open
            (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, replay_id, due_at, accepted_at, created_at, xid)
        SELECT workspace_id, id, event_id, type, endpoint_id, 'pending', series + 1, {EARLIER_ATTEMPTS}, $12, now(), accepted_at,
               created_at, xid
          FROM deleted
        RETURNING id
    )
    SELECT (SELECT count(*) FROM seen) AS read, (SELECT count(*) FROM picked) AS picked, (SELECT count(*) FROM reopened) AS started,
           CASE WHEN (SELECT count(*) FROM picked) < $11 THEN (SELECT max(id) FROM seen) ELSE (SELECT max(id) FROM picked) END
               AS position
"""


def _scope(status: str, endpoint_id: str | None) -> str:
    """The condition that an index covers, so that a bounded number of its entries is read. The rest is compared afterwards."""
    if status == "dead":
        return "c.state = 'dead'"
    return "true" if endpoint_id is None else "c.endpoint_id = $8"


def closed_count(status: str, endpoint_id: str | None) -> str:
    """Return the statement that looks at the next `$3` closed deliveries and counts those that match."""
    return _CLOSED_SEEN.format(scope=_scope(status, endpoint_id)) + _CLOSED_COUNT


def closed_reopen(status: str, endpoint_id: str | None) -> str:
    """Return the statement that looks at the next `$3` closed deliveries and opens the first `$11` that match, in a new series."""
    return _CLOSED_SEEN.format(scope=_scope(status, endpoint_id)) + _CLOSED_REOPEN


MISSING_FIND: Final = f"""
    WITH seen AS MATERIALIZED (
        SELECT e.id, e.type, e.accepted_at, e.body IS NOT NULL AS kept
          FROM spine.events e WHERE {_AFTER.format(table="e", prefix="evt_")} ORDER BY e.id LIMIT $3
    ), missing AS MATERIALIZED (
        SELECT s.id, s.type, s.accepted_at, f.filter AS sent_if
          FROM seen s
          LEFT JOIN LATERAL (
                   SELECT true AS subscribed, u.filter FROM spine.subscriptions u
                    WHERE u.workspace_id = $1 AND u.endpoint_id = $8 AND u.pattern = ANY (spine.patterns_met(s.type))
                      AND u.valid_from <= s.accepted_at AND u.valid_to > s.accepted_at
                      AND (s.accepted_at > u.valid_from + interval '1 min' OR s.accepted_at > now() - interval '1 h')
                    ORDER BY u.filter NULLS FIRST LIMIT 1
               ) f ON true
         WHERE s.kept AND {_OF_TYPES.format(table="s")} AND s.accepted_at >= $6 AND s.accepted_at < $7
           AND (f.subscribed IS NULL OR f.filter IS NOT NULL)
           AND NOT EXISTS (SELECT FROM spine.deliveries_closed c
                            WHERE c.workspace_id = $1 AND c.event_id = s.id AND c.endpoint_id = $8 OFFSET 0)
           AND NOT EXISTS (SELECT FROM spine.deliveries_open o
                            WHERE o.endpoint_id = $8 AND o.event_id = s.id
                              AND (coalesce(o.leased_by, '') = '' OR o.failures > 0 OR o.series > 1 OR o.replay_id IS NOT NULL) OFFSET 0)
         ORDER BY s.id LIMIT $9
    )
    SELECT n.read, n.last_id, m.*,
           CASE WHEN m.type = 'delivery.dead_lettered' OR m.sent_if IS NOT NULL OR $10
                THEN (SELECT e.body FROM spine.events e WHERE e.workspace_id = $1 AND e.id = m.id) END AS body
      FROM (SELECT count(*) AS read, max(id) AS last_id FROM seen) n LEFT JOIN missing m ON true
     ORDER BY m.id
"""
"""Looks at the next `$3` events, and returns up to `$9` of them that endpoint `$8` has no delivery of. Returns at least one row.

An event that the endpoint was subscribed to when it was accepted is no missing one, even if it has no row here: it waits for the
relay, or its first attempt is under way (the index does not have those). With a filter, `sent_if`, the caller must compare. In the
first minute of a subscription the relay may not have seen it, so there an hour without a delivery counts as missing.

`OFFSET 0` keeps the planner from joining, which would read all deliveries of the endpoint. Open ones are not compared by workspace,
so that only the index of the endpoint fits.

Returns the bodies of dead letter events, which may be about the endpoint itself, and with `$10` those of all events.
"""

MISSING_PUT: Final = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, accepted_at, replay_id, due_at)
    SELECT $1, u.id, u.event_id, u.type, $2, u.accepted_at, $3, now()
      FROM unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[]) AS u (id, event_id, type, accepted_at)
"""

REPLAY_STEP: Final = """
    UPDATE spine.replays
       SET position = $3, started = started + $4, due_at = clock_timestamp() + $5::interval, updated_at = now(), failures = 0, error = NULL
     WHERE workspace_id = $1 AND id = $2
"""

REPLAY_COUNTED: Final = """
    UPDATE spine.replays
       SET count_position = $3, total = total + $4, due_at = clock_timestamp(), updated_at = now(), failures = 0, error = NULL
     WHERE workspace_id = $1 AND id = $2
"""

REPLAY_IS_OPEN: Final = "SELECT EXISTS (SELECT FROM spine.deliveries_open WHERE workspace_id = $1 AND replay_id = $2)"

REPLAY_FINISH: Final = """
    UPDATE spine.replays SET status = 'done', due_at = NULL, updated_at = now(), version = version + 1, failures = 0, error = NULL
     WHERE workspace_id = $1 AND id = $2
    RETURNING *
"""
