"""Revision 0012: resources, services, slots, appointments, waitlists and booking pages of the calendar; the directory of public slugs."""

from alembic import op

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, definer, product_table, script, tenant_table

revision = "0012"
down_revision = "0011"

# The constraint on appointments compares texts and ranges in one GiST index. The extension is a trusted one: the owner of
# the database may create it, no superuser is needed.
EXTENSION = "CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;"

RESOURCES = f"""
CREATE TABLE spine.calendar_resources (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    user_id text COLLATE "C",
    time_zone text COLLATE "C" NOT NULL,
    {RESOURCE_COLUMNS},
    CONSTRAINT calendar_resources_user FOREIGN KEY (workspace_id, user_id) REFERENCES spine.users (workspace_id, id)
);

CREATE TABLE spine.services (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    slug text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    duration_min integer NOT NULL CHECK (duration_min > 0),
    buffer_min integer NOT NULL DEFAULT 0 CHECK (buffer_min >= 0),
    reminder_minutes jsonb NOT NULL DEFAULT '[1440, 60]',
    offer_min integer NOT NULL DEFAULT 30 CHECK (offer_min > 0),
    {RESOURCE_COLUMNS},
    CONSTRAINT services_slug UNIQUE (workspace_id, slug)
);
"""

SLOTS = f"""
-- `bookable_until` is `starts_at`, by the test clock.
CREATE TABLE spine.slots (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    resource_id text COLLATE "C" NOT NULL,
    service text COLLATE "C",
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    bookable_until timestamptz NOT NULL,
    capacity integer NOT NULL CHECK (capacity >= 1),
    booked integer NOT NULL DEFAULT 0,
    status text COLLATE "C" NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    {RESOURCE_COLUMNS},
    CONSTRAINT slots_room CHECK (0 <= booked AND booked <= capacity),
    CONSTRAINT slots_order CHECK (starts_at < ends_at),
    CONSTRAINT slots_resource FOREIGN KEY (workspace_id, resource_id) REFERENCES spine.calendar_resources (workspace_id, id),
    CONSTRAINT slots_service FOREIGN KEY (workspace_id, service) REFERENCES spine.services (workspace_id, slug)
);
CREATE INDEX slots_available ON spine.slots (workspace_id, starts_at, id) WHERE status = 'open' AND booked < capacity;
CREATE INDEX slots_available_of_resource ON spine.slots (workspace_id, resource_id, starts_at, id)
    WHERE status = 'open' AND booked < capacity;
"""

APPOINTMENTS = f"""
-- `occupied` is the time of the slot and the service's buffer after it; `begins_at` is `starts_at`, by the test clock.
-- The constraint lets a group slot fill to its capacity, and no two overlapping slots of one resource be booked.
CREATE TABLE spine.appointments (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    slot_id text COLLATE "C" NOT NULL,
    resource_id text COLLATE "C" NOT NULL,
    contact_id text COLLATE "C" NOT NULL,
    service text COLLATE "C",
    status text COLLATE "C" NOT NULL DEFAULT 'booked' CHECK (status IN ('booked', 'cancelled', 'completed', 'no_show')),
    booked_via text COLLATE "C" NOT NULL CHECK (booked_via IN ('agent', 'page', 'api', 'staff')),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    begins_at timestamptz NOT NULL,
    occupied tstzrange NOT NULL CHECK (NOT isempty(occupied)),
    cancel_reason text COLLATE "C",
    follow_up boolean NOT NULL DEFAULT false CHECK (status = 'no_show' OR NOT follow_up),
    history jsonb NOT NULL DEFAULT '[]',
    {RESOURCE_COLUMNS},
    CHECK ((status = 'cancelled') = (cancel_reason IS NOT NULL)),
    CONSTRAINT appointments_slot FOREIGN KEY (workspace_id, slot_id) REFERENCES spine.slots (workspace_id, id),
    CONSTRAINT appointments_resource FOREIGN KEY (workspace_id, resource_id) REFERENCES spine.calendar_resources (workspace_id, id),
    CONSTRAINT appointments_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    CONSTRAINT appointments_service FOREIGN KEY (workspace_id, service) REFERENCES spine.services (workspace_id, slug),
    CONSTRAINT appointments_overlap EXCLUDE USING gist
        (workspace_id WITH =, resource_id WITH =, occupied WITH &&, slot_id WITH <>) WHERE (status = 'booked')
);
CREATE INDEX appointments_of_contact ON spine.appointments (workspace_id, contact_id, id);
CREATE INDEX appointments_of_slot ON spine.appointments (workspace_id, slot_id, id);
CREATE INDEX appointments_of_resource ON spine.appointments (workspace_id, resource_id, id);
-- Row-level security hides the constraint's own index from queries: the comparison of ranges is not leakproof.
CREATE INDEX appointments_of_time ON spine.appointments (workspace_id, resource_id, starts_at) WHERE status = 'booked';
CREATE INDEX appointments_to_come ON spine.appointments (workspace_id, contact_id, begins_at) WHERE status = 'booked';
"""

