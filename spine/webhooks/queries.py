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

_BODIES: Final = """
      LEFT JOIN LATERAL (
               SELECT body FROM spine.events e WHERE e.workspace_id = p.workspace_id AND e.id = p.event_id LIMIT 1
           ) e ON true
"""
_SUBSCRIBERS: Final = """
    SELECT t.workspace_id, t.type, t.after_endpoint_id, s.pattern, s.endpoint_id, s.filter, s.valid_from,
           least(s.valid_to, '9999-01-01') AS valid_to,
           w.deleted_at IS NOT NULL AS deleted, w.status = 'disabled' AS disabled, w.version, w.max_in_flight, w.rate_per_s,
           (SELECT env = 'live' FROM spine.workspaces x WHERE x.workspace_id = t.workspace_id) AS live
      FROM (
               SELECT workspace_id, type, after_endpoint_id, min(accepted_at) AS first, max(accepted_at) AS last
                 FROM {events} GROUP BY 1, 2, 3
           ) t
     CROSS JOIN LATERAL unnest(spine.patterns_met(t.type)) AS met (pattern)
     CROSS JOIN LATERAL (
               SELECT * FROM spine.subscriptions s
                WHERE (s.workspace_id, s.pattern, s.endpoint_id) > (t.workspace_id, met.pattern, coalesce(t.after_endpoint_id, ''))
                  AND (s.workspace_id, s.pattern) <= (t.workspace_id, met.pattern)
                  AND s.valid_from <= t.last AND s.valid_to > t.first
                ORDER BY s.workspace_id, s.pattern, s.endpoint_id FETCH FIRST {page} ROWS WITH TIES
           ) s
     CROSS JOIN LATERAL (
               SELECT * FROM spine.webhook_endpoints w WHERE w.workspace_id = s.workspace_id AND w.id = s.endpoint_id LIMIT 1
           ) w
"""
"""Subscribers to the types of `events` at any time from the first event to the last: of each pattern those of the next `page`
endpoints. The relay compares the time of each event. With comparisons of rows instead of `=`, no index but the primary key has
the wanted order, whatever the planner believes of the tables.
"""

_WAITING: Final = """
    WITH RECURSIVE turn (workspace_id, n, wrapped) AS (
        SELECT {after}::text COLLATE "C", 0, false
        UNION ALL
        SELECT next.workspace_id, turn.n + 1, next.wrapped
          FROM turn CROSS JOIN LATERAL (
                   (SELECT o.workspace_id, turn.wrapped FROM spine.outbox o
                     WHERE o.workspace_id > turn.workspace_id ORDER BY o.workspace_id LIMIT 1)
                   UNION ALL
                   (SELECT o.workspace_id, true FROM spine.outbox o WHERE NOT turn.wrapped ORDER BY o.workspace_id LIMIT 1)
                   LIMIT 1
               ) next
         WHERE turn.n < {most} AND NOT (next.wrapped AND next.workspace_id > {after})
    )
"""
"""The next `most` workspaces that have rows, after workspace `after` and then from the first one on: one probe each."""

_READ: Final = f"""
    sized AS (
        SELECT p.*, e.body, coalesce(sum(octet_length(e.body)) OVER
               (ORDER BY p.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM ({{rows}}) p {_BODIES}
    ), picked AS MATERIALIZED (SELECT * FROM sized WHERE before < $4::bigint)
    SELECT p.workspace_id, p.type, p.seq, p.event_id, p.accepted_at, p.not_endpoint_id, p.after_endpoint_id, p.body,
           NULL::text AS pattern, NULL::text AS endpoint_id, NULL::text AS filter,
           NULL::timestamptz AS valid_from, NULL::timestamptz AS valid_to,
           NULL::boolean AS deleted, NULL::boolean AS disabled, NULL::integer AS version, NULL::integer AS max_in_flight,
           NULL::float8 AS rate_per_s, NULL::boolean AS live
      FROM picked p
     UNION ALL
    SELECT l.workspace_id, l.type, NULL, NULL, NULL, NULL, l.after_endpoint_id, NULL, l.pattern, l.endpoint_id, l.filter,
           l.valid_from, l.valid_to, l.deleted, l.disabled, l.version, l.max_in_flight, l.rate_per_s, l.live
      FROM ({_SUBSCRIBERS.format(events="picked WHERE (SELECT count(*) FROM picked) <= $2", page="($3::bigint)")}) l
     ORDER BY seq
"""
OUTBOX_READ: Final = "WITH" + _READ.format(rows="SELECT * FROM spine.outbox ORDER BY seq LIMIT $1")
"""The `$1` oldest rows with their payloads, until these have `$4` bytes; at least one. Lengths are read without the payloads. After
them come the subscribers, without a `seq`, if there are at most `$2` rows.
"""

