"""`make up` as a process: real servers and migrations, stand-ins for the API and the workers."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.installation import Up, free_port, try_up, until, up

BACK_S = 20
"""The promise: what dies is back within this time."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One installation that the tests of this file share."""
    with up(tmp_path_factory.mktemp("house") / "data") as running:
        yield running


def test_it_says_where_it_is_and_what_to_try(installation: Up) -> None:
    """Once ready, the address, a test key and a complete curl stand on the terminal; the keys are kept closed."""
    keys = json.loads((installation.directory / "keys.json").read_text())
    printed = installation.log.read_text()
    assert f"http://127.0.0.1:{installation.port}" in printed
    assert f"Authorization: Bearer {keys['test_key']}" in printed
    for name in ("keys.json", "secrets.json", "environment"):
        assert (installation.directory / name).stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"http://127.0.0.1:{installation.port}/readyz").status_code == 200


@pytest.mark.parametrize("name", ["api", "worker", "redis", "postgres"])
def test_what_is_killed_is_back(installation: Up, name: str) -> None:
    """A process or server that is killed with -9 is there again, as another process, within 20 s."""
    killed = installation.children()[name]
    killed.kill()
    # One look decides: the killed one is among the children until it is reaped, and may be gone at a second look.
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


def test_one_directory_serves_one_at_a_time(installation: Up) -> None:
    """A second start on the same data is refused with a sentence that says whose it is; the first runs on."""
    refused = try_up(installation.directory, free_port())
    assert refused.returncode == 1
    assert f"in use by another `make up` (process {installation.process.pid})" in refused.stdout
    assert _answers(installation.port)


def test_a_taken_port_is_named_with_its_holder(installation: Up, tmp_path: Path) -> None:
    """When the port is taken, the sentence names it, who holds it, and the setting that chooses another."""
    refused = try_up(tmp_path / "data", installation.port)
    assert refused.returncode == 1
    assert f"port {installation.port} on 127.0.0.1 is taken by python" in refused.stdout
    assert f"(process {installation.children()['api'].pid})" in refused.stdout
    assert f"SPINE_HTTP_PORT={installation.port + 1}" in refused.stdout


def test_two_run_side_by_side_and_each_keeps_its_data(installation: Up, tmp_path: Path) -> None:
    """Another port and directory give another Spine; Ctrl-C ends it; started again it has the same keys and data."""
    # Longer than a socket's path may be: the sockets then lie elsewhere.
    directory = tmp_path / ("long-" * 20) / "data"
    with up(directory) as second:
        first_key = json.loads((directory / "keys.json").read_text())["test_key"]
        assert first_key != json.loads((installation.directory / "keys.json").read_text())["test_key"]
        assert _answers(installation.port)
        assert second.stop(signal.SIGINT) == 0
        assert second.says("database system is shut down")
    directory.with_name("data.log").rename(directory.with_name("first.log"))
    with up(directory) as again:
        assert again.says(first_key)
        assert not again.says("automatic recovery in progress")


def test_a_killed_supervisor_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """After kill -9 of the supervisor its processes end too, and the next start finds the way clear."""
    with up(tmp_path / "data") as first:
        children = first.process.children(recursive=True)
        first.process.kill()
        first.process.wait()
        _, left = psutil.wait_procs(children, timeout=20)
        assert left == []
    with up(tmp_path / "data") as second:
        assert _answers(second.port)


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    """A worker that does not heed SIGTERM holds the first Ctrl-C up, and not the second."""
    with up(tmp_path / "data", STANDIN_IS_DEAF="1") as running:
        running.process.send_signal(signal.SIGINT)
        until(lambda: running.says("stopping worker-0"))
        assert running.stop(signal.SIGINT) == 0
        assert running.says("hurrying")


def test_what_cannot_start_is_said_and_ends_it(tmp_path: Path) -> None:
    """An API that ends as soon as it starts is not restarted for ever at the first start: exit code 1, nothing left."""
    done = try_up(tmp_path / "data", free_port(), STANDIN_FAILS="1")
    assert done.returncode == 1
    assert "api ends as soon as it starts" in done.stdout
    assert "database system is shut down" in done.stdout


def test_a_setting_that_is_not_one_is_named(tmp_path: Path) -> None:
    """A wrong setting is told by its name, without a traceback."""
    done = try_up(tmp_path / "data", free_port(), SPINE_WORKERS="many")
    assert done.returncode == 1
    assert "workers" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
