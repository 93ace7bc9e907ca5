"""One stream for everybody's lines, each with the name of the process that wrote it."""

import os
import sys
import threading
from typing import BinaryIO

_NAME_WIDTH = 8


class Output:
    """Gathers what the processes write, in threads: a terminal that stands still must not stop the supervisor."""

    def __init__(self, target: BinaryIO | None = None) -> None:
        self._target = target or sys.stdout.buffer
        self._lock = threading.Lock()
        self._pumps: list[threading.Thread] = []

    def say(self, text: str, name: str = "spine") -> None:
        """Write lines in a process's name."""
        for line in text.splitlines() or [""]:
            self._write(b"%s | %s\n" % (name.ljust(_NAME_WIDTH).encode(), line.encode()))

    def show(self, text: str) -> None:
        """Write text as it is, so that commands in it can be copied."""
        self._write(text.encode() + b"\n")

    def pipe(self, name: str) -> int:
        """A file descriptor to give to a process; the caller closes it. What is written there appears here."""
        reading, writing = os.pipe()
        pump = threading.Thread(target=self._pump, args=(reading, name), name=f"output of {name}", daemon=True)
        self._pumps.append(pump)
        pump.start()
        return writing

    def finish(self, timeout_s: float) -> None:
        """Wait for the last lines of processes that have ended."""
        for pump in self._pumps:
            pump.join(timeout_s)

    def _pump(self, reading: int, name: str) -> None:
        with open(reading, "rb") as lines:
            for line in lines:
                self._write(b"%s | %s\n" % (name.ljust(_NAME_WIDTH).encode(), line.rstrip(b"\r\n")))

    def _write(self, line: bytes) -> None:
        try:
            with self._lock:
                self._target.write(line)
                self._target.flush()
        except (OSError, ValueError):
            # Nobody reads any more; the processes must be able to write all the same.
            return