OUTBOX_READ_BESIDE: Final = (
    _WAITING.format(after="$5", most="$6")
    + ","
    + _READ.format(
        rows="""
            SELECT o.* FROM turn CROSS JOIN LATERAL (
                       SELECT * FROM spine.outbox o
                        WHERE (o.workspace_id, o.seq) > (turn.workspace_id, 0) AND o.workspace_id <= turn.workspace_id
                        ORDER BY o.workspace_id, o.seq LIMIT 8
                   ) o
             WHERE turn.n > 0 AND turn.workspace_id <> ALL ($7::text[]) LIMIT $1
        """
    )
)
"""Like OUTBOX_READ, but of the next `$6` workspaces after `$5`, except the workspaces `$7`: the 8 oldest rows of each."""

OUTBOX_WAITING: Final = (
    _WAITING.format(after="$1", most="$2")
    + """
    SELECT turn.workspace_id, s.env = 'live' AS live
      FROM turn CROSS JOIN LATERAL (SELECT env FROM spine.workspaces s WHERE s.workspace_id = turn.workspace_id LIMIT 1) s
     WHERE turn.n > 0 ORDER BY turn.n
"""
)
"""The next `$2` workspaces that have rows, after workspace `$1` and then from the first one on: one probe of the index each."""

OUTBOX_TAKE: Final = f"""
    WITH turn AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::integer[]) WITH ORDINALITY
            AS t (workspace_id, after, oldest, newest, n)
    ), picked AS MATERIALIZED (
        SELECT turn.n, o.* FROM turn CROSS JOIN LATERAL (
                   SELECT * FROM spine.outbox o
                    WHERE (o.workspace_id, o.seq) > (turn.workspace_id, turn.after) AND o.workspace_id <= turn.workspace_id
                    ORDER BY o.workspace_id, o.seq LIMIT turn.oldest FOR UPDATE SKIP LOCKED
               ) o
         UNION ALL
        SELECT turn.n, o.* FROM turn CROSS JOIN LATERAL (
                   SELECT * FROM spine.outbox o
                    WHERE (o.workspace_id, o.seq) > (turn.workspace_id, turn.after) AND o.workspace_id <= turn.workspace_id
                    ORDER BY o.workspace_id DESC, o.seq DESC LIMIT turn.newest FOR UPDATE SKIP LOCKED
               ) o
    ), sized AS (
        SELECT p.*, e.body, coalesce(sum(octet_length(e.body)) OVER
               (PARTITION BY p.n ORDER BY p.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) >= $5, false) AS left_out
          FROM picked p {_BODIES}
    )
    SELECT workspace_id, type, seq, event_id, accepted_at, not_endpoint_id, after_endpoint_id, left_out,
           CASE WHEN left_out THEN NULL ELSE body END AS body
      FROM sized ORDER BY n, seq
"""
"""Locks the `$3` oldest and the `$4` newest rows after row `$2` of each of the workspaces `$1`, except those that another
transaction has locked. Returns them with their payloads, a row twice if it is at both ends. As soon as the payloads of a
workspace have `$5` bytes, its further rows are left out. Their lengths are read without the payloads themselves. The comparisons
of rows let the planner use the primary key only, as in `_SUBSCRIBERS`.
"""

SUBSCRIBERS_FIND: Final = _SUBSCRIBERS.format(
    events="unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS e (workspace_id, type, accepted_at, after_endpoint_id)",
    page="($5::bigint)",
)
"""Subscribers to events of these workspaces, types and times of acceptance, to `$5` endpoints after `$4` of each pattern."""

OUTBOX_ADVANCE: Final = """
    UPDATE spine.outbox o SET after_endpoint_id = p.endpoint_id
      FROM unnest($1::text[], $2::bigint[], $3::text[]) AS p (workspace_id, seq, endpoint_id)
     WHERE o.workspace_id = p.workspace_id AND o.seq = p.seq
"""
"""Records up to which endpoint the deliveries of these rows are written. The caller has locked the rows when it read them."""

