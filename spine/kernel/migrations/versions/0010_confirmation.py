"""Revision 0010: look-ups of many keys at once, and organisations that confirm their e-mail address."""

from spine.kernel.migrations.tenancy import definer, script

revision = "0010"
down_revision = "0009"

TABLES = """
-- The default confirms the organisations that are there, and those that a process of the version before still creates.
ALTER TABLE spine.organisations
    ADD COLUMN email_confirmed_at timestamptz DEFAULT now(),
    ADD COLUMN confirmation_hash bytea;
CREATE UNIQUE INDEX organisations_confirmation ON spine.organisations (confirmation_hash) WHERE confirmation_hash IS NOT NULL;
GRANT UPDATE (email_confirmed_at) ON spine.organisations TO spine_worker;
"""

FUNCTIONS = """
-- Returns the owners of API keys before a workspace is known. Revoked and unknown keys return no row.
CREATE FUNCTION spine.keys_find(p_hashes bytea[])
RETURNS TABLE (hash bytea, key_id text, workspace_id text, organisation_id text, env text, scopes text[],
    expires_at timestamptz, confirmed boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN QUERY
    SELECT h.hash, k.id, k.workspace_id, w.organisation_id, w.env, k.scopes, k.expires_at,
           w.env = 'test' OR o.email_confirmed_at IS NOT NULL
      FROM spine.api_key_hashes h
      JOIN spine.api_keys k ON k.workspace_id = h.workspace_id AND k.id = h.key_id
      JOIN spine.workspaces w ON w.workspace_id = k.workspace_id
      JOIN spine.organisations o ON o.id = w.organisation_id
     WHERE h.hash = ANY (p_hashes) AND k.status <> 'revoked' AND (k.expires_at IS NULL OR k.expires_at > now());
END $$;

-- Confirms an organisation's e-mail address, by the hash of the token that was mailed to it. A token is good for 7 days,
-- as often as it is sent.
CREATE FUNCTION spine.organisation_confirm(p_hash bytea) RETURNS TABLE (id text, name text, email text)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    UPDATE spine.organisations o SET email_confirmed_at = coalesce(o.email_confirmed_at, now())
     WHERE o.confirmation_hash = p_hash AND o.created_at > now() - interval '7 days'
    RETURNING o.id, o.name, o.email
$$;
"""


def upgrade() -> None:
    script(TABLES + FUNCTIONS + definer("spine.keys_find(bytea[])") + definer("spine.organisation_confirm(bytea)"))


def downgrade() -> None:
    script("""
        DROP FUNCTION spine.organisation_confirm, spine.keys_find;
        REVOKE UPDATE (email_confirmed_at) ON spine.organisations FROM spine_worker;
        DROP INDEX spine.organisations_confirmation;
        ALTER TABLE spine.organisations DROP COLUMN confirmation_hash, DROP COLUMN email_confirmed_at;
    """)