WAITLIST = f"""
-- `queue_number` is the order of joining.
CREATE TABLE spine.waitlist_entries (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    queue_number bigint GENERATED ALWAYS AS IDENTITY,
    service text COLLATE "C" NOT NULL,
    resource_id text COLLATE "C",
    contact_id text COLLATE "C" NOT NULL,
    window_from timestamptz NOT NULL,
    window_to timestamptz NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'offered', 'booked', 'withdrawn')),
    slot_id text COLLATE "C",
    offer_expires_at timestamptz,
    appointment_id text COLLATE "C",
    {RESOURCE_COLUMNS},
    CHECK (window_from < window_to),
    CHECK (CASE status
        WHEN 'offered' THEN slot_id IS NOT NULL AND offer_expires_at IS NOT NULL AND appointment_id IS NULL
        WHEN 'booked' THEN slot_id IS NOT NULL AND offer_expires_at IS NULL AND appointment_id IS NOT NULL
        ELSE slot_id IS NULL AND offer_expires_at IS NULL AND appointment_id IS NULL END),
    CONSTRAINT waitlist_entries_service FOREIGN KEY (workspace_id, service) REFERENCES spine.services (workspace_id, slug),
    CONSTRAINT waitlist_entries_resource FOREIGN KEY (workspace_id, resource_id)
        REFERENCES spine.calendar_resources (workspace_id, id),
    CONSTRAINT waitlist_entries_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    FOREIGN KEY (workspace_id, slot_id) REFERENCES spine.slots (workspace_id, id),
    FOREIGN KEY (workspace_id, appointment_id) REFERENCES spine.appointments (workspace_id, id)
);
CREATE INDEX waitlist_entries_queue ON spine.waitlist_entries (workspace_id, queue_number) WHERE status = 'waiting';
CREATE INDEX waitlist_entries_offered ON spine.waitlist_entries (workspace_id, slot_id) WHERE status = 'offered';
CREATE INDEX waitlist_entries_of_contact ON spine.waitlist_entries (workspace_id, contact_id, id);
"""

PAGES = f"""
CREATE TABLE spine.public_slugs (
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('page', 'form')),
    slug text COLLATE "C" NOT NULL,
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    subject_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, slug)
);
COMMENT ON TABLE spine.public_slugs IS 'Directory: the slug of each public page and form, and the object that it leads to.';

CREATE TABLE spine.booking_pages (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    slug text COLLATE "C" NOT NULL,
    brand jsonb NOT NULL,
    services jsonb NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    {RESOURCE_COLUMNS}
);

-- Returns the object that a public slug leads to, before a workspace is known.
CREATE FUNCTION spine.public_slug_find(p_kind text, p_slug text)
RETURNS TABLE (workspace_id text, organisation_id text, env text, subject_id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN QUERY
    SELECT s.workspace_id, w.organisation_id, w.env, s.subject_id
      FROM spine.public_slugs s JOIN spine.workspaces w ON w.workspace_id = s.workspace_id
     WHERE s.kind = p_kind AND s.slug = p_slug;
END $$;
"""

OF_PRODUCT = ("calendar_resources", "services", "slots", "appointments", "waitlist_entries", "booking_pages")
TABLES = (*OF_PRODUCT, "public_slugs")


def upgrade() -> None:
    script(EXTENSION)
    script(
        RESOURCES + SLOTS + APPOINTMENTS + WAITLIST + PAGES
        + "".join(product_table(f"spine.{table}", app="SELECT, INSERT, UPDATE") for table in OF_PRODUCT)
        + tenant_table("spine.public_slugs", app="SELECT, INSERT, UPDATE, DELETE", worker="SELECT")
        + definer("spine.public_slug_find(text, text)")
    )  # fmt: skip


def downgrade() -> None:
    op.execute("DROP FUNCTION spine.public_slug_find(text, text)")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE spine.{table}")
    # The extension stays if another schema uses it, or if a superuser created it.
    script("""
        DO $$ BEGIN
            DROP EXTENSION IF EXISTS btree_gist;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN NULL;
        END $$;
    """)
