"""The data directory: created once, locked by one supervisor at a time, with short paths for its sockets."""

import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import TextIO

from spine.supervisor.command import StartError

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
_SOCKET_PATH_MAX = 103
_LONGEST_SOCKET_NAME = "postgres/.s.PGSQL.5432"


def open_directory(path: Path) -> Path:
    """Create the data directory if it is missing. Root lets others enter it, for a Postgres of nobody, but not list it."""
    directory = path.expanduser().resolve()
    try:
        directory.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        (directory / "lock").touch(mode=0o600)
    except OSError as error:
        raise StartError(
            f"cannot write to the data directory {directory}: {error.strerror}. Set SPINE_DATA_DIR to another one."
        ) from error
    return directory


def lock_directory(directory: Path) -> TextIO:
    """Lock the directory for this process. Closing the returned file or ending the process releases the lock.

    Raises StartError if another process has locked it.
    """
    lock = (directory / "lock").open("r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = lock.read().strip()
        lock.close()
        raise StartError(
            f"the data directory {directory} is in use by another `make up` (process {holder or 'unknown'}). "
            "Stop that one first, or set SPINE_DATA_DIR to another directory and SPINE_HTTP_PORT to another port."
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _fallback(directory: Path) -> Path:
    key = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    return Path("/tmp") / f"spine-{os.geteuid()}-{key}"  # noqa: S108  used only if it is ours and closed to others


def remove_sockets(directory: Path) -> None:
    """Delete the directory below /tmp, if there is one. Call it after the servers have ended."""
    shutil.rmtree(_fallback(directory), ignore_errors=True)


def socket_directory(directory: Path) -> Path:
    """Return the directory of the servers' sockets: in the data directory, or below /tmp if that path is too long."""
    inside = directory / "run"
    mode = 0o711 if os.geteuid() == 0 else 0o700
    if len(os.fsencode(inside / _LONGEST_SOCKET_NAME)) <= _SOCKET_PATH_MAX:
        inside.mkdir(mode=mode, exist_ok=True)
        return inside
    outside = _fallback(directory)
    outside.mkdir(mode=mode, exist_ok=True)
    found = outside.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o066:
        raise StartError(f"{outside} is not a directory of ours alone; remove it, or choose a shorter SPINE_DATA_DIR.")
    return outside
