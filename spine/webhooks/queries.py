"""Hot SQL of the delivery engine. All statements run as the worker role, across workspaces.

Rows are found by `ctid`, or by their whole key through a lateral subquery. Both keep an index scan in the plan, even if
the statistics come from a time when the table was empty.

`ctid` names one version of a row. If another transaction changes the row before it is locked, the statement may skip it.
Claims need this. Writes that must reach their row go through `workers.connection.write_each`, which retries skipped
rows. The statement that changes a row repeats the conditions on it, because not every Postgres version checks `ctid`
again after it waited for a lock.
"""

from typing import Final

_SEEN: Final = """
         CROSS JOIN LATERAL (
               SELECT ctid FROM spine.deliveries_open o
                WHERE o.workspace_id = r.workspace_id AND o.id = r.id AND {condition} LIMIT 1
           ) o
"""
"""The open delivery of each row of `r`, found by its key. `condition` is a further condition on it."""
_SAME_SERIES: Final = "o.series = {r}.series"
_SAME_ATTEMPT: Final = "o.series = {r}.series AND o.failures = {r}.failures"

# --- relay -----------------------------------------------------------------------------------------------------------

_PICKED: Final = """
    WITH oldest AS (SELECT * FROM spine.outbox ORDER BY seq LIMIT $1 {lock}),
         newest AS (SELECT * FROM spine.outbox ORDER BY seq DESC LIMIT $2 {lock}),
         picked AS MATERIALIZED (SELECT * FROM oldest UNION SELECT * FROM newest)
"""
_BODIES: Final = """
      LEFT JOIN LATERAL (
               SELECT body FROM spine.events e WHERE e.workspace_id = p.workspace_id AND e.id = p.event_id LIMIT 1
           ) e ON true
"""
_SUBSCRIBERS: Final = """
    SELECT t.workspace_id, t.type, s.endpoint_id, s.filter, s.valid_from, least(s.valid_to, '9999-01-01') AS valid_to,
           w.deleted_at IS NOT NULL AS deleted, w.status = 'disabled' AS disabled, w.version, w.max_in_flight, w.rate_per_s
      FROM (SELECT workspace_id, type, min(accepted_at) AS first, max(accepted_at) AS last FROM {events} GROUP BY 1, 2) t
     CROSS JOIN LATERAL unnest(spine.patterns_met(t.type)) AS met (pattern)
     CROSS JOIN LATERAL (
               SELECT * FROM spine.subscriptions s
                WHERE s.workspace_id = t.workspace_id AND s.pattern = met.pattern
                  AND s.valid_from <= t.last AND s.valid_to > t.first
               OFFSET 0
           ) s
     CROSS JOIN LATERAL (
               SELECT * FROM spine.webhook_endpoints w WHERE w.workspace_id = s.workspace_id AND w.id = s.endpoint_id LIMIT 1
           ) w
"""
"""Subscribers to the types of `events` at any time from the first event to the last. The relay compares the time of each event."""

OUTBOX_READ: Final = f"""
    {_PICKED.format(lock="")}
    SELECT p.workspace_id, p.type, p.seq, p.event_id, p.accepted_at, p.not_endpoint_id, e.body,
           NULL::text AS endpoint_id, NULL::text AS filter, NULL::timestamptz AS valid_from, NULL::timestamptz AS valid_to,
           NULL::boolean AS deleted, NULL::boolean AS disabled, NULL::integer AS version, NULL::integer AS max_in_flight,
           NULL::float8 AS rate_per_s
      FROM picked p {_BODIES}
     UNION ALL
    SELECT l.workspace_id, l.type, NULL, NULL, NULL, NULL, NULL, l.endpoint_id, l.filter, l.valid_from, l.valid_to,
           l.deleted, l.disabled, l.version, l.max_in_flight, l.rate_per_s
      FROM ({_SUBSCRIBERS.format(events="picked WHERE (SELECT count(*) FROM picked) <= $3")}) l
     ORDER BY seq
"""
"""The `$1` oldest and the `$2` newest rows with their payloads. After them come the subscribers, without a `seq`, if there are
at most `$3` rows.
"""
OUTBOX_TAKE: Final = f"""
    {_PICKED.format(lock="FOR UPDATE SKIP LOCKED")}
    SELECT p.workspace_id, p.type, p.seq, p.event_id, p.accepted_at, p.not_endpoint_id, e.body FROM picked p {_BODIES} ORDER BY seq
"""
"""Locks the `$1` oldest and the `$2` newest rows that no other transaction has locked. Returns them with their payloads."""

