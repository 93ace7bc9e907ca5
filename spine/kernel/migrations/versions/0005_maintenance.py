"""Revision 0005: the lease of maintenance, partitions made and dropped without waiting, rows moved out of default partitions, retention."""

from spine.kernel.migrations.tenancy import script

revision = "0005"
down_revision = "0004"

LEASES = """
CREATE TABLE spine.leases (
    name text COLLATE "C" PRIMARY KEY,
    holder text COLLATE "C" NOT NULL,
    leased_until timestamptz NOT NULL
);
COMMENT ON TABLE spine.leases IS 'Work that one worker does at a time. After leased_until, by the clock of this server, any worker may take it.';
GRANT SELECT, INSERT, UPDATE, DELETE ON spine.leases TO spine_worker;
"""

RETENTION = """
GRANT DELETE ON spine.messages, spine.attempts, spine.timeline_entries, spine.replays TO spine_worker;
DROP TRIGGER append_only ON spine.timeline_entries;
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON spine.timeline_entries
    FOR EACH STATEMENT EXECUTE FUNCTION spine.refuse_change();
-- Only workers delete entries, and none of the last day, which is the shortest retention.
CREATE TRIGGER append_only_until_retention BEFORE DELETE ON spine.timeline_entries
    FOR EACH ROW WHEN (current_user <> 'spine_worker' OR OLD.at > now() - interval '1 day') EXECUTE FUNCTION spine.refuse_change();
"""

