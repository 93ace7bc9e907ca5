"""Whether a port is free, and who holds it when it is not."""

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
    """Raise StartError, naming the holder where it can be known, when the port cannot be listened on."""
    try:
        _listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} on {host} is taken by {holder(port) or 'another process'}. "
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
    """Ports in a row, from `first` on, and what keeps them from others that choose while they are not yet used."""

    first: int
    held: tuple[socket.socket, ...] = ()


def free_range(host: str, first: int, count: int) -> PortRange:
    """The first free ports in a row, at or above `first`. Raises StartError when there are none."""
    for port in range(first, _LAST_PORT - count, count):
        held = _hold(range(port, port + count))
        if held is not None and all(is_free(host, port + index) for index in range(count)):
            return PortRange(port, held)
    raise StartError(f"no {count} free ports in a row were found from {first} on. See SPINE_METRICS_PORT.")


def _hold(ports: range) -> tuple[socket.socket, ...] | None:
    """A mark for each port that no other `make up` on this machine can set at the same time; None when one has.

    Abstract sockets have the lifetime of the process and the network namespace of the ports; Linux alone has them.
    """
    if sys.platform != "linux":
        return ()
    held = []
    for port in ports:
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        held.append(mark)
        try:
            mark.bind(f"\0spine-port-{port}")
        except OSError:
            for each in held:
                each.close()
            return None
    return tuple(held)


def _listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # Connections of an earlier run that linger in TIME_WAIT do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def holder(port: int) -> str | None:
    """The process that listens on a port, as `name (process 123)`; None when this system does not tell us."""
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