OUTBOX_DONE: Final = """
    WITH locked AS MATERIALIZED (
        SELECT ctid FROM spine.outbox WHERE seq = ANY ($1::bigint[]) AND ($21 OR after_endpoint_id IS NULL) FOR UPDATE SKIP LOCKED
    ), deleted AS (
        DELETE FROM spine.outbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM locked)) RETURNING seq
    ), relayed AS MATERIALIZED (
        SELECT seq FROM deleted UNION ALL SELECT unnest($20::bigint[])
    ), opened AS (
        INSERT INTO spine.deliveries_open
            (workspace_id, id, event_id, type, endpoint_id, accepted_at, state, due_at, leased_by)
        SELECT u.workspace_id, u.id, u.event_id, u.type, u.endpoint_id, u.accepted_at,
               CASE u.placement WHEN 3 THEN 'held' ELSE 'pending' END,
               CASE u.placement WHEN 0 THEN now() + $3::interval WHEN 1 THEN 'infinity'::timestamptz WHEN 2 THEN now() END,
               CASE u.placement WHEN 0 THEN $2::text END
          FROM unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::smallint[])
            AS u (seq, workspace_id, id, event_id, type, endpoint_id, accepted_at, placement)
         WHERE (u.seq IN (SELECT seq FROM relayed)) IS TRUE
    ), discarded AS (
        INSERT INTO spine.deliveries_closed
            (workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, accepted_at, created_at, xid)
        SELECT u.workspace_id, u.id, u.event_id, u.type, u.endpoint_id, 'dead', u.reason, 1, '[]', u.accepted_at,
               clock_timestamp(), pg_current_xact_id()
          FROM unnest($12::bigint[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::timestamptz[], $19::text[])
            AS u (seq, workspace_id, id, event_id, type, endpoint_id, accepted_at, reason)
         WHERE (u.seq IN (SELECT seq FROM relayed)) IS TRUE
    )
    SELECT seq FROM relayed
"""
"""Deletes outbox rows and writes their deliveries, each with its placement (`workers.webhooks.jobs.Placement`) or dead with a reason.

Writes only deliveries of the rows that it deleted, which no other worker had locked or changed, and of those that the caller
has locked and advanced (`$20`). Returns their `seq`. Rows of which a part is written are deleted only if the caller has them
locked (`$21`). `IS TRUE` makes the planner hash them. Without it, the planner estimates ten rows for each list and joins them
in a nested loop.
"""

# --- claims ----------------------------------------------------------------------------------------------------------

_LOOKED_AT: Final = """
    SELECT o.workspace_id, o.id, o.event_id, o.endpoint_id, {due_at} AS due_at, octet_length(e.body) AS size,
           e.id IS NULL AS expired, w.deleted_at IS NOT NULL AS deleted,
           w.status = 'disabled' OR o.accepted_at < w.discard_before AS disabled,
           w.version, w.max_in_flight, w.rate_per_s, s.env = 'live' AS live
      FROM {rows} o
      JOIN LATERAL (
               SELECT * FROM spine.webhook_endpoints w WHERE w.workspace_id = o.workspace_id AND w.id = o.endpoint_id LIMIT 1
           ) w ON true
      JOIN LATERAL (SELECT env FROM spine.workspaces s WHERE s.workspace_id = o.workspace_id LIMIT 1) s ON true
      LEFT JOIN LATERAL (
               SELECT e.id, e.body FROM spine.events e WHERE e.workspace_id = o.workspace_id AND e.id = o.event_id LIMIT 1
           ) e ON true
"""
"""What decides on the placement of each row, without locking it. The size of a body is read without the body."""
_MINE: Final = "((hashtext(id) & 2147483647) % $2 = $3::integer)"
_OPEN: Final = "SELECT workspace_id, id, event_id, endpoint_id, accepted_at, due_at FROM spine.deliveries_open o"
_LEASE_EXPIRED: Final = "o.leased_by IS NOT NULL AND o.state <> 'held' AND o.due_at <= now()"
_READY: Final = "o.leased_by IS NULL AND o.due_at < 'infinity'"
"""Rows with a due time and no lease. The index `deliveries_open_turns` has them by workspace."""
_READY_OF_ALL: Final = "o.leased_by IS NULL AND o.state <> 'held' AND o.due_at <> 'infinity'"
"""The same rows, in other words: these select the index `deliveries_open_due`, which has them by due time only."""

