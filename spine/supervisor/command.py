"""The description of a process: program, working directory, environment, Unix user, and stop signals."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class StartError(Exception):
    """Spine cannot start on this machine. The message gives the cause and the remedy."""


@dataclass(frozen=True)
class Command:
    """One process. `stop_signals` are sent in order, each with its grace period in seconds before the next one."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    uid: int | None = None
    stop_signals: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),)
    force_signal: signal.Signals = signal.SIGKILL

    def popen(self) -> dict[str, Any]:
        """Keyword arguments for `subprocess.Popen` and `asyncio.create_subprocess_exec`.

        The process has its own session: the terminal sends Ctrl-C only to the supervisor, which stops processes in order.
        """
        user = {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}
        return {
            "cwd": self.cwd,
            "env": dict(self.env),
            "start_new_session": True,
            "preexec_fn": _die_with_parent(self.stop_signals[0][0]),
            **user,
        }


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Make the kernel (Linux only) signal the process when its supervisor is killed, so that none remains."""
    libc = _libc
    if libc is None:
        return None
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, number)