# Whoever waits for a lock of a whole table makes every later caller wait behind it. So each function that needs one waits 50 ms
# at most, and its caller tries again.
FUNCTIONS = """
DROP FUNCTION spine.partitions_ensure(integer), spine.partitions_drop(timestamptz);

-- Returns the UTC day of the time in an id; null if the id holds no time before the year 10000.
CREATE FUNCTION spine.partition_day(p_id text) RETURNS date
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    symbols constant text := '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
    ms bigint := 0;
BEGIN
    IF p_id !~ '^[a-z]{3}_[0-7][0-9A-HJKMNP-TV-Z]{9}' THEN
        RETURN NULL;
    END IF;
    FOR i IN 5..14 LOOP
        ms := ms * 32 + strpos(symbols, substr(p_id, i, 1)) - 1;
    END LOOP;
    IF ms >= 253402300800000 THEN
        RETURN NULL;
    END IF;
    RETURN (to_timestamp(ms / 1000) AT TIME ZONE 'UTC')::date;
END $$;

-- Returns the least id that a row of this day can have.
CREATE FUNCTION spine.partition_bound(p_parent text, p_day date) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT CASE p_parent WHEN 'events' THEN 'evt_' WHEN 'deliveries_closed' THEN 'dlv_' END
           || spine.ulid_time(p_day::timestamp AT TIME ZONE 'UTC')
$$;

CREATE FUNCTION spine.partition_name(p_parent text, p_day date) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT p_parent || '_' || to_char(p_day, 'YYYYMMDD')
$$;

-- Creates a table that can become a partition. Row security is forced when it is attached: until then its owner fills it.
CREATE FUNCTION spine.partition_create(p_parent text, p_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('CREATE TABLE spine.%I (LIKE spine.%I INCLUDING ALL EXCLUDING COMMENTS)', p_name, p_parent);
    EXECUTE format('ALTER TABLE spine.%I ENABLE ROW LEVEL SECURITY', p_name);
END $$;

-- Attaches a table as the partition of a day. Locks the default partition, and not the parent as CREATE TABLE PARTITION OF does.
CREATE FUNCTION spine.partition_attach(p_parent text, p_name text, p_day date) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('ALTER TABLE spine.%I ATTACH PARTITION spine.%I FOR VALUES FROM (%L) TO (%L)', p_parent, p_name,
                   spine.partition_bound(p_parent, p_day), spine.partition_bound(p_parent, p_day + 1));
    EXECUTE format('ALTER TABLE spine.%I FORCE ROW LEVEL SECURITY', p_name);
END $$;

-- Makes the missing day partitions of spine.events and spine.deliveries_closed from yesterday to p_days_ahead days ahead, each on
-- its own. Returns those that were missing, with the problem if one could not be made. Returns nothing if another process makes them now.
CREATE FUNCTION spine.partitions_ensure(p_days_ahead integer) RETURNS TABLE (partition text, problem text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '50ms' AS $$
DECLARE
    parent text;
    day date;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('spine.partitions')) THEN
        RETURN;
    END IF;
    FOREACH parent IN ARRAY ARRAY['events', 'deliveries_closed'] LOOP
        FOR n IN -1..p_days_ahead LOOP
            day := (now() AT TIME ZONE 'UTC')::date + n;
            partition := spine.partition_name(parent, day);
            CONTINUE WHEN EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass('spine.' || partition));
            BEGIN
                -- Attaching reads the whole default partition under a lock. More than 8 MB of rows are moved out first.
                IF pg_relation_size('spine.' || parent || '_default') > 8388608 THEN
                    RAISE EXCEPTION 'the default partition holds too many rows';
                END IF;
                PERFORM spine.partition_create(parent, partition);
                PERFORM spine.partition_attach(parent, partition, day);
                problem := NULL;
            EXCEPTION WHEN OTHERS THEN
                problem := SQLERRM;
            END;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;

-- Drops the oldest day partition that ends before p_before, of one parent or of any, and returns its name. One at a time: a
-- caller that drops several would hold the lock of the first while it waits for that of the next.
CREATE FUNCTION spine.partitions_drop(p_before timestamptz, p_parent text DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '50ms' AS $$
DECLARE
    partition text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spine.partitions'));
    SELECT c.relname INTO partition FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
     WHERE i.inhparent IN ('spine.events'::regclass, 'spine.deliveries_closed'::regclass)
       AND c.relname ~ '_[0-9]{8}$' AND p.relname = coalesce(p_parent, p.relname)
       AND to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' + interval '1 day' <= p_before
     ORDER BY right(c.relname, 8), c.relname LIMIT 1;
    IF FOUND THEN
        EXECUTE format('DROP TABLE spine.%I', partition);
        RETURN NEXT partition;
    END IF;
END $$;

-- Returns how many rows of each day are in p_blocks blocks of a default partition, from block p_from.
CREATE FUNCTION spine.default_days(p_parent text, p_from bigint, p_blocks integer) RETURNS TABLE (day date, rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN QUERY EXECUTE
        format('SELECT spine.partition_day(id), count(*) FROM spine.%I WHERE ctid >= $1 AND ctid < $2 GROUP BY 1', p_parent || '_default')
        USING format('(%s,0)', p_from)::tid, format('(%s,0)', p_from + p_blocks)::tid;
END $$;

-- Deletes the rows past the retention in these blocks of a default partition. The retention of a delivery starts when it closes: one
-- that closed after the partition of its day was dropped stays until then. Returns how many were deleted.
CREATE FUNCTION spine.default_expire(p_parent text, p_from bigint, p_blocks integer, p_before timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    deleted bigint;
BEGIN
    EXECUTE format('DELETE FROM spine.%I WHERE ctid >= $1 AND ctid < $2 AND %I < $3 AND spine.partition_day(id) < ($3 AT TIME ZONE ''UTC'')::date',
                   p_parent || '_default', CASE p_parent WHEN 'events' THEN 'accepted_at' ELSE 'closed_at' END)
      USING format('(%s,0)', p_from)::tid, format('(%s,0)', p_from + p_blocks)::tid, p_before;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- Rows leave a default partition as in an online schema change. `default_move_begin` creates an empty table for each day and one for
-- the rows that stay. `default_move_copy` copies the rows, some blocks at a time; meanwhile the trigger repeats each change of a row
-- in its copy. `default_move_finish` puts the new tables into the place of the old default partition. So each row is always visible once.
CREATE FUNCTION spine.default_move_target(p_parent text, p_day date) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT coalesce(to_regclass('spine.' || spine.partition_name(p_parent, p_day) || '_new'), to_regclass('spine.' || p_parent || '_default_new'))
$$;

CREATE FUNCTION spine.default_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    changed record := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    target regclass := spine.default_move_target(TG_ARGV[0], spine.partition_day(changed.id));
BEGIN
    IF target IS NOT NULL THEN
        EXECUTE format('DELETE FROM %s WHERE workspace_id = $1 AND id = $2', target) USING changed.workspace_id, changed.id;
        IF TG_OP <> 'DELETE' THEN
            EXECUTE format('INSERT INTO %s SELECT ($1).*', target) USING NEW;
        END IF;
    END IF;
    RETURN NULL;
END $$;

-- Gives a default partition its row security and its trigger. Its owner reads it past the forced row security to move its rows.
CREATE FUNCTION spine.default_prepare(p_parent text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('ALTER TABLE spine.%I FORCE ROW LEVEL SECURITY', p_parent || '_default');
    EXECUTE format('CREATE POLICY every_workspace ON spine.%I TO CURRENT_USER USING (true) WITH CHECK (true)', p_parent || '_default');
    EXECUTE format('CREATE TRIGGER default_changed AFTER INSERT OR UPDATE OR DELETE ON spine.%I
                       FOR EACH ROW EXECUTE FUNCTION spine.default_changed(%L)', p_parent || '_default', p_parent);
END $$;

-- Raises if the move that p_move names (the oid of its table for the rows that stay) was begun again by another process.
CREATE FUNCTION spine.default_move_check(p_parent text, p_move oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF to_regclass('spine.' || p_parent || '_default_new')::oid IS DISTINCT FROM p_move THEN
        RAISE EXCEPTION 'another process moves the rows of this default partition' USING ERRCODE = 'object_in_use';
    END IF;
END $$;

-- Returns the names of the tables that the move of a default partition fills, without the one for the rows that stay.
CREATE FUNCTION spine.default_move_tables(p_parent text) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT relname::text FROM pg_class
     WHERE relnamespace = 'spine'::regnamespace AND relkind = 'r' AND relname ~ ('^' || p_parent || '_[0-9]{8}_new$') ORDER BY 1
$$;

-- Begins to move the rows of these days, and forgets a move that did not finish. Returns the move and the blocks to copy.
CREATE FUNCTION spine.default_move_begin(p_parent text, p_days date[]) RETURNS TABLE (move oid, blocks bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '50ms' AS $$
DECLARE
    old text;
    day date;
    partition text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spine.partitions'));
    -- Waits for the transactions whose changes the copies would miss. Later ones see the tables.
    EXECUTE format('LOCK TABLE spine.%I IN SHARE ROW EXCLUSIVE MODE', p_parent || '_default');
    FOR old IN SELECT spine.default_move_tables(p_parent) UNION ALL SELECT p_parent || '_default_new' LOOP
        EXECUTE format('DROP TABLE IF EXISTS spine.%I', old);
    END LOOP;
    PERFORM spine.partition_create(p_parent, p_parent || '_default_new');
    FOREACH day IN ARRAY p_days LOOP
        partition := spine.partition_name(p_parent, day) || '_new';
        PERFORM spine.partition_create(p_parent, partition);
        -- With this constraint, attaching does not read the table.
        EXECUTE format('ALTER TABLE spine.%I ADD CONSTRAINT of_one_day CHECK (id >= %L AND id < %L)', partition,
                       spine.partition_bound(p_parent, day), spine.partition_bound(p_parent, day + 1));
    END LOOP;
    RETURN QUERY SELECT to_regclass('spine.' || p_parent || '_default_new')::oid,
                        pg_relation_size('spine.' || p_parent || '_default') / current_setting('block_size')::bigint;
END $$;

-- Copies the rows of these blocks, each into the table of its day. Locks them, so that a change comes before or after the copy.
CREATE FUNCTION spine.default_move_copy(p_parent text, p_move oid, p_from bigint, p_blocks integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    day date;
    copied bigint;
    total bigint := 0;
BEGIN
    PERFORM spine.default_move_check(p_parent, p_move);
    FOR day IN SELECT d.day FROM spine.default_days(p_parent, p_from, p_blocks) d LOOP
        EXECUTE format('INSERT INTO %s SELECT * FROM spine.%I WHERE ctid >= $1 AND ctid < $2 AND spine.partition_day(id) IS NOT DISTINCT FROM $3
                           FOR SHARE ON CONFLICT DO NOTHING',
                       spine.default_move_target(p_parent, day), p_parent || '_default')
          USING format('(%s,0)', p_from)::tid, format('(%s,0)', p_from + p_blocks)::tid, day;
        GET DIAGNOSTICS copied = ROW_COUNT;
        total := total + copied;
    END LOOP;
    RETURN total;
END $$;

-- Replaces the default partition by the copies: no row is read, so the lock is short. A day that cannot be attached is put back into
-- the default partition, and does not stop the others. Returns the partitions, with the problem of those days.
CREATE FUNCTION spine.default_move_finish(p_parent text, p_move oid) RETURNS TABLE (partition text, problem text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '50ms' AS $$
DECLARE
    made text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spine.partitions'));
    PERFORM spine.default_move_check(p_parent, p_move);
    EXECUTE format('LOCK TABLE ONLY spine.%I IN ACCESS EXCLUSIVE MODE', p_parent);
    EXECUTE format('ALTER TABLE spine.%I DETACH PARTITION spine.%I', p_parent, p_parent || '_default');
    EXECUTE format('DROP TABLE spine.%I', p_parent || '_default');
    FOR made IN SELECT spine.default_move_tables(p_parent) LOOP
        partition := left(made, -length('_new'));
        BEGIN
            EXECUTE format('ALTER TABLE spine.%I RENAME TO %I', made, partition);
            PERFORM spine.partition_attach(p_parent, partition, to_date(right(partition, 8), 'YYYYMMDD'));
            EXECUTE format('ALTER TABLE spine.%I DROP CONSTRAINT of_one_day', partition);
            problem := NULL;
        EXCEPTION WHEN OTHERS THEN
            problem := SQLERRM;
            EXECUTE format('INSERT INTO spine.%I SELECT * FROM spine.%I', p_parent || '_default_new', made);
            EXECUTE format('DROP TABLE spine.%I', made);
        END;
        RETURN NEXT;
    END LOOP;
    EXECUTE format('ALTER TABLE spine.%I RENAME TO %I', p_parent || '_default_new', p_parent || '_default');
    EXECUTE format('ALTER TABLE spine.%I ATTACH PARTITION spine.%I DEFAULT', p_parent, p_parent || '_default');
    PERFORM spine.default_prepare(p_parent);
END $$;

-- Ends our sessions whose client has not read the result of a statement for p_after: it is frozen, and its transaction keeps row locks.
-- No timeout of the server does so: a session that waits for its client ends only when it is told to. Returns how many it ended.
CREATE FUNCTION spine.frozen_sessions_end(p_after interval) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'spine %' AND state = 'active'
       AND wait_event = 'ClientWrite' AND query_start < clock_timestamp() - p_after
$$;

SELECT spine.default_prepare('events'), spine.default_prepare('deliveries_closed');
"""

