"""Revision 0015: templates, projects, milestones, tasks and queues of Works, and the invoices of Billing."""

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, definer, product_table, script, tenant_table

revision = "0015"
down_revision = "0014"

KEYS = """
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
"""
BILLING_SHAPE = "billing IS NULL OR (billing ? 'amount_minor' AND billing ? 'currency')"

TEMPLATES = f"""
-- The newest version of each slug. Its row makes concurrent new versions wait for each other, so that versions have no gaps.
CREATE TABLE spine.project_template_slugs (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    slug text COLLATE "C" NOT NULL,
    newest integer NOT NULL CHECK (newest > 0),
    PRIMARY KEY (workspace_id, slug)
);

CREATE TABLE spine.project_templates (
    {KEYS}
    slug text COLLATE "C" NOT NULL,
    milestones jsonb NOT NULL,
    tasks jsonb NOT NULL,
    {RESOURCE_COLUMNS},
    CONSTRAINT project_templates_version UNIQUE (workspace_id, slug, version)
);
CREATE INDEX project_templates_of_slug ON spine.project_templates (workspace_id, slug, id);
"""

PROJECTS = f"""
CREATE TABLE spine.projects (
    {KEYS}
    name text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    deal_id text COLLATE "C",
    contact_id text COLLATE "C",
    template text COLLATE "C",
    template_version integer,
    origin text COLLATE "C" NOT NULL CHECK (origin IN ('won_deal', 'direct')),
    status text COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'on_hold', 'closed')),
    closed_at timestamptz,
    close_reason text COLLATE "C",
    {RESOURCE_COLUMNS},
    CONSTRAINT projects_owner FOREIGN KEY (workspace_id, owner_id) REFERENCES spine.users (workspace_id, id),
    CONSTRAINT projects_deal FOREIGN KEY (workspace_id, deal_id) REFERENCES spine.deals (workspace_id, id),
    CONSTRAINT projects_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    CONSTRAINT projects_template FOREIGN KEY (workspace_id, template, template_version)
        REFERENCES spine.project_templates (workspace_id, slug, version),
    CHECK ((template IS NULL) = (template_version IS NULL)),
    CHECK ((origin = 'won_deal') = (deal_id IS NOT NULL)),
    CHECK ((status = 'closed') = (closed_at IS NOT NULL))
);
CREATE INDEX projects_of_owner ON spine.projects (workspace_id, owner_id, id);
CREATE INDEX projects_of_contact ON spine.projects (workspace_id, contact_id, id) WHERE contact_id IS NOT NULL;
CREATE INDEX projects_of_deal ON spine.projects (workspace_id, deal_id, id) WHERE deal_id IS NOT NULL;
CREATE INDEX projects_in_status ON spine.projects (workspace_id, status, id);

CREATE TABLE spine.milestones (
    {KEYS}
    project_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    position integer NOT NULL CHECK (position >= 0),
    due_at timestamptz,
    billing jsonb CHECK ({BILLING_SHAPE}),
    status text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'reached', 'skipped')),
    reached_by jsonb,
    reached_at timestamptz,
    {RESOURCE_COLUMNS},
    CONSTRAINT milestones_project FOREIGN KEY (workspace_id, project_id) REFERENCES spine.projects (workspace_id, id),
    CONSTRAINT milestones_of_project UNIQUE (workspace_id, project_id, id),
    CHECK ((status = 'reached') = (reached_at IS NOT NULL)),
    CHECK ((reached_at IS NULL) = (reached_by IS NULL))
);
"""

TASKS = f"""
CREATE TABLE spine.tasks (
    {KEYS}
    project_id text COLLATE "C" NOT NULL,
    milestone_id text COLLATE "C",
    title text COLLATE "C" NOT NULL,
    assignee_id text COLLATE "C",
    due_at timestamptz,
    overdue_at timestamptz,
    status text COLLATE "C" NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'in_progress', 'done', 'cancelled')),
    completed_by jsonb,
    completed_at timestamptz,
    {RESOURCE_COLUMNS},
    CONSTRAINT tasks_project FOREIGN KEY (workspace_id, project_id) REFERENCES spine.projects (workspace_id, id),
    CONSTRAINT tasks_milestone FOREIGN KEY (workspace_id, project_id, milestone_id)
        REFERENCES spine.milestones (workspace_id, project_id, id),
    CONSTRAINT tasks_assignee FOREIGN KEY (workspace_id, assignee_id) REFERENCES spine.users (workspace_id, id),
    CHECK ((status = 'done') = (completed_at IS NOT NULL)),
    CHECK ((completed_at IS NULL) = (completed_by IS NULL)),
    CHECK (overdue_at IS NULL OR due_at IS NOT NULL)
);
CREATE INDEX tasks_of_project ON spine.tasks (workspace_id, project_id, milestone_id, status);
CREATE INDEX tasks_of_milestone ON spine.tasks (workspace_id, milestone_id, id) WHERE milestone_id IS NOT NULL;
CREATE INDEX tasks_of_assignee ON spine.tasks (workspace_id, assignee_id, id) WHERE assignee_id IS NOT NULL;
CREATE INDEX tasks_queue ON spine.tasks (workspace_id, assignee_id, due_at NULLS LAST, id)
    WHERE status IN ('open', 'in_progress');
"""

