"""Revision 0004: the hashes of API keys in a directory of their own.

A key is looked up before its workspace is known. Its hash is the only column of a tenant that had to be unique over all
workspaces; in a table of its own it does not hinder that the others are divided by workspace.
"""

from spine.kernel.migrations.tenancy import definer, script, tenant_table

revision = "0004"
down_revision = "0003"

DIRECTORY = """
CREATE TABLE spine.api_key_hashes (
    hash bytea PRIMARY KEY,
    workspace_id text COLLATE "C" NOT NULL,
    key_id text COLLATE "C" NOT NULL
);
COMMENT ON TABLE spine.api_key_hashes IS 'Directory: the SHA-256 of each API key, and the key that it belongs to.';
-- The owner is subject to row-level security too: it would read no rows.
ALTER TABLE spine.api_keys NO FORCE ROW LEVEL SECURITY;
INSERT INTO spine.api_key_hashes (hash, workspace_id, key_id) SELECT hash, workspace_id, id FROM spine.api_keys;
ALTER TABLE spine.api_keys FORCE ROW LEVEL SECURITY;
ALTER TABLE spine.api_keys DROP COLUMN hash;
"""

KEY_FIND = """
CREATE OR REPLACE FUNCTION spine.key_find(p_hash bytea)
RETURNS TABLE (key_id text, workspace_id text, organisation_id text, env text, scopes text[], expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN QUERY
    SELECT k.id, k.workspace_id, w.organisation_id, w.env, k.scopes, k.expires_at
      FROM {tables} JOIN spine.workspaces w ON w.workspace_id = k.workspace_id
     WHERE {hash} = p_hash AND k.status <> 'revoked' AND (k.expires_at IS NULL OR k.expires_at > now());
END $$;
"""


def upgrade() -> None:
    joined = "spine.api_key_hashes h JOIN spine.api_keys k ON k.workspace_id = h.workspace_id AND k.id = h.key_id"
    script(
        DIRECTORY
        + tenant_table("spine.api_key_hashes", app="SELECT, INSERT", worker="SELECT")
        + KEY_FIND.format(tables=joined, hash="h.hash")
        + definer("spine.key_find(bytea)")
    )


def downgrade() -> None:
    script(
        """
        ALTER TABLE spine.api_keys ADD COLUMN hash bytea UNIQUE;
        ALTER TABLE spine.api_keys NO FORCE ROW LEVEL SECURITY;
        ALTER TABLE spine.api_key_hashes NO FORCE ROW LEVEL SECURITY;
        UPDATE spine.api_keys k SET hash = h.hash FROM spine.api_key_hashes h WHERE h.workspace_id = k.workspace_id AND h.key_id = k.id;
        ALTER TABLE spine.api_keys FORCE ROW LEVEL SECURITY;
        ALTER TABLE spine.api_keys ALTER COLUMN hash SET NOT NULL;
        DROP TABLE spine.api_key_hashes;
        """
        + KEY_FIND.format(tables="spine.api_keys k", hash="k.hash")
        + definer("spine.key_find(bytea)")
    )
