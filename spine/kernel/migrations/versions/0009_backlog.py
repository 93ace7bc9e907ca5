"""Revision 0009: work over many deliveries goes in bounded steps, and its place is kept in rows."""

from spine.kernel.migrations.tenancy import script, tenant_table

revision = "0009"
down_revision = "0008"


TABLES = """
ALTER TABLE spine.webhook_endpoints ADD discard_before timestamptz;
COMMENT ON COLUMN spine.webhook_endpoints.discard_before IS
    'Set while an enabled endpoint still has deliveries to discard that were not held yet: a claim holds those of older events.';
CREATE INDEX webhook_endpoints_kept ON spine.webhook_endpoints (workspace_id) WHERE deleted_at IS NULL;

-- Endpoints that were disabled, enabled or deleted, and whose open deliveries must follow. The endpoint's row says what becomes
-- of a delivery; this row says how far the walk over its deliveries is.
CREATE TABLE spine.endpoint_transitions (
    workspace_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    discard_before timestamptz,
    unfollowed boolean NOT NULL DEFAULT false,
    event_id text COLLATE "C" NOT NULL DEFAULT '',
    delivery_id text COLLATE "C" NOT NULL DEFAULT '',
    moved bigint NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    error text,
    due_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, endpoint_id),
    FOREIGN KEY (workspace_id, endpoint_id) REFERENCES spine.webhook_endpoints (workspace_id, id)
);
COMMENT ON COLUMN spine.endpoint_transitions.discard_before IS
    'Deliveries that were held when the endpoint was enabled become dead letters if their event is older.';
COMMENT ON COLUMN spine.endpoint_transitions.unfollowed IS
    'Whether the endpoint was enabled before all of its deliveries were held: then waiting ones count as held.';
COMMENT ON COLUMN spine.endpoint_transitions.delivery_id IS 'The last delivery that the walk has passed, with its event_id.';

-- The open deliveries of one endpoint, by event. First attempts that the relay has leased are not in it, so a delivery that
-- succeeds at once never costs an entry. The condition says `leased_by IS NULL` in other words: claims have that condition, and
-- must not be planned with this index.
CREATE INDEX deliveries_open_endpoint ON spine.deliveries_open (endpoint_id, event_id, id)
    WHERE coalesce(leased_by, '') = '' OR failures > 0 OR series > 1 OR replay_id IS NOT NULL;
CREATE INDEX deliveries_open_replay ON spine.deliveries_open (replay_id) WHERE replay_id IS NOT NULL;

-- Results that Postgres refused to store, each with what was received.
CREATE TABLE spine.results_set_apart (
    workspace_id text COLLATE "C" NOT NULL,
    delivery_id text COLLATE "C" NOT NULL,
    series integer NOT NULL,
    number integer NOT NULL,
    verdict text NOT NULL,
    attempt bytea,
    error text NOT NULL,
    recorded boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (workspace_id, delivery_id, seq)
);
CREATE INDEX results_set_apart_age ON spine.results_set_apart (created_at);
COMMENT ON COLUMN spine.results_set_apart.attempt IS 'What the receiver answered, as bytes, which no check of jsonb can refuse.';
COMMENT ON COLUMN spine.results_set_apart.recorded IS
    'Whether the attempt was recorded without its response; if not, the delivery was put off and is attempted again.';

ALTER TABLE spine.replays ADD count_position text COLLATE "C", ADD failures integer NOT NULL DEFAULT 0, ADD error text;
COMMENT ON COLUMN spine.replays.count_position IS 'While the replay is being counted: the last counted row. Null once total is final.';
CREATE INDEX replays_turn ON spine.replays (workspace_id, due_at) WHERE due_at IS NOT NULL;
DROP INDEX spine.replays_due;
"""

