"""The worker under a sampling profile: `python -m arq bench.profiled.WorkerSettings`. Only the benchmarks start this.

Every 2 ms of CPU time, one sample is counted for the innermost frame of the product or a library. Other code (the event
loop, reading sockets) is counted as the event loop. `BENCH_PROFILE` names the file for the counts.
"""

import atexit
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

import orjson

from bench.process import ROOT
from workers.main import WorkerSettings

__all__ = ["LOOP", "WorkerSettings"]

LOOP: Final = "event loop"
_EVERY_S: Final = 0.002
_LIBRARIES: Final = "site-packages/"
_RUNNERS: Final = ("arq", "click", "uvloop")
"""Libraries at the bottom of every stack. A stack with only these is counted as the event loop."""

_samples: Final[Counter[str]] = Counter()


def _part(path: str) -> str | None:
    """Return the part of the worker that a file belongs to."""
    if _LIBRARIES in path:
        library = path.rpartition(_LIBRARIES)[2].partition("/")[0]
        return None if library in _RUNNERS else library
    if path.startswith(str(ROOT)):
        return str(Path(path).relative_to(ROOT).with_suffix(""))
    return None


def _sample(signum: int, frame: FrameType | None) -> None:
    del signum
    while frame is not None:
        part = _part(frame.f_code.co_filename)
        if part is not None:
            _samples[part] += 1
            return
        frame = frame.f_back
    _samples[LOOP] += 1


if "BENCH_PROFILE" in os.environ:
    signal.signal(signal.SIGPROF, _sample)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
    atexit.register(lambda: Path(os.environ["BENCH_PROFILE"]).write_bytes(orjson.dumps(_samples)))
