"""Whether the database itself keeps workspaces apart: roles without power, row-level security forced everywhere."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from spine.cli.doctor.finding import Finding, fail, ok

_ROLES: Final = ("spine_app", "spine_worker")
_POWERS: Final = """
    SELECT rolname, rolsuper OR rolbypassrls AS powerful, pg_has_role(current_user, oid, 'MEMBER') AS ours
      FROM pg_roles WHERE rolname = ANY ($1)
"""
_OPEN: Final = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'spine' AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
       AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id' AND NOT a.attisdropped)
     ORDER BY 1
"""
_OWNED: Final = """
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_shdepend d
     WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = 'spine_app'::regrole AND d.deptype = 'o'
       AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


async def tenancy(connection: Any) -> AsyncIterator[Finding]:
    """Roles, what they own, and the tables' policies."""
    rows = await connection.fetch(_POWERS, list(_ROLES))
    found = roles({row["rolname"]: (row["powerful"], row["ours"]) for row in rows})
    yield found
    if found.level != "ok":
        return
    yield owned([row[0] for row in await connection.fetch(_OWNED)])
    yield row_security([row[0] for row in await connection.fetch(_OPEN)])


def roles(found: dict[str, tuple[bool, bool]]) -> Finding:
    """The two roles that processes take: present, ours to take, above nothing."""
    missing = [name for name in _ROLES if name not in found]
    if missing:
        return fail("roles", f"{', '.join(missing)} missing", "run: spine migrate (as the owner, who may create roles)")
    powerful = [name for name in _ROLES if found[name][0]]
    if powerful:
        mend = "; ".join(f"ALTER ROLE {name} NOSUPERUSER NOBYPASSRLS" for name in powerful)
        return fail("roles", f"{', '.join(powerful)} may pass row-level security by", mend)
    foreign = [name for name in _ROLES if not found[name][1]]
    if foreign:
        mend = f"GRANT {', '.join(foreign)} TO the user of DATABASE_URL"
        return fail("roles", f"the user of DATABASE_URL may not become {', '.join(foreign)}", mend)
    return ok("roles", "spine_app and spine_worker, above nothing")


def owned(objects: Sequence[str]) -> Finding:
    """What the API's role owns, which must be nothing: an owner can lift the policies."""
    if objects:
        return fail("ownership", f"spine_app owns {', '.join(objects[:5])}", "REASSIGN OWNED BY spine_app TO the owner")
    return ok("ownership", "spine_app owns nothing")


def row_security(open_tables: Sequence[str]) -> Finding:
    """Tables with a workspace that are not closed to other workspaces."""
    if open_tables:
        mend = "; ".join(
            f"ALTER TABLE spine.{name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY" for name in open_tables[:3]
        )
        return fail("row security", f"not forced on {', '.join(open_tables)}", mend)
    return ok("row security", "forced on every table of a workspace")
