"""Saved replies of tickets. NEWEST and NEXT stand for the numbers of the newest revision and of this one."""

from alembic import op

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, product_table, script

revision = "NEXT"
down_revision = "NEWEST"

TABLE = f"""
CREATE TABLE spine.saved_replies (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    title text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    author_id text COLLATE "C" NOT NULL,
    {RESOURCE_COLUMNS},
    CONSTRAINT saved_replies_author FOREIGN KEY (workspace_id, author_id) REFERENCES spine.users (workspace_id, id),
    CONSTRAINT saved_replies_title UNIQUE (workspace_id, title)
);
"""


def upgrade() -> None:
    script(TABLE + product_table("spine.saved_replies", app="SELECT, INSERT, UPDATE"))


def downgrade() -> None:
    op.execute("DROP TABLE spine.saved_replies")