SUBSCRIBERS_FIND: Final = _SUBSCRIBERS.format(
    events="unnest($1::text[], $2::text[], $3::timestamptz[]) AS e (workspace_id, type, accepted_at)"
)
"""Subscribers to events of these workspaces, types and times of acceptance."""

OUTBOX_DONE: Final = """
    WITH locked AS MATERIALIZED (
        SELECT ctid FROM spine.outbox WHERE seq = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED
    ), deleted AS (
        DELETE FROM spine.outbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM locked)) RETURNING seq
    ), opened AS (
        INSERT INTO spine.deliveries_open
            (workspace_id, id, event_id, type, endpoint_id, accepted_at, state, due_at, leased_by)
        SELECT u.workspace_id, u.id, u.event_id, u.type, u.endpoint_id, u.accepted_at,
               CASE u.placement WHEN 3 THEN 'held' ELSE 'pending' END,
               CASE u.placement WHEN 0 THEN now() + $3::interval WHEN 1 THEN 'infinity'::timestamptz WHEN 2 THEN now() END,
               CASE u.placement WHEN 0 THEN $2::text END
          FROM unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::smallint[])
            AS u (seq, workspace_id, id, event_id, type, endpoint_id, accepted_at, placement)
         WHERE (u.seq IN (SELECT seq FROM deleted)) IS TRUE
    ), discarded AS (
        INSERT INTO spine.deliveries_closed
            (workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, accepted_at, created_at, xid)
        SELECT u.workspace_id, u.id, u.event_id, u.type, u.endpoint_id, 'dead', u.reason, 1, '[]', u.accepted_at,
               clock_timestamp(), pg_current_xact_id()
          FROM unnest($12::bigint[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::timestamptz[], $19::text[])
            AS u (seq, workspace_id, id, event_id, type, endpoint_id, accepted_at, reason)
         WHERE (u.seq IN (SELECT seq FROM deleted)) IS TRUE
    )
    SELECT seq FROM deleted
"""
"""Deletes outbox rows and writes their deliveries, each with its placement (`workers.webhooks.jobs.Placement`) or dead with a reason.

Writes only deliveries of the events that it deleted: no other worker had locked or changed them. Returns their `seq`. `IS
TRUE` makes the planner hash them. Without it, the planner estimates ten rows for each list and joins them in a nested loop.
"""

# --- claims ----------------------------------------------------------------------------------------------------------

_CLAIMED: Final = """
    claimed AS (
        UPDATE spine.deliveries_open o SET due_at = now() + $2::interval, leased_by = $1
         WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM picked))
        RETURNING o.workspace_id, o.id, o.event_id, o.type, o.endpoint_id, o.failures, o.series, o.replay_id, o.accepted_at
    ), loaded AS (
        SELECT c.*, p.due_at, e.body, e.id IS NULL AS expired, w.deleted_at IS NOT NULL AS deleted,
               w.status = 'disabled' OR c.accepted_at < w.discard_before AS disabled, w.version, w.max_in_flight, w.rate_per_s
          FROM claimed c
          JOIN picked p ON p.id = c.id
          JOIN LATERAL (
                   SELECT * FROM spine.webhook_endpoints w WHERE w.workspace_id = c.workspace_id AND w.id = c.endpoint_id LIMIT 1
               ) w ON true
          LEFT JOIN LATERAL (
                   SELECT e.id, e.body FROM spine.events e WHERE e.workspace_id = c.workspace_id AND e.id = c.event_id LIMIT 1
               ) e ON true
    )
"""

DUE_CLAIM: Final = f"""
    WITH due AS MATERIALIZED (
        SELECT ctid, id, due_at, endpoint_id FROM spine.deliveries_open
         WHERE due_at <= now() AND due_at < 'infinity' ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ), ranked AS MATERIALIZED (
        SELECT d.ctid, d.id, d.due_at,
               queue.capacity IS NOT NULL AND row_number() OVER (PARTITION BY d.endpoint_id ORDER BY d.due_at) > queue.capacity AS waits
          FROM due d LEFT JOIN unnest($4::text[], $5::integer[]) AS queue (endpoint_id, capacity) USING (endpoint_id)
    ), parked AS (
        UPDATE spine.deliveries_open o SET due_at = 'infinity', leased_by = NULL
         WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM ranked WHERE waits))
    ), picked AS MATERIALIZED (
        SELECT ctid, id, due_at FROM ranked WHERE NOT waits
    ), {_CLAIMED}
    SELECT n.picked, n.parked, l.*
      FROM (SELECT count(*) AS picked, count(*) FILTER (WHERE waits) AS parked FROM ranked) n LEFT JOIN loaded l ON true
"""
"""Leases up to `$3` due rows, longest due first: new deliveries, retries, and rows that a dead worker had leased.

Leases at most the capacity `$5` for each of the endpoints `$4`. Further rows of these endpoints are parked without being
loaded. Always returns a row with the counts. Its id is null if nothing was leased.
"""