FOR_WORKERS = (
    "spine.partitions_ensure(integer), spine.partitions_drop(timestamptz, text), spine.default_days(text, bigint, integer), "
    "spine.default_expire(text, bigint, integer, timestamptz), spine.default_move_begin(text, date[]), "
    "spine.default_move_copy(text, oid, bigint, integer), spine.default_move_finish(text, oid), spine.frozen_sessions_end(interval)"
)
GRANTS = f"""
REVOKE ALL ON FUNCTION {FOR_WORKERS}, spine.default_changed() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {FOR_WORKERS} TO spine_worker;
GRANT EXECUTE ON FUNCTION spine.partitions_ensure(integer) TO spine_app;
"""

REMOVED = f"""
DROP TRIGGER default_changed ON spine.events_default;
DROP TRIGGER default_changed ON spine.deliveries_closed_default;
DROP POLICY every_workspace ON spine.events_default;
DROP POLICY every_workspace ON spine.deliveries_closed_default;
DO $$
DECLARE
    unfinished record;
BEGIN
    FOR unfinished IN SELECT relname FROM pg_class WHERE relnamespace = 'spine'::regnamespace AND relkind = 'r'
                         AND relname ~ '^(events|deliveries_closed)_([0-9]{{8}}|default)_new$' LOOP
        EXECUTE format('DROP TABLE spine.%I', unfinished.relname);
    END LOOP;
END $$;
DROP FUNCTION {FOR_WORKERS}, spine.default_move_tables(text), spine.default_move_check(text, oid), spine.default_prepare(text),
    spine.default_changed(), spine.default_move_target(text, date), spine.partition_attach(text, text, date),
    spine.partition_create(text, text), spine.partition_name(text, date), spine.partition_bound(text, date), spine.partition_day(text);

REVOKE DELETE ON spine.messages, spine.attempts, spine.timeline_entries, spine.replays FROM spine_worker;
DROP TRIGGER append_only_until_retention ON spine.timeline_entries;
DROP TRIGGER append_only ON spine.timeline_entries;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON spine.timeline_entries
    FOR EACH STATEMENT EXECUTE FUNCTION spine.refuse_change();
DROP TABLE spine.leases;
"""

