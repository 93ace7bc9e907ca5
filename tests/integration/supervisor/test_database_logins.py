"""The logins of API and workers on a server that Spine does not run."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from spine.supervisor.database_logins import DatabaseUrls, create_process_logins

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture
async def urls(database: str) -> AsyncIterator[DatabaseUrls]:
    """The logins of a migrated database. They belong to the server, so they are dropped at the end."""
    yield await create_process_logins(database, database, KEY)
    owner = await asyncpg.connect(database)
    name = await owner.fetchval("SELECT current_database()")
    await owner.execute(f"DROP ROLE {name}_app_login; DROP ROLE {name}_worker_login")
    await owner.close()


async def test_each_login_becomes_its_own_role_alone(urls: DatabaseUrls) -> None:
    """The API's login cannot become the workers' role nor the owner, and the workers' login not the API's."""
    for url, own, other in ((urls.api, "spine_app", "spine_worker"), (urls.worker, "spine_worker", "spine_app")):
        connection = await asyncpg.connect(url, server_settings={"role": own})
        try:
            assert await connection.fetchval("SELECT current_user") == own
            for statement in (f"SET ROLE {other}", "SET SESSION AUTHORIZATION DEFAULT; CREATE TABLE spine.x ()"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close()


async def test_the_logins_of_an_installation_are_the_same_at_each_start(urls: DatabaseUrls, database: str) -> None:
    """Another supervisor with the same encryption key gets the same URLs; the passwords are not the key."""
    assert await create_process_logins(database, database, KEY) == urls
    assert KEY not in urls.api
    assert urls.api != urls.worker


async def test_a_role_that_may_create_none_is_an_error(urls: DatabaseUrls) -> None:
    """Without the right to create roles nothing is changed and an error is raised, on which the caller falls back."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await create_process_logins(urls.api, urls.owner, KEY)