PARKED_CLAIM: Final = f"""
    WITH picked AS MATERIALIZED (
        SELECT o.ctid, o.id, o.due_at FROM unnest($3::text[], $4::integer[]) AS queue (endpoint_id, capacity)
         CROSS JOIN LATERAL (
               SELECT ctid, id, NULL::timestamptz AS due_at FROM spine.deliveries_open o
                WHERE o.endpoint_id = queue.endpoint_id AND o.due_at = 'infinity'
                ORDER BY o.id LIMIT queue.capacity FOR UPDATE SKIP LOCKED
           ) o
    ), {_CLAIMED}
    SELECT * FROM loaded
"""
"""Leases parked rows of these endpoints, oldest first, each up to the capacity of its endpoint queue."""

PARKED_FIND: Final = """
    WITH RECURSIVE endpoint AS (
        (SELECT endpoint_id FROM spine.deliveries_open WHERE due_at = 'infinity' AND endpoint_id > $1 ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.endpoint_id FROM spine.deliveries_open o
                 WHERE o.due_at = 'infinity' AND o.endpoint_id > endpoint.endpoint_id ORDER BY o.endpoint_id LIMIT 1)
          FROM endpoint WHERE endpoint.endpoint_id IS NOT NULL
    )
    SELECT w.workspace_id, w.id AS endpoint_id, w.version, w.max_in_flight, w.rate_per_s
      FROM (SELECT endpoint_id FROM endpoint WHERE endpoint_id IS NOT NULL LIMIT $2) l
      JOIN LATERAL (
               SELECT o.workspace_id FROM spine.deliveries_open o
                WHERE o.due_at = 'infinity' AND o.endpoint_id = l.endpoint_id ORDER BY o.id LIMIT 1
           ) o ON true
      JOIN spine.webhook_endpoints w ON w.workspace_id = o.workspace_id AND w.id = l.endpoint_id
     ORDER BY w.id
"""
"""The next `$2` endpoints with an id above `$1` that have parked rows: a loose index scan with one probe per endpoint."""

LEASES_RELEASE: Final = f"""
    WITH seen AS MATERIALIZED (
        SELECT o.ctid, r.placement FROM unnest($1::text[], $2::text[], $3::smallint[]) AS r (workspace_id, id, placement)
        {_SEEN.format(condition="o.leased_by = $4")}
    )
    UPDATE spine.deliveries_open o
       SET due_at = CASE seen.placement WHEN 1 THEN 'infinity'::timestamptz WHEN 2 THEN now() END, leased_by = NULL,
           state = CASE seen.placement WHEN 3 THEN 'held' ELSE o.state END
      FROM seen WHERE o.ctid = seen.ctid AND o.leased_by = $4
    RETURNING o.id
"""
"""Releases leased rows, each with its placement (parked, due or held). Returns the ids of the released rows."""

LEASES_RENEW: Final = f"""
    WITH seen AS MATERIALIZED (
        SELECT o.ctid FROM unnest($2::text[], $3::text[]) AS r (workspace_id, id) {_SEEN.format(condition="o.leased_by = $1")}
    )
    UPDATE spine.deliveries_open o SET due_at = now() + $4::interval FROM seen WHERE o.ctid = seen.ctid AND o.leased_by = $1
    RETURNING o.id
"""
"""Renews the worker's leases until `$4` from now. Returns the ids that it still holds.

Skips a row that another transaction writes: its result is being recorded, or another worker has leased it.
"""

ENDPOINTS_LOAD: Final = """
    SELECT w.workspace_id, w.id, w.url, w.headers, w.rate_per_s, w.max_in_flight, w.version, s.env,
           w.status = 'disabled' AS disabled, w.deleted_at IS NOT NULL AS deleted,
           ARRAY(SELECT k.secret FROM spine.endpoint_secrets k
                  WHERE k.workspace_id = w.workspace_id AND k.endpoint_id = w.id AND (k.expires_at IS NULL OR k.expires_at > now())
                  ORDER BY k.seq DESC) AS secrets
      FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.webhook_endpoints w ON w.workspace_id = u.workspace_id AND w.id = u.id
      JOIN spine.workspaces s ON s.workspace_id = w.workspace_id
"""

