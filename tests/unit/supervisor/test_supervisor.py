"""The parts of `make up` that decide: paths, addresses, delays, commands, secrets, words."""

import io
import os
import signal
import stat
from pathlib import Path

import pytest

from spine.kernel.settings import HttpSettings, WorkSettings
from spine.supervisor.command import StartError
from spine.supervisor.data_directory import hold, open_directory, remove_sockets, socket_directory
from spine.supervisor.output import Output
from spine.supervisor.plan import Plan, api_commands, connected, worker_commands
from spine.supervisor.ports import PortRange
from spine.supervisor.postgres import PostgresServer, find_programs, postgres_command
from spine.supervisor.redis import RedisServer, redis_command
from spine.supervisor.secret_store import load_or_create_secrets, read, write
from spine.supervisor.supervised_process import restart_delay_s
from spine.supervisor.unix_user import OURSELVES, UnixUser
from spine.supervisor.welcome import welcome


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


def test_restarts_slow_down_and_keep_the_promise() -> None:
    """The first restart comes at once; later ones wait longer, and never so long that 20 s cannot be kept."""
    delays = [restart_delay_s(deaths) for deaths in range(50)]
    assert delays[0] < 1
    assert delays == sorted(delays)
    assert max(delays) <= 10


def test_sockets_lie_in_the_data_directory_when_their_path_is_short(tmp_path: Path) -> None:
    """The sockets stand beside the data that they serve."""
    assert socket_directory(tmp_path) == tmp_path / "run"


def test_sockets_move_when_their_path_would_be_too_long(tmp_path: Path) -> None:
    """Beyond what sun_path holds, a short directory of our own is used: the same one each time, closed to others."""
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