FUNCTIONS = """
-- Moves the next deliveries of an endpoint to what the endpoint's row says: dead if it is deleted, held if it is disabled, parked
-- if it is enabled. Reads at most p_limit rows. Returns how many it moved and whether the walk is at its end.
-- Leased rows stay: their claim or their result sees the endpoint's row too. Without sequential scans, because a plan that was
-- cached while the queue was empty would read all of it.
CREATE FUNCTION spine.endpoint_follow(p_workspace_id text, p_endpoint_id text, p_limit integer)
RETURNS TABLE (moved bigint, done boolean)
LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan TO off AS $$
DECLARE
    walk spine.endpoint_transitions;
    endpoint spine.webhook_endpoints;
    seen record;
    locked tid[];
    discarded bigint;
    changed bigint := 0;
BEGIN
    SELECT * INTO walk FROM spine.endpoint_transitions t
     WHERE t.workspace_id = p_workspace_id AND t.endpoint_id = p_endpoint_id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 0::bigint, false;
        RETURN;
    END IF;
    SELECT * INTO endpoint FROM spine.webhook_endpoints w WHERE w.workspace_id = p_workspace_id AND w.id = p_endpoint_id;
    SELECT count(*) AS read, array_agg(o.ctid) AS rows, (array_agg(o.event_id))[count(*)::int] AS event_id,
           (array_agg(o.id))[count(*)::int] AS id
      INTO seen
      FROM (
               SELECT d.ctid, d.event_id, d.id FROM spine.deliveries_open d
                WHERE d.endpoint_id = p_endpoint_id AND (d.event_id, d.id) > (walk.event_id, walk.delivery_id)
                  AND (coalesce(d.leased_by, '') = '' OR d.failures > 0 OR d.series > 1 OR d.replay_id IS NOT NULL)
                ORDER BY d.event_id, d.id LIMIT p_limit
           ) o;
    locked := ARRAY(SELECT o.ctid FROM spine.deliveries_open o
                     WHERE o.ctid = ANY (seen.rows) AND o.leased_by IS NULL FOR UPDATE SKIP LOCKED);
    WITH gone AS (
        DELETE FROM spine.deliveries_open o
         WHERE o.ctid = ANY (locked)
           AND (endpoint.deleted_at IS NOT NULL OR (o.accepted_at < walk.discard_before AND (o.state = 'held' OR walk.unfollowed)))
        RETURNING o.*
    )
    INSERT INTO spine.deliveries_closed
        (workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id, accepted_at, created_at, xid)
    SELECT g.workspace_id, g.id, g.event_id, g.type, g.endpoint_id, 'dead',
           CASE WHEN endpoint.deleted_at IS NULL THEN 'held_discarded' ELSE 'endpoint_deleted' END,
           g.series, g.attempts, g.replay_id, g.accepted_at, g.created_at, g.xid
      FROM gone g;
    GET DIAGNOSTICS discarded = ROW_COUNT;
    IF endpoint.deleted_at IS NULL THEN
        IF endpoint.status = 'disabled' THEN
            UPDATE spine.deliveries_open o SET state = 'held', due_at = NULL WHERE o.ctid = ANY (locked) AND o.state <> 'held';
        ELSE
            -- Parked, not due: a million due rows of one endpoint would delay the retries of all others.
            UPDATE spine.deliveries_open o
               SET state = CASE WHEN o.failures = 0 THEN 'pending' ELSE 'retrying' END, due_at = 'infinity'
             WHERE o.ctid = ANY (locked) AND o.state = 'held';
        END IF;
        GET DIAGNOSTICS changed = ROW_COUNT;
    END IF;
    done := seen.read < p_limit;
    IF done AND endpoint.discard_before IS NOT NULL THEN
        -- Who changes the endpoint holds its lock and then waits for the walk's: skip, and end the walk at the next step.
        PERFORM FROM spine.webhook_endpoints w WHERE w.workspace_id = p_workspace_id AND w.id = p_endpoint_id FOR UPDATE SKIP LOCKED;
        done := FOUND;
        UPDATE spine.webhook_endpoints w SET discard_before = NULL
         WHERE w.workspace_id = p_workspace_id AND w.id = p_endpoint_id AND done;
    END IF;
    IF done THEN
        DELETE FROM spine.endpoint_transitions t WHERE t.workspace_id = p_workspace_id AND t.endpoint_id = p_endpoint_id;
    ELSE
        UPDATE spine.endpoint_transitions t
           SET event_id = coalesce(seen.event_id, t.event_id), delivery_id = coalesce(seen.id, t.delivery_id),
               moved = t.moved + discarded + changed, due_at = clock_timestamp(), failures = 0, error = NULL
         WHERE t.workspace_id = p_workspace_id AND t.endpoint_id = p_endpoint_id;
    END IF;
    moved := discarded + changed;
    RETURN NEXT;
END $$;

-- Makes the deliveries of an endpoint follow its row, in the transaction that changed the row. A walk that is under way begins
-- again. With p_discard_before, what was held for older events becomes dead letters.
CREATE FUNCTION spine.endpoint_changed(p_workspace_id text, p_endpoint_id text, p_discard_before timestamptz DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    unheld boolean;
BEGIN
    INSERT INTO spine.endpoint_transitions AS t (workspace_id, endpoint_id, discard_before)
    VALUES (p_workspace_id, p_endpoint_id, p_discard_before)
    ON CONFLICT (workspace_id, endpoint_id) DO UPDATE
       SET event_id = '', delivery_id = '', due_at = now(), failures = 0, error = NULL,
           discard_before = greatest(t.discard_before, EXCLUDED.discard_before),
           unfollowed = t.unfollowed OR EXCLUDED.discard_before IS NOT NULL
    RETURNING t.unfollowed INTO unheld;
    IF unheld AND p_discard_before IS NOT NULL THEN
        UPDATE spine.webhook_endpoints w SET discard_before = greatest(w.discard_before, p_discard_before)
         WHERE w.workspace_id = p_workspace_id AND w.id = p_endpoint_id;
    END IF;
END $$;
"""


def upgrade() -> None:
    everything = "SELECT, INSERT, UPDATE, DELETE"
    script(TABLES)
    script(
        tenant_table("spine.endpoint_transitions", app=everything, worker=everything)
        + tenant_table("spine.results_set_apart", app="SELECT", worker="SELECT, INSERT, UPDATE, DELETE")
    )
    script(FUNCTIONS)


def downgrade() -> None:
    script("""
        DROP FUNCTION spine.endpoint_changed, spine.endpoint_follow;
        CREATE INDEX replays_due ON spine.replays (due_at) WHERE due_at IS NOT NULL;
        DROP INDEX spine.replays_turn;
        ALTER TABLE spine.replays DROP count_position, DROP failures, DROP error;
        DROP TABLE spine.results_set_apart, spine.endpoint_transitions;
        DROP INDEX spine.deliveries_open_replay, spine.deliveries_open_endpoint, spine.webhook_endpoints_kept;
        ALTER TABLE spine.webhook_endpoints DROP discard_before;
    """)