# --- results ---------------------------------------------------------------------------------------------------------

REPLAYS_COUNT: Final = """
    counted AS (
        UPDATE spine.replays p SET {column} = p.{column} + n.count, updated_at = now()
          FROM (SELECT workspace_id, replay_id, count(*) FROM deleted WHERE replay_id IS NOT NULL GROUP BY 1, 2) n
         WHERE p.workspace_id = n.workspace_id AND p.id = n.replay_id
    )
"""

DELIVERED_PUT: Final = f"""
    WITH seen AS MATERIALIZED (
        SELECT o.ctid, r.series, r.attempt
          FROM unnest($1::text[], $2::text[], $3::smallint[], $4::text[]) AS r (workspace_id, id, series, attempt)
          {_SEEN.format(condition=_SAME_SERIES.format(r="r"))}
    ), deleted AS (
        DELETE FROM spine.deliveries_open o USING seen WHERE o.ctid = seen.ctid AND {_SAME_SERIES.format(r="seen")}
        RETURNING o.*, seen.attempt
    ), {REPLAYS_COUNT.format(column="done")}, recovered AS (
        UPDATE spine.endpoint_health h SET failing_since = NULL
          FROM unnest($5::text[], $6::text[]) AS u (workspace_id, endpoint_id)
         WHERE h.workspace_id = u.workspace_id AND h.endpoint_id = u.endpoint_id AND h.failing_since IS NOT NULL
    )
    INSERT INTO spine.deliveries_closed
        (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, replay_id, accepted_at, created_at, xid)
    SELECT workspace_id, id, event_id, type, endpoint_id, 'delivered', series, attempts || attempt::jsonb, replay_id,
           accepted_at, created_at, xid
      FROM deleted
"""
"""Closes delivered rows, also if another worker holds the lease by now. Resets `failing_since` of the endpoints `($5, $6)`."""

FAILED_PUT: Final = f"""
    WITH seen AS MATERIALIZED (
        SELECT o.ctid, r.series, r.failures, r.due_at, r.attempt
          FROM unnest($1::text[], $2::text[], $3::smallint[], $4::smallint[], $5::timestamptz[], $6::text[])
            AS r (workspace_id, id, series, failures, due_at, attempt)
          {_SEEN.format(condition=_SAME_ATTEMPT.format(r="r"))}
    )
    UPDATE spine.deliveries_open o
       SET state = 'retrying', failures = o.failures + 1, attempts = o.attempts || seen.attempt::jsonb, due_at = seen.due_at,
           leased_by = NULL
      FROM seen WHERE o.ctid = seen.ctid AND {_SAME_ATTEMPT.format(r="seen")}
"""
"""Schedules the next attempt, unless another result of this attempt was recorded before."""

DEAD_PUT: Final = f"""
    WITH seen AS MATERIALIZED (
        SELECT o.ctid, r.series, r.failures, r.reason, r.attempt
          FROM unnest($1::text[], $2::text[], $3::smallint[], $4::smallint[], $5::text[], $6::text[])
            AS r (workspace_id, id, series, failures, reason, attempt)
          {_SEEN.format(condition=_SAME_ATTEMPT.format(r="r"))}
    ), deleted AS (
        DELETE FROM spine.deliveries_open o USING seen WHERE o.ctid = seen.ctid AND {_SAME_ATTEMPT.format(r="seen")}
        RETURNING o.*, seen.reason, coalesce(o.attempts || seen.attempt::jsonb, o.attempts) AS all_attempts
    ), {REPLAYS_COUNT.format(column="failed")}
    INSERT INTO spine.deliveries_closed
        (workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id, accepted_at, created_at, xid)
    SELECT workspace_id, id, event_id, type, endpoint_id, 'dead', reason, series, all_attempts, replay_id, accepted_at, created_at, xid
      FROM deleted
    RETURNING workspace_id, id, event_id, type, endpoint_id, reason, series, attempts, closed_at
"""
"""Moves deliveries that get no further attempt to the dead letters. Returns them."""

FAILING_PUT: Final = """
    WITH u AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u (workspace_id, endpoint_id, failing_since)
    ), known AS (
        SELECT h.workspace_id, h.endpoint_id, h.failing_since
          FROM spine.endpoint_health h JOIN u USING (workspace_id, endpoint_id) WHERE h.failing_since IS NOT NULL
    ), put AS (
        INSERT INTO spine.endpoint_health AS h (workspace_id, endpoint_id, failing_since)
        SELECT u.workspace_id, u.endpoint_id, u.failing_since
          FROM u WHERE NOT EXISTS (SELECT FROM known k WHERE k.workspace_id = u.workspace_id AND k.endpoint_id = u.endpoint_id)
         ORDER BY 1, 2
        ON CONFLICT (workspace_id, endpoint_id) DO UPDATE SET failing_since = EXCLUDED.failing_since WHERE h.failing_since IS NULL
    )
    SELECT workspace_id, endpoint_id, failing_since, now() AS now FROM known
"""
"""Records since when endpoints fail. Writes nothing for endpoints already recorded as failing, and returns those."""