def test_a_directory_is_held_by_one(tmp_path: Path) -> None:
    """A held directory is refused to the next one, naming the holder, and free again after it."""
    with hold(open_directory(tmp_path)), pytest.raises(StartError, match=f"process {os.getpid()}"):
        hold(tmp_path)
    hold(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_told() -> None:
    """The sentence names the directory and the setting that chooses another."""
    with pytest.raises(StartError, match=r"/proc/spine.*SPINE_DATA_DIR"):
        open_directory(Path("/proc/spine"))


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    """The encryption key and the token stay the same from start to start, in a file of mode 0600."""
    first = load_or_create_secrets(tmp_path / "secrets.json")
    assert load_or_create_secrets(tmp_path / "secrets.json") == first
    assert set(first) == {"SPINE_ENCRYPTION_KEY", "SPINE_OPERATOR_TOKEN"}
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_broken_secrets_file_is_not_written_over(tmp_path: Path) -> None:
    """A key that cannot be read is a reason to stop: a new one would leave what is sealed sealed for ever."""
    write(tmp_path / "secrets.json", "{")
    with pytest.raises(StartError, match="cannot read"):
        load_or_create_secrets(tmp_path / "secrets.json")
    with pytest.raises(StartError, match="cannot read"):
        read(tmp_path / "secrets.json")


def test_the_address_can_be_reached_from_here() -> None:
    """A listener on every address is reached by loopback; an IPv6 address stands in brackets."""
    assert plan(http_host="0.0.0.0").address == "http://127.0.0.1:8080"
    assert plan(http_host="::").address == "http://[::1]:8080"
    assert plan(http_host="10.0.0.7", http_port=81).address == "http://10.0.0.7:81"


def test_processes_are_known_by_their_command_lines() -> None:
    """Operators find the API and the workers by `products.app` and `workers.main`."""
    environment = connected(plan(), "postgresql://d", "redis://r")
    assert all("products.app" in " ".join(command.argv) for command in api_commands(plan(), environment))
    assert all("workers.main" in " ".join(command.argv) for command in worker_commands(plan(), environment))
    assert (environment["DATABASE_URL"], environment["REDIS_URL"]) == ("postgresql://d", "redis://r")


def test_several_api_processes_have_names_of_their_own() -> None:
    """One API process is called api; several are counted, so that their lines can be told apart."""
    assert [command.name for command in api_commands(plan(), {})] == ["api"]
    assert [command.name for command in api_commands(plan(http_processes=2), {})] == ["api-0", "api-1"]


def test_workers_are_numbered_and_given_time_to_drain() -> None:
    """Each worker knows its number, for its metrics port, and gets its drain time before it is ended by force."""
    commands = worker_commands(plan(), {})
    assert [command.env["SPINE_WORKER_INDEX"] for command in commands] == ["0", "1"]
    for command in commands:
        ((number, grace_s),) = command.stops
        assert number is signal.SIGTERM
        assert grace_s > 25


def test_postgres_listens_nowhere_and_is_durable() -> None:
    """Our Postgres has no TCP port and forces every commit to disk; a throwaway one forces nothing."""
    server = PostgresServer(Path("/bin"), Path("/srv/data"), Path('/srv/a "b", c'), OURSELVES)
    argv = postgres_command(server).argv
    assert "--listen_addresses=" in argv
    assert '--unix_socket_directories="/srv/a ""b"", c"' in argv
    assert not any(word.startswith("--fsync") for word in argv)
    throwaway = PostgresServer(Path("/bin"), Path("/srv/data"), Path("/run"), OURSELVES, durable=False)
    assert "--fsync=off" in postgres_command(throwaway).argv


def test_an_account_stands_before_the_command_or_in_its_start() -> None:
    """Becoming another one is a prefix of words, or a uid for the process that is started."""
    mapped = PostgresServer(Path("/b"), Path("/d"), Path("/s"), UnixUser(prefix=("unshare", "-U")))
    assert postgres_command(mapped).argv[:3] == ("unshare", "-U", "/b/postgres")
    nobody = postgres_command(PostgresServer(Path("/b"), Path("/d"), Path("/s"), UnixUser(uid=65534))).popen()
    assert (nobody["user"], nobody["group"], nobody["extra_groups"]) == (65534, 65534, [])


def test_data_of_a_missing_postgres_is_not_touched(tmp_path: Path) -> None:
    """Data of a major version that is not on this machine is refused by name, never given to another version."""
    (tmp_path / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartError, match="written by Postgres 9"):
        find_programs(tmp_path)


def test_redis_listens_nowhere_and_keeps_its_bells() -> None:
    """Our Redis has no TCP port and an append-only file; a throwaway one keeps nothing."""
    server = RedisServer(Path("/bin/redis-server"), Path("/srv/redis"), Path("/srv/run/redis.sock"))
    argv = " ".join(redis_command(server).argv)
    assert "--port 0" in argv
    assert "--appendonly yes" in argv
    throwaway = RedisServer(Path("/bin/redis-server"), Path("/srv/redis"), Path("/srv/run/redis.sock"), durable=False)
    assert "--appendonly no" in " ".join(redis_command(throwaway).argv)


def test_every_line_carries_its_process() -> None:
    """What a process writes appears under its name, line by line, the last one without its line end too."""
    target = io.BytesIO()
    output = Output(target)
    output.say("starting")
    with os.fdopen(output.pipe("api"), "wb") as pipe:
        pipe.write(b"one\ntwo")
    output.finish(timeout_s=5)
    assert target.getvalue().decode().splitlines() == ["spine    | starting", "api      | one", "api      | two"]


def test_a_closed_terminal_does_not_stop_the_processes() -> None:
    """When nobody reads any more, the processes' lines are dropped, not held back."""
    target = io.BytesIO()
    target.close()
    output = Output(target)
    with os.fdopen(output.pipe("api"), "wb") as pipe:
        pipe.write(b"line\n" * 20_000)  # more than a pipe holds
    output.finish(timeout_s=5)


def test_the_welcome_can_be_copied() -> None:
    """The curl that is shown carries the real address and key."""
    text = welcome("http://127.0.0.1:8080", "sk_test_1", Path("/srv/spine/keys.json"))
    assert "curl -X POST http://127.0.0.1:8080/v1/events" in text
    assert "Bearer sk_test_1'" in text
    assert "spine keys create" in welcome("http://127.0.0.1:8080", None, Path("/srv/spine/keys.json"))