QUEUES = """
-- A number that rises with each change of a user's queue. Streams of queues compare it.
CREATE TABLE spine.task_queues (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    user_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (workspace_id, user_id)
) WITH (fillfactor = 50);

-- Rows are locked in the order of their users, so that two changes of many tasks never wait for each other.
CREATE FUNCTION spine.task_queues_follow() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO spine.task_queues AS q (workspace_id, user_id)
        SELECT DISTINCT workspace_id, assignee_id FROM new_tasks WHERE assignee_id IS NOT NULL ORDER BY 1, 2
        ON CONFLICT (workspace_id, user_id) DO UPDATE SET version = q.version + 1;
    ELSE
        INSERT INTO spine.task_queues AS q (workspace_id, user_id)
        SELECT workspace_id, assignee_id FROM old_tasks WHERE assignee_id IS NOT NULL
         UNION
        SELECT workspace_id, assignee_id FROM new_tasks WHERE assignee_id IS NOT NULL ORDER BY 1, 2
        ON CONFLICT (workspace_id, user_id) DO UPDATE SET version = q.version + 1;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER queues_follow_new AFTER INSERT ON spine.tasks REFERENCING NEW TABLE AS new_tasks
    FOR EACH STATEMENT EXECUTE FUNCTION spine.task_queues_follow();
CREATE TRIGGER queues_follow_changed AFTER UPDATE ON spine.tasks REFERENCING OLD TABLE AS old_tasks NEW TABLE AS new_tasks
    FOR EACH STATEMENT EXECUTE FUNCTION spine.task_queues_follow();

-- Returns the versions of these queues, of any workspaces. It tells nothing of what is in them.
CREATE FUNCTION spine.task_queue_versions(p_workspace_ids text[], p_user_ids text[])
RETURNS TABLE (workspace_id text, user_id text, version bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT q.workspace_id, q.user_id, q.version
      FROM unnest(p_workspace_ids, p_user_ids) AS asked (workspace_id, user_id)
      JOIN spine.task_queues q ON q.workspace_id = asked.workspace_id AND q.user_id = asked.user_id
$$;
"""

INVOICES = f"""
-- Billing knows its projects and milestones from events alone, so nothing refers to their tables.
CREATE TABLE spine.invoices (
    {KEYS}
    project_id text COLLATE "C" NOT NULL,
    milestone_id text COLLATE "C" NOT NULL,
    source_event_id text COLLATE "C" NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{{3}}$'),
    description text COLLATE "C",
    status text COLLATE "C" NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'void')),
    void_reason text COLLATE "C",
    voided_at timestamptz,
    {RESOURCE_COLUMNS},
    CONSTRAINT invoices_source_event UNIQUE (workspace_id, source_event_id),
    CONSTRAINT invoices_milestone UNIQUE (workspace_id, milestone_id),
    CHECK ((status = 'void') = (voided_at IS NOT NULL))
);
CREATE INDEX invoices_of_project ON spine.invoices (workspace_id, project_id, id);
CREATE INDEX invoices_in_status ON spine.invoices (workspace_id, status, id);
"""


def upgrade() -> None:
    script(TEMPLATES + PROJECTS + TASKS + QUEUES + INVOICES)
    written = "SELECT, INSERT, UPDATE"
    tables = ("project_template_slugs", "project_templates", "projects", "milestones", "tasks", "invoices")
    script("".join(product_table(f"spine.{table}", app=written) for table in tables))
    script(tenant_table("spine.task_queues", app=written, worker=written))
    script(definer("spine.task_queue_versions(text[], text[])"))


def downgrade() -> None:
    script("""
        DROP FUNCTION spine.task_queue_versions;
        DROP TABLE spine.invoices, spine.task_queues, spine.tasks, spine.milestones, spine.projects,
            spine.project_templates, spine.project_template_slugs;
        DROP FUNCTION spine.task_queues_follow;
    """)
