"""`make up` as a process: real servers and migrations, fakes for the API and the workers."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import psutil
import pytest
from dotenv import dotenv_values

from tests.e2e.installation import Up, free_port, try_up, until, up

BACK_S = 20
"""Promised: a killed process is back within this time."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One installation for all tests of this module."""
    with up(tmp_path_factory.mktemp("up") / "data") as running:
        yield running


def test_it_prints_its_address_and_a_curl_to_try(installation: Up) -> None:
    """When it is ready it prints the address, a test key and a complete curl. The files of the keys have mode 0600."""
    keys = json.loads((installation.directory / "keys.json").read_text())
    printed = installation.log.read_text()
    assert f"http://127.0.0.1:{installation.port}" in printed
    assert f"Authorization: Bearer {keys['test_key']}" in printed
    for name in ("keys.json", "secrets.json", "environment"):
        assert (installation.directory / name).stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"http://127.0.0.1:{installation.port}/readyz").status_code == 200


@pytest.mark.parametrize("name", ["api", "worker", "redis", "postgres"])
def test_a_killed_process_is_back(installation: Up, name: str) -> None:
    """After kill -9 of a process or server another one runs within 20 s."""
    killed = installation.children()[name]
    killed.kill()
    # Read the children once: the killed process is among them until it is reaped, and may be gone at a second read.
    until(lambda: installation.children().get(name, killed).pid != killed.pid, BACK_S)
    if name == "postgres":
        ready = re.compile("ready to accept connections")
        until(lambda: len(ready.findall(installation.log.read_text())) == 2, BACK_S)
    if name == "api":
        until(lambda: _answers(installation.port), BACK_S)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_directory_serves_one_installation_at_a_time(installation: Up) -> None:
    """A second start on the same data fails and names the process of the first one, which goes on."""
    refused = try_up(installation.directory, free_port())
    assert refused.returncode == 1
    assert f"in use by another `make up` (process {installation.process.pid})" in refused.stdout
    assert _answers(installation.port)


def test_a_taken_port_is_named_with_its_process(installation: Up, tmp_path: Path) -> None:
    """If the port is taken, the error names the port, its process, and the setting that chooses another port."""
    refused = try_up(tmp_path / "data", installation.port)
    assert refused.returncode == 1
    assert f"port {installation.port} on 127.0.0.1 is taken by python" in refused.stdout
    assert f"(process {installation.children()['api'].pid})" in refused.stdout
    assert f"SPINE_HTTP_PORT={installation.port + 1}" in refused.stdout


def test_two_installations_run_at_once_and_keep_their_data(installation: Up, tmp_path: Path) -> None:
    """Another port and directory give another installation. After Ctrl-C the next start has the same keys and data."""
    # Longer than the path of a socket may be: the sockets are below /tmp.
    directory = tmp_path / ("long-" * 20) / "data"
    with up(directory) as second:
        first_key = json.loads((directory / "keys.json").read_text())["test_key"]
        assert first_key != json.loads((installation.directory / "keys.json").read_text())["test_key"]
        assert _answers(installation.port)
        assert second.stop(signal.SIGINT) == 0
        assert second.has_printed("database system is shut down")
    directory.with_name("data.log").rename(directory.with_name("first.log"))
    with up(directory) as again:
        assert again.has_printed(first_key)
        assert not again.has_printed("automatic recovery in progress")


def test_a_killed_supervisor_does_not_block_the_next_start(tmp_path: Path) -> None:
    """After kill -9 of the supervisor its processes end too, and the next start succeeds."""
    with up(tmp_path / "data") as first:
        children = first.process.children(recursive=True)
        first.process.kill()
        first.process.wait()
        _, left = psutil.wait_procs(children, timeout=20)
        assert left == []
    with up(tmp_path / "data") as second:
        assert _answers(second.port)


def test_a_second_signal_stops_by_force(tmp_path: Path) -> None:
    """A worker that ignores SIGTERM delays the first Ctrl-C, but not the second."""
    with up(tmp_path / "data", FAKE_IGNORES_SIGTERM="1") as running:
        running.process.send_signal(signal.SIGINT)
        until(lambda: running.has_printed("stopping worker-0"))
        assert running.stop(signal.SIGINT) == 0
        assert running.has_printed("hurrying")


def test_a_process_that_cannot_start_ends_the_installation(tmp_path: Path) -> None:
    """An API that exits as soon as it starts is not restarted for ever: exit code 1, and no process remains."""
    done = try_up(tmp_path / "data", free_port(), FAKE_FAILS="1")
    assert done.returncode == 1
    assert "api ends as soon as it starts" in done.stdout
    assert "database system is shut down" in done.stdout


def test_an_invalid_setting_is_named(tmp_path: Path) -> None:
    """The error names the invalid setting, without a traceback."""
    done = try_up(tmp_path / "data", free_port(), SPINE_WORKERS="many")
    assert done.returncode == 1
    assert "workers" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_processes_log_in_as_roles_that_own_nothing(installation: Up) -> None:
    """The API's and the workers' logins own nothing and can become one role only; migrations use an owner, no superuser."""
    api_url = httpx.get(f"http://127.0.0.1:{installation.port}/readyz").json()["database"]
    owner_url = dotenv_values(installation.directory / "environment")["DATABASE_URL"]
    owner, api, worker = asyncio.run(_rights(owner_url, [None, "spine_app_login", "spine_worker_login"]))
    assert urlsplit(api_url).username == "spine_app_login"
    assert api == {"super": False, "owns": 0, "roles": ["spine_app", "spine_app_login"]}
    assert worker == {"super": False, "owns": 0, "roles": ["spine_worker", "spine_worker_login"]}
    assert owner["super"] is False
    assert owner["owns"] > 10
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(_execute(api_url, "SET ROLE spine_worker"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(_execute(api_url, "ALTER TABLE spine.events DISABLE ROW LEVEL SECURITY"))


async def _rights(url: str | None, roles: list[str | None]) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        rows = [
            await connection.fetchrow(
                """SELECT rolsuper OR rolbypassrls OR rolcreaterole AS super,
                          (SELECT count(*) FROM pg_shdepend WHERE refobjid = r.oid AND deptype = 'o') AS owns,
                          ARRAY(SELECT o.rolname::text FROM pg_roles o WHERE pg_has_role(r.oid, o.oid, 'MEMBER') ORDER BY 1) AS roles
                     FROM pg_roles r WHERE rolname = coalesce($1, current_user)""",
                role,
            )
            for role in roles
        ]
        return [dict(row) for row in rows if row is not None]
    finally:
        await connection.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_data_of_an_earlier_version_changes_its_owner(tmp_path: Path) -> None:
    """A database whose tables belong to the server's superuser is taken over by the owner at the next start."""
    with up(tmp_path / "data") as first:
        url = dotenv_values(first.directory / "environment")["DATABASE_URL"]
        superuser = url.replace("spine_owner@", "spine@") if url else ""
        asyncio.run(_execute(superuser, "REASSIGN OWNED BY spine_owner TO spine"))
        assert first.stop() == 0
    with up(tmp_path / "data") as second:
        url = dotenv_values(second.directory / "environment")["DATABASE_URL"]
        (owner,) = asyncio.run(_rights(url, [None]))
        assert owner["owns"] > 10
        assert second.has_printed("database is up to date")