DUE_LOOK: Final = f"""
    WITH due AS MATERIALIZED (
        (SELECT * FROM ({_OPEN} WHERE {_READY_OF_ALL} AND o.due_at <= now() ORDER BY o.due_at LIMIT $1 * $2::integer) ready)
         UNION ALL
        (SELECT * FROM ({_OPEN} WHERE {_LEASE_EXPIRED} ORDER BY o.due_at LIMIT $1 * $2) expired)
    )
    {_LOOKED_AT.format(due_at="o.due_at", rows=f"(SELECT * FROM due ORDER BY {_MINE} DESC, due_at LIMIT $1)")}
     ORDER BY o.due_at
"""
"""`$1` of the rows that are due for the longest time: new deliveries, retries, and rows that a dead worker had leased.

Prefers the rows of worker `$3` of `$2`, so that workers that look at the same time do not choose the same rows.
"""

DUE_LOOK_IN_TURNS: Final = f"""
    WITH RECURSIVE turn AS (
        SELECT $4::text COLLATE "C" AS workspace_id, NULL::timestamptz AS due_at, 0 AS probes, 0 AS found, false AS is_full
         UNION ALL
        SELECT o.workspace_id, o.due_at, turn.probes + 1, turn.found + (o.due_at <= now() AND NOT o.is_full)::integer, o.is_full
          FROM turn CROSS JOIN LATERAL (
                   SELECT o.workspace_id, o.due_at, o.workspace_id = ANY ($5::text[]) AS is_full
                     FROM spine.deliveries_open o WHERE {_READY} AND o.workspace_id > turn.workspace_id
                    ORDER BY o.workspace_id, o.due_at LIMIT 1
               ) o
         WHERE turn.probes < $6 AND turn.found < $7
    ), walked AS MATERIALIZED (
        SELECT * FROM turn WHERE probes > 0
    ), rounds AS MATERIALIZED (
        SELECT max(workspace_id) AS position, coalesce(max(probes), 0) AS probes, coalesce(max(found), 0) AS found,
               coalesce(bool_or(is_full AND due_at <= now()), false) AS full_is_due,
               greatest(1, $1 / greatest(2 * max(found), 1))::integer AS per_end
          FROM walked
    ), due AS MATERIALIZED (
        SELECT o.* FROM walked CROSS JOIN rounds CROSS JOIN LATERAL (
                   SELECT * FROM (
                       (SELECT * FROM ({_OPEN} WHERE {_READY} AND o.workspace_id = walked.workspace_id AND o.due_at <= now()
                                        ORDER BY o.due_at LIMIT rounds.per_end * $2::integer) oldest)
                        UNION
                       (SELECT * FROM ({_OPEN} WHERE {_READY} AND o.workspace_id = walked.workspace_id AND o.due_at <= now()
                                        ORDER BY o.due_at DESC LIMIT rounds.per_end * $2) newest)
                   ) ends
                    ORDER BY {_MINE} DESC LIMIT 2 * rounds.per_end
               ) o
         WHERE walked.due_at <= now() AND NOT walked.is_full
         UNION ALL
        (SELECT * FROM ({_OPEN} WHERE {_LEASE_EXPIRED} AND o.workspace_id <> ALL ($5::text[]) ORDER BY o.due_at LIMIT $1) expired)
    ), looked_at AS (
        {_LOOKED_AT.format(due_at="o.due_at", rows="due")}
    )
    SELECT rounds.*, l.* FROM rounds LEFT JOIN looked_at l ON true ORDER BY l.live DESC, l.due_at
"""
"""Due rows of the workspaces in turn: of each the longest due and the newest due, `$1` rows in all, live workspaces first.

Walks to the workspaces after `$4`, by one probe of an index for each, until `$7` have due rows or `$6` are probed. Skips
those of `$5`, which are full. Adds the rows whose lease has expired. Always returns a row. Its id is null if nothing is due.
`$2` and `$3` are those of `DUE_LOOK`.
"""