ENDPOINTS_DISABLE: Final = """
    UPDATE spine.webhook_endpoints w
       SET status = 'disabled', disabled_reason = $3, disabled_at = now(), updated_at = now(), version = w.version + 1
      FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
     WHERE w.workspace_id = u.workspace_id AND w.id = u.id AND w.status = 'enabled' AND w.deleted_at IS NULL
    RETURNING w.*
"""
"""Disables enabled endpoints. Returns the rows it changed, so that each gets one event."""

ENDPOINTS_FOLLOW: Final = (
    "SELECT spine.endpoint_changed(u.workspace_id, u.id) FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)"
)
"""Lets the deliveries of these endpoints follow, in bounded steps (`workers.webhooks.endpoint_transitions`)."""

WORKSPACES_ENV: Final = "SELECT workspace_id, env FROM spine.workspaces WHERE workspace_id = ANY ($1::text[])"

EVENTS_PUT: Final = """
    WITH u AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[])
            AS u (workspace_id, id, type, body, not_endpoint_id)
    ), put AS (
        INSERT INTO spine.events (workspace_id, id, type, body) SELECT workspace_id, id, type, body FROM u
    )
    INSERT INTO spine.outbox (workspace_id, event_id, type, not_endpoint_id) SELECT workspace_id, id, type, not_endpoint_id FROM u
"""
"""`spine.events_put` for events of several workspaces at once."""

# --- maintenance -----------------------------------------------------------------------------------------------------

LATE_CLOSED_DROP: Final = """
    DELETE FROM spine.deliveries_closed
     WHERE id < 'dlv_' || spine.ulid_time(now() - $1::interval) AND closed_at < now() - $1::interval
"""
"""Deletes rows of the default partition. A delivery is there if it closed after the partition of its day was dropped; its
retention period starts when it closes.
"""

IDEMPOTENCY_DROP: Final = """
    DELETE FROM spine.idempotency_keys
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM spine.idempotency_keys WHERE expires_at < now() LIMIT $1)) AND expires_at < now()
"""
SECRETS_DROP: Final = "DELETE FROM spine.endpoint_secrets WHERE expires_at < now()"

QUEUE_STATS: Final = """
    SELECT (SELECT count(*) FROM spine.outbox) AS outbox_rows,
           (SELECT extract(epoch FROM now() - accepted_at) FROM spine.outbox ORDER BY seq LIMIT 1) AS outbox_age_s,
           o.*, e.*, m.*
      FROM (
               SELECT count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'retrying') AS retrying,
                      count(*) FILTER (WHERE state = 'held') AS held, count(*) FILTER (WHERE due_at <= now()) AS due,
                      count(*) FILTER (WHERE leased_by IS NOT NULL) AS leased, count(*) FILTER (WHERE due_at = 'infinity') AS parked,
                      extract(epoch FROM now() - min(due_at) FILTER (WHERE due_at <= now())) AS due_age_s
                 FROM spine.deliveries_open
           ) o,
           (SELECT count(*) FILTER (WHERE status = 'disabled') AS disabled FROM spine.webhook_endpoints WHERE deleted_at IS NULL) e,
           (
               SELECT count(*) AS sends, count(*) FILTER (WHERE leased_by IS NOT NULL) AS sends_leased,
                      count(*) FILTER (WHERE due_at <= now()) AS sends_due,
                      extract(epoch FROM now() - min(due_at) FILTER (WHERE due_at <= now())) AS sends_due_age_s
                 FROM spine.sends_open
           ) m
"""
FAILING_SINCE: Final = """
    SELECT extract(epoch FROM now() - h.failing_since) AS seconds
      FROM spine.endpoint_health h JOIN spine.webhook_endpoints w ON w.workspace_id = h.workspace_id AND w.id = h.endpoint_id
     WHERE h.failing_since < now() - interval '5 min' AND w.status = 'enabled' AND w.deleted_at IS NULL
"""
DEAD_LETTERS: Final = "SELECT count(*) FROM spine.deliveries_closed WHERE state = 'dead'"
