"""Checks if a port is free, and finds the process that listens on it."""

import errno
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from spine.supervisor.command import StartError

_PROC = Path("/proc")
_LISTENING = "0A"
_LAST_PORT = 65535


def require_port(host: str, port: int, setting: str) -> None:
    """Raise StartError if the port cannot be listened on. The error names the process that listens, if it is known."""
    try:
        _listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} on {host} is taken by {port_owner(port) or 'another process'}. "
                f"Choose another one: {setting}={port + 1 if port < _LAST_PORT else 8080} make up"
            ) from None
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}. See {setting}.") from None


def is_free(host: str, port: int) -> bool:
    """Whether the port can be listened on now."""
    try:
        _listen(host, port)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class PortRange:
    """Consecutive ports from `first` on. `locks` reserve them against other supervisors until they are used."""

    first: int
    locks: tuple[socket.socket, ...] = ()


def free_range(host: str, first: int, count: int) -> PortRange:
    """The first free ports in a row, at or above `first`. Raises StartError when there are none."""
    for port in range(first, _LAST_PORT - count, count):
        locks = _lock_ports(range(port, port + count))
        if locks is not None and all(is_free(host, port + index) for index in range(count)):
            return PortRange(port, locks)
    raise StartError(f"no {count} free ports in a row were found from {first} on. See SPINE_METRICS_PORT.")


def _lock_ports(ports: range) -> tuple[socket.socket, ...] | None:
    """Lock each port against every other `make up` on this machine. Returns None if another one has locked a port.

    A lock is an abstract socket: it has the lifetime of the process and the network namespace of the ports. Only Linux
    has abstract sockets; elsewhere nothing is locked.
    """
    if sys.platform != "linux":
        return ()
    locks = []
    for port in ports:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        locks.append(lock)
        try:
            lock.bind(f"\0spine-port-{port}")
        except OSError:
            for each in locks:
                each.close()
            return None
    return tuple(locks)


def _listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # Connections of an earlier run in TIME_WAIT must not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def port_owner(port: int) -> str | None:
    """The process that listens on a port, as `name (process 123)`; None if this system does not show it."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        fields = (row.split() for row in rows)
        inodes |= {f"socket:[{row[9]}]" for row in fields if row[3] == _LISTENING and int(row[1][-4:], 16) == port}
    for process in _PROC.glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue
    return None