PARKED_LOOK: Final = _LOOKED_AT.format(
    due_at="NULL::timestamptz",
    rows=f"""(
        SELECT o.* FROM unnest($1::text[], $2::text[], $3::integer[]) AS queue (workspace_id, endpoint_id, capacity)
         CROSS JOIN LATERAL (
               {_OPEN} WHERE o.endpoint_id = queue.endpoint_id AND o.due_at = 'infinity' ORDER BY o.id LIMIT queue.capacity
           ) o
    )""",
)
"""The oldest rows that are parked behind each of these endpoint queues, up to its capacity."""

CLAIM: Final = """
    WITH seen AS MATERIALIZED (
        SELECT o.ctid, r.placement, r.n
          FROM unnest($3::text[], $4::text[], $5::smallint[]) WITH ORDINALITY AS r (workspace_id, id, placement, n)
         CROSS JOIN LATERAL (
               SELECT o.ctid FROM spine.deliveries_open o
                WHERE o.workspace_id = r.workspace_id AND o.id = r.id AND (o.due_at <= now() OR o.due_at = 'infinity')
                LIMIT 1 FOR UPDATE SKIP LOCKED
           ) o
    ), placed AS (
        UPDATE spine.deliveries_open o
           SET due_at = CASE seen.placement WHEN 0 THEN now() + $2::interval WHEN 1 THEN 'infinity'::timestamptz END,
               leased_by = CASE seen.placement WHEN 0 THEN $1::text END,
               state = CASE seen.placement WHEN 3 THEN 'held' ELSE o.state END
          FROM seen WHERE o.ctid = seen.ctid
        RETURNING o.workspace_id, o.id, o.event_id, o.type, o.failures, o.series, o.replay_id, o.accepted_at, seen.placement, seen.n
    )
    SELECT p.*, e.body
      FROM (SELECT *, row_number() OVER (PARTITION BY event_id ORDER BY n) = 1 AS has_body FROM placed WHERE placement = 0) p
      LEFT JOIN LATERAL (
               SELECT body FROM spine.events e WHERE p.has_body AND e.workspace_id = p.workspace_id AND e.id = p.event_id LIMIT 1
           ) e ON true
     ORDER BY p.n
"""
"""Leases, parks or holds each row with its placement (`workers.webhooks.jobs.Placement`), if it is still due or parked.

Returns the leased rows. The body of an event comes with the first of its rows only.
"""

PARKED_FIND: Final = """
    WITH RECURSIVE endpoint AS (
        (SELECT endpoint_id FROM spine.deliveries_open WHERE due_at = 'infinity' AND endpoint_id > $1 ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.endpoint_id FROM spine.deliveries_open o
                 WHERE o.due_at = 'infinity' AND o.endpoint_id > endpoint.endpoint_id ORDER BY o.endpoint_id LIMIT 1)
          FROM endpoint WHERE endpoint.endpoint_id IS NOT NULL
    )
    SELECT w.workspace_id, w.id AS endpoint_id, w.version, w.max_in_flight, w.rate_per_s,
           (SELECT env = 'live' FROM spine.workspaces x WHERE x.workspace_id = w.workspace_id) AS live
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
        SELECT o.ctid, r.series, r.failures, r.wait_s, r.attempt
          FROM unnest($1::text[], $2::text[], $3::smallint[], $4::smallint[], $5::float8[], $6::text[])
            AS r (workspace_id, id, series, failures, wait_s, attempt)
          {_SEEN.format(condition=_SAME_ATTEMPT.format(r="r"))}
    )
    UPDATE spine.deliveries_open o
       SET state = 'retrying', failures = o.failures + 1, attempts = o.attempts || seen.attempt::jsonb,
           due_at = statement_timestamp() + make_interval(secs => greatest(seen.wait_s, 0)), leased_by = NULL
      FROM seen WHERE o.ctid = seen.ctid AND {_SAME_ATTEMPT.format(r="seen")}
"""
"""Schedules the next attempt, in `$5` seconds from now, unless another result of this attempt was recorded before."""

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

IDEMPOTENCY_DROP: Final = """
    DELETE FROM spine.idempotency_keys
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM spine.idempotency_keys WHERE expires_at < now() LIMIT $1)) AND expires_at < now()
"""
SECRETS_DROP: Final = "DELETE FROM spine.endpoint_secrets WHERE expires_at < now()"
