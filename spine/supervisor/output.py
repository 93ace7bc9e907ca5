"""One output stream for the lines of all processes, each with the name of its process."""

import os
import sys
import threading
from typing import BinaryIO

_NAME_WIDTH = 8


class Output:
    """Collects the output of processes in threads, so that a blocked terminal does not block the supervisor."""

    def __init__(self, target: BinaryIO | None = None) -> None:
        self._target = target or sys.stdout.buffer
        self._lock = threading.Lock()
        self._readers: list[threading.Thread] = []

    def log(self, text: str, name: str = "spine") -> None:
        """Write lines with the name of a process."""
        for line in text.splitlines() or [""]:
            self._write(b"%s | %s\n" % (name.ljust(_NAME_WIDTH).encode(), line.encode()))

    def print(self, text: str) -> None:
        """Write text without a name, so that commands in it can be copied."""
        self._write(text.encode() + b"\n")

    def pipe(self, name: str) -> int:
        """Return a file descriptor for the output of a process. The caller closes it."""
        reading, writing = os.pipe()
        reader = threading.Thread(target=self._copy, args=(reading, name), name=f"output of {name}", daemon=True)
        self._readers.append(reader)
        reader.start()
        return writing

    def join(self, timeout_s: float) -> None:
        """Wait until the output of ended processes is written, at most `timeout_s` per process."""
        for reader in self._readers:
            reader.join(timeout_s)

    def _copy(self, reading: int, name: str) -> None:
        with open(reading, "rb") as lines:
            for line in lines:
                self._write(b"%s | %s\n" % (name.ljust(_NAME_WIDTH).encode(), line.rstrip(b"\r\n")))

    def _write(self, line: bytes) -> None:
        try:
            with self._lock:
                self._target.write(line)
                self._target.flush()
        except (OSError, ValueError):
            # The terminal is closed, but the processes must still be able to write.
            return
