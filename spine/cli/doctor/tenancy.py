"""Check the isolation of workspaces in the database: roles without privileges, row-level security on every table."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from spine.cli.doctor.finding import Finding, fail, ok, warn

_ROLES: Final = ("spine_app", "spine_worker")
_ROLE_PRIVILEGES: Final = """
    SELECT rolname, rolsuper OR rolbypassrls AS is_privileged, pg_has_role(current_user, oid, 'MEMBER') AS is_member
      FROM pg_roles WHERE rolname = ANY ($1)
"""
_UNPROTECTED_TABLES: Final = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'spine' AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
       AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id' AND NOT a.attisdropped)
     ORDER BY 1
"""
_STRONG_LOGINS: Final = """
    SELECT DISTINCT a.application_name || ' as ' || a.usename FROM pg_stat_activity a
      JOIN pg_roles r ON r.oid = a.usesysid JOIN pg_namespace n ON n.nspname = 'spine'
     WHERE a.datname = current_database() AND a.application_name IN ('spine api', 'spine worker')
       AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR pg_has_role(r.oid, n.nspowner, 'MEMBER')
            OR (pg_has_role(r.oid, 'spine_app', 'MEMBER') AND pg_has_role(r.oid, 'spine_worker', 'MEMBER')))
     ORDER BY 1
"""
_OWNED_OBJECTS: Final = """
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_shdepend d
     WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = 'spine_app'::regrole AND d.deptype = 'o'
       AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


async def check_tenancy(connection: Any) -> AsyncIterator[Finding]:
    """Yield the findings about roles, owned objects and row-level security."""
    rows = await connection.fetch(_ROLE_PRIVILEGES, list(_ROLES))
    finding = roles({row["rolname"]: (row["is_privileged"], row["is_member"]) for row in rows})
    yield finding
    if finding.level != "ok":
        return
    yield owned([row[0] for row in await connection.fetch(_OWNED_OBJECTS)])
    yield logins([row[0] for row in await connection.fetch(_STRONG_LOGINS)])
    yield row_security([row[0] for row in await connection.fetch(_UNPROTECTED_TABLES)])


def roles(found: dict[str, tuple[bool, bool]]) -> Finding:
    """Judge the two roles of the processes: both exist, may be set, and have no privileges over policies."""
    missing = [name for name in _ROLES if name not in found]
    if missing:
        return fail("roles", f"{', '.join(missing)} missing", "run: spine migrate (as the owner, who may create roles)")
    privileged = [name for name in _ROLES if found[name][0]]
    if privileged:
        remedy = "; ".join(f"ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS" for name in privileged)
        return fail("roles", f"{', '.join(privileged)} may pass row-level security by", remedy)
    not_member = [name for name in _ROLES if not found[name][1]]
    if not_member:
        remedy = f"GRANT {', '.join(not_member)} TO the user of DATABASE_URL"
        return fail("roles", f"the user of DATABASE_URL may not become {', '.join(not_member)}", remedy)
    return ok("roles", "spine_app and spine_worker, above nothing")


def owned(objects: Sequence[str]) -> Finding:
    """Judge the objects that the API's role owns. It must own none, because an owner can remove the policies."""
    if objects:
        return fail("ownership", f"spine_app owns {', '.join(objects[:5])}", "REASSIGN OWNED BY spine_app TO the owner")
    return ok("ownership", "spine_app owns nothing")


def logins(strong: Sequence[str]) -> Finding:
    """Judge the logins of the running processes. A login that can become the owner gives that right to injected statements."""
    if strong:
        return warn(
            "logins",
            f"{', '.join(strong)}: may become a role above spine_app and spine_worker",
            "give API and workers logins of their own: docs/operating.md, Logins of the database",
        )
    return ok("logins", "of API and workers own nothing")


def row_security(open_tables: Sequence[str]) -> Finding:
    """Judge the tables that have a workspace but no forced row-level security."""
    if open_tables:
        remedy = "; ".join(
            f"ALTER TABLE spine.{name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY" for name in open_tables[:3]
        )
        return fail("row security", f"not forced on {', '.join(open_tables)}", remedy)
    return ok("row security", "forced on every table of a workspace")
