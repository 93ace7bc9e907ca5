"""The database logins of an installation: an owner that is no superuser, and one login each for the API and the workers.

The API's login is a member of spine_app alone, the workers' of spine_worker alone, and both own nothing. So a statement
that an attacker injects cannot become another role. Only migrations and the operator's command use the owner.
"""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from spine.kernel.vault import Vault

_GROUPS: Final = ("spine_app", "spine_worker")
_TAKE_OVER: Final = """
DO $$
DECLARE statement text;
BEGIN
    EXECUTE format('ALTER DATABASE %I OWNER TO spine_owner', current_database());
    FOR statement IN
        SELECT format('ALTER SCHEMA %I OWNER TO spine_owner', nspname) FROM pg_namespace
         WHERE nspname = 'spine' AND nspowner = current_user::regrole
        UNION ALL
        SELECT format('ALTER TABLE %s OWNER TO spine_owner', c.oid::regclass) FROM pg_class c
         WHERE c.relkind IN ('r', 'p') AND c.relowner = current_user::regrole
           AND (c.relnamespace = to_regnamespace('spine') OR c.oid = to_regclass('public.alembic_version'))
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO spine_owner', p.oid::regprocedure) FROM pg_proc p
         WHERE p.pronamespace = to_regnamespace('spine') AND p.proowner = current_user::regrole
    LOOP
        EXECUTE statement;
    END LOOP;
END $$
"""


@dataclass(frozen=True)
class DatabaseUrls:
    """The URLs of one database: as its owner, and as the logins of the API and of the workers."""

    owner: str
    api: str
    worker: str


async def create_owner(superuser_url: str) -> str:
    """Make `spine_owner` the owner of the database and of all that is in it. Returns the database's URL as this owner.

    The role can create tables and functions, and nothing outside of the database.
    """
    connection = await asyncpg.connect(superuser_url, timeout=10)
    try:
        async with connection.transaction():
            for role in _GROUPS:
                await _create_role(connection, role, "NOLOGIN")
            await _create_role(connection, "spine_owner", "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
            await connection.execute("GRANT spine_app, spine_worker TO spine_owner")
            await connection.execute(_TAKE_OVER)
    finally:
        await connection.close()
    return _with_user(superuser_url, "spine_owner", None)


async def create_process_logins(administrator_url: str, owner_url: str, encryption_key: str) -> DatabaseUrls:
    """Create the two logins of this database, after its migrations.

    Their passwords are derived from the encryption key, so every supervisor of the installation computes the same. Raises
    OSError or asyncpg.PostgresError if this role may not create roles, or if the server does not admit the logins.
    """
    vault = Vault.from_text(encryption_key)
    connection = await asyncpg.connect(administrator_url, timeout=10)
    urls = []
    try:
        database: str = await connection.fetchval("SELECT current_database()")
        owner = await connection.fetchval(
            "SELECT quote_ident(coalesce($1, current_user))", urlsplit(owner_url).username
        )
        for group in _GROUPS:
            login = f"{database}_{group.removeprefix('spine_')}_login"
            password = vault.derive(b"login." + login.encode()).hex()
            # One server may hold several installations: the advisory lock lets one of them at a time change roles.
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('spine.logins'))")
                await _create_role(connection, login, "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
                name = await connection.fetchval("SELECT quote_ident($1)", login)
                await connection.execute(f"ALTER ROLE {name} PASSWORD '{password}'")
                await connection.execute(f"GRANT {group} TO {name}")
                # Maintenance ends sessions that are frozen, in a function that runs as the owner.
                await connection.execute(f"GRANT {name} TO {owner}")
            urls.append(_with_user(owner_url, login, password))
    finally:
        await connection.close()
    for url, group in zip(urls, _GROUPS, strict=True):
        admitted = await asyncpg.connect(url, timeout=10, server_settings={"role": group})
        await admitted.close()
    return DatabaseUrls(owner_url, *urls)


async def _create_role(connection: Any, name: str, attributes: str) -> None:
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name):
        quoted = await connection.fetchval("SELECT quote_ident($1)", name)
        await connection.execute(f"CREATE ROLE {quoted} {attributes}")


def _with_user(url: str, user: str, password: str | None) -> str:
    """Return the URL with another user. Removes a user and a password that are parameters of the URL."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("user", "password")]
    return urlunsplit(parts._replace(netloc=f"{login}@{host}", query=urlencode(query)))
