"""The parts of `make up` without processes: paths, addresses, delays, commands, secrets and output."""

import io
import os
import signal
import stat
from pathlib import Path

import pytest

from spine.kernel.settings import HttpSettings, WorkSettings
from spine.supervisor.command import StartError
from spine.supervisor.data_directory import lock_directory, open_directory, remove_sockets, socket_directory
from spine.supervisor.output import Output
from spine.supervisor.plan import Plan, UpSettings, api_commands, make_plan, process_environment, worker_commands
from spine.supervisor.ports import PortRange
from spine.supervisor.postgres import PostgresServer, find_programs, postgres_command
from spine.supervisor.redis import RedisServer, redis_command
from spine.supervisor.secret_store import load_or_create_secrets, read, write
from spine.supervisor.supervised_process import restart_delay_s
from spine.supervisor.unix_user import CURRENT_USER, UnixUser
from spine.supervisor.welcome import format_welcome


def plan(**http: object) -> Plan:
    """An installation with two workers."""
    return Plan(
        directory=Path("/srv/spine"),
        database_url=None,
        redis_url=None,
        http=HttpSettings.model_validate(http),
        work=WorkSettings(workers=2, drain_s=25),
        metrics=PortRange(9464),
        environment={"SPINE_SIGNUP": "open"},
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"SPINE_SIGNUP_CONFIRMATION": "none", "SPINE_METRICS_ACCESS": "local"}),
        ({"SPINE_OPERATOR_TOKEN": "a"}, {"SPINE_SIGNUP_CONFIRMATION": "none"}),
        (
            {"SPINE_SIGNUP_CONFIRMATION": "required"},
            {"SPINE_SIGNUP_CONFIRMATION": "required", "SPINE_METRICS_ACCESS": "local"},
        ),
        ({"SPINE_HTTP_HOST": "0.0.0.0"}, {}),
        ({"SPINE_TRUSTED_PROXIES": "127.0.0.1"}, {}),
        ({"SPINE_PUBLIC_URL": "https://api.example.com"}, {}),
    ],
)
def test_an_api_for_this_machine_alone_asks_for_less(
    given: dict[str, str], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signups without confirmation and metrics without a token are for an API that only this machine reaches."""
    monkeypatch.setattr("spine.supervisor.plan.require_port", lambda *_: None)
    for name, value in {"SPINE_METRICS_PORT": "0", **given}.items():
        monkeypatch.setenv(name, value)
    environment = make_plan(UpSettings(), tmp_path).environment
    for name in ("SPINE_SIGNUP_CONFIRMATION", "SPINE_METRICS_ACCESS"):
        assert environment.get(name) == expected.get(name)


def test_restart_delays_grow_up_to_a_limit() -> None:
    """The first restart comes at once. Later delays are longer, but a process is always back within 20 s."""
    delays = [restart_delay_s(exits) for exits in range(50)]
    assert delays[0] < 1
    assert delays == sorted(delays)
    assert max(delays) <= 10


def test_sockets_are_in_the_data_directory_if_their_path_is_short(tmp_path: Path) -> None:
    """The sockets are in the directory `run` of the data directory."""
    assert socket_directory(tmp_path) == tmp_path / "run"


def test_sockets_are_below_tmp_if_their_path_is_too_long(tmp_path: Path) -> None:
    """A path longer than sun_path is replaced by a short directory: the same one each time, closed to other users."""
    directory = tmp_path / ("d" * 90)
    directory.mkdir()
    found = socket_directory(directory)
    try:
        assert found == socket_directory(directory)
        assert len(str(found / "postgres/.s.PGSQL.5432")) <= 103
        assert stat.S_IMODE(found.stat().st_mode) & 0o066 == 0
        found.chmod(0o777)
        with pytest.raises(StartError, match="not a directory of ours alone"):
            socket_directory(directory)
    finally:
        remove_sockets(directory)
    assert not found.exists()


def test_one_process_locks_a_directory(tmp_path: Path) -> None:
    """A second lock fails and names the process of the first one. The lock is free after its release."""
    with lock_directory(open_directory(tmp_path)), pytest.raises(StartError, match=f"process {os.getpid()}"):
        lock_directory(tmp_path)
    lock_directory(tmp_path).close()


def test_a_directory_that_cannot_be_created_is_named() -> None:
    """The error names the directory and the setting that chooses another one."""
    with pytest.raises(StartError, match=r"/proc/spine.*SPINE_DATA_DIR"):
        open_directory(Path("/proc/spine"))


def test_secrets_are_created_once_and_closed_to_others(tmp_path: Path) -> None:
    """The encryption key and the token are the same at each start, in a file of mode 0600."""
    first = load_or_create_secrets(tmp_path / "secrets.json")
    assert load_or_create_secrets(tmp_path / "secrets.json") == first
    assert set(first) == {"SPINE_ENCRYPTION_KEY", "SPINE_OPERATOR_TOKEN"}
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_broken_secrets_file_is_not_overwritten(tmp_path: Path) -> None:
    """An unreadable key stops the start: with a new key, stored secrets could never be decrypted."""
    write(tmp_path / "secrets.json", "{")
    with pytest.raises(StartError, match="cannot read"):
        load_or_create_secrets(tmp_path / "secrets.json")
    with pytest.raises(StartError, match="cannot read"):
        read(tmp_path / "secrets.json")


def test_the_address_is_reachable_from_this_machine() -> None:
    """A listener on every address is reached by loopback. An IPv6 address is in brackets."""
    assert plan(http_host="0.0.0.0").address == "http://127.0.0.1:8080"
    assert plan(http_host="::").address == "http://[::1]:8080"
    assert plan(http_host="10.0.0.7", http_port=81).address == "http://10.0.0.7:81"


def test_processes_have_recognizable_command_lines() -> None:
    """Operators find the API and the workers by `products.app` and `workers.main`."""
    environment = process_environment(plan(), "postgresql://d", "redis://r")
    assert all("products.app" in " ".join(command.argv) for command in api_commands(plan(), environment))
    assert all("workers.main" in " ".join(command.argv) for command in worker_commands(plan(), environment))
    assert (environment["DATABASE_URL"], environment["REDIS_URL"]) == ("postgresql://d", "redis://r")


def test_api_processes_have_different_names() -> None:
    """One API process is called `api`; several are numbered, so that their output lines differ."""
    assert [command.name for command in api_commands(plan(), {})] == ["api"]
    assert [command.name for command in api_commands(plan(http_processes=2), {})] == ["api-0", "api-1"]


def test_workers_have_an_index_and_time_to_drain() -> None:
    """Each worker has an index for its metrics port, and a grace period longer than its drain time."""
    commands = worker_commands(plan(), {})
    assert [command.env["SPINE_WORKER_INDEX"] for command in commands] == ["0", "1"]
    for command in commands:
        ((number, grace_s),) = command.stop_signals
        assert number is signal.SIGTERM
        assert grace_s > 25


def test_postgres_has_no_tcp_port_and_is_durable() -> None:
    """Spine's Postgres has no TCP port and syncs every commit; a throwaway server does not."""
    server = PostgresServer(Path("/bin"), Path("/srv/data"), Path('/srv/a "b", c'), CURRENT_USER)
    argv = postgres_command(server).argv
    assert "--listen_addresses=" in argv
    assert '--unix_socket_directories="/srv/a ""b"", c"' in argv
    assert not any(word.startswith("--fsync") for word in argv)
    throwaway = PostgresServer(Path("/bin"), Path("/srv/data"), Path("/run"), CURRENT_USER, durable=False)
    assert "--fsync=off" in postgres_command(throwaway).argv


def test_a_unix_user_is_a_command_prefix_or_a_uid() -> None:
    """A command runs as another user by a prefix, or by the uid of its process."""
    mapped = PostgresServer(Path("/b"), Path("/d"), Path("/s"), UnixUser(prefix=("unshare", "-U")))
    assert postgres_command(mapped).argv[:3] == ("unshare", "-U", "/b/postgres")
    nobody = postgres_command(PostgresServer(Path("/b"), Path("/d"), Path("/s"), UnixUser(uid=65534))).popen()
    assert (nobody["user"], nobody["group"], nobody["extra_groups"]) == (65534, 65534, [])


def test_data_of_a_missing_postgres_version_is_refused(tmp_path: Path) -> None:
    """If the major version of the data is not on this machine, the error names it; no other version opens the data."""
    (tmp_path / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartError, match="written by Postgres 9"):
        find_programs(tmp_path)


def test_redis_has_no_tcp_port_and_is_durable() -> None:
    """Spine's Redis has no TCP port and has an append-only file; a throwaway server has none."""
    server = RedisServer(Path("/bin/redis-server"), Path("/srv/redis"), Path("/srv/run/redis.sock"))
    argv = " ".join(redis_command(server).argv)
    assert "--port 0" in argv
    assert "--appendonly yes" in argv
    throwaway = RedisServer(Path("/bin/redis-server"), Path("/srv/redis"), Path("/srv/run/redis.sock"), durable=False)
    assert "--appendonly no" in " ".join(redis_command(throwaway).argv)


def test_every_line_has_the_name_of_its_process() -> None:
    """Each line has the name of its process, also the last one without a line end."""
    target = io.BytesIO()
    output = Output(target)
    output.log("starting")
    with os.fdopen(output.pipe("api"), "wb") as pipe:
        pipe.write(b"one\ntwo")
    output.join(timeout_s=5)
    assert target.getvalue().decode().splitlines() == ["spine    | starting", "api      | one", "api      | two"]


def test_a_closed_terminal_does_not_block_the_processes() -> None:
    """If the terminal is closed, lines are dropped and the processes are not blocked."""
    target = io.BytesIO()
    target.close()
    output = Output(target)
    with os.fdopen(output.pipe("api"), "wb") as pipe:
        pipe.write(b"line\n" * 20_000)  # more than the buffer of a pipe
    output.join(timeout_s=5)


def test_the_printed_curl_is_complete() -> None:
    """The printed curl has the real address and key."""
    text = format_welcome("http://127.0.0.1:8080", "sk_test_1", Path("/srv/spine/keys.json"))
    assert "curl -X POST http://127.0.0.1:8080/v1/events" in text
    assert "Bearer sk_test_1'" in text
    assert "spine keys create" in format_welcome("http://127.0.0.1:8080", None, Path("/srv/spine/keys.json"))
