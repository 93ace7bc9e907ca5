"""A process as data: what to run, where, as whom, and how to ask it to stop."""

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
    """Spine cannot start on this machine as it is; the message says why and how to mend it."""


@dataclass(frozen=True)
class Command:
    """One process. `stops` are the signals that end it, each with the seconds it is given before the next one."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    uid: int | None = None
    stops: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),)
    hurry: signal.Signals = signal.SIGKILL

    def popen(self) -> dict[str, Any]:
        """Keyword arguments for `subprocess.Popen` and its asyncio twin.

        A session of its own keeps the terminal's Ctrl-C for the supervisor, who stops things in order.
        """
        as_whom = {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}
        return {
            "cwd": self.cwd,
            "env": dict(self.env),
            "start_new_session": True,
            "preexec_fn": _die_with_parent(self.stops[0][0]),
            **as_whom,
        }


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Have the kernel (Linux only) end a process whose supervisor was killed, so that none is left behind."""
    libc = _libc
    if libc is None:
        return None
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, number)