FORMER_FUNCTIONS = """
-- Creates the day partitions of spine.events and spine.deliveries_closed from yesterday to p_days_ahead days ahead.
CREATE FUNCTION spine.partitions_ensure(p_days_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    parent record;
    first_day timestamptz := date_trunc('day', now(), 'UTC') - interval '1 day';
    day timestamptz;
    partition text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spine.partitions'));
    FOR parent IN VALUES ('events', 'evt_'), ('deliveries_closed', 'dlv_') LOOP
        FOR n IN 0..p_days_ahead + 1 LOOP
            day := first_day + make_interval(days => n);
            partition := format('%s_%s', parent.column1, to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD'));
            CONTINUE WHEN to_regclass('spine.' || partition) IS NOT NULL;
            EXECUTE format('CREATE TABLE spine.%I PARTITION OF spine.%I FOR VALUES FROM (%L) TO (%L)', partition, parent.column1,
                           parent.column2 || spine.ulid_time(day), parent.column2 || spine.ulid_time(day + interval '1 day'));
            EXECUTE format('ALTER TABLE spine.%I ENABLE ROW LEVEL SECURITY', partition);
            EXECUTE format('ALTER TABLE spine.%I FORCE ROW LEVEL SECURITY', partition);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- Drops the day partitions that end before p_before and returns their names. The default partitions stay.
CREATE FUNCTION spine.partitions_drop(p_before timestamptz) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    partition record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spine.partitions'));
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent IN ('spine.events'::regclass, 'spine.deliveries_closed'::regclass)
           AND c.relname ~ '_[0-9]{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' + interval '1 day' <= p_before
    LOOP
        EXECUTE format('DROP TABLE spine.%I', partition.relname);
        RETURN NEXT partition.relname;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION spine.partitions_ensure(integer), spine.partitions_drop(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION spine.partitions_ensure(integer), spine.partitions_drop(timestamptz) TO spine_worker;
"""


def upgrade() -> None:
    script(LEASES + RETENTION)
    script(FUNCTIONS + GRANTS)


def downgrade() -> None:
    script(REMOVED + FORMER_FUNCTIONS)
