"""A child process of the benchmarks: started as `make up` starts its processes, with its output in a file."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from spine.supervisor.command import Command

ROOT = Path(__file__).parent.parent


class Process:
    """A running child process."""

    def __init__(self, command: Command, log: Path, *, pipes: bool = False) -> None:
        self.name = command.name
        self._log = log
        self._stops = command.stop_signals
        popen: dict[str, Any] = command.popen()
        with log.open("ab") as output:
            popen |= {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            if pipes:
                popen |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._child: subprocess.Popen[bytes] = subprocess.Popen(command.argv, **popen)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def require_alive(self) -> None:
        """Raise RuntimeError with the end of the output if the process has ended."""
        if self._child.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self._child.returncode}:\n{self._log.read_text()[-3000:]}")

    def pause(self) -> None:
        """Suspend the process, so that other processes can be measured without it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the suspended process."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the process with the signals of its command."""
        if self._child.poll() is None:
            self.resume()
            for number, grace_s in self._stops:
                self._child.send_signal(number)
                try:
                    self._child.wait(grace_s)
                    break
                except subprocess.TimeoutExpired:
                    continue
            else:
                self._child.kill()
                self._child.wait()

    def read_line(self) -> str:
        """Return one line of the output. Raises RuntimeError if the process ended."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self.require_alive()
        return line.decode().strip()

    def request(self, message: Mapping[str, Any]) -> Any:
        """Send a message to the process and return its response. Blocks."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(orjson.dumps(message) + b"\n")
        self._child.stdin.flush()
        head = self._child.stdout.read(8)
        if len(head) < 8:
            self._child.wait()
            self.require_alive()
        return orjson.loads(self._child.stdout.read(int.from_bytes(head, "big")))


def start(
    name: str,
    argv: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    pipes: bool = False,
    grace_s: float = 10,
) -> Process:
    """Start a Python program of this project."""
    env = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {})
    return Process(Command(name, tuple(argv), ROOT, env, stop_signals=((signal.SIGTERM, grace_s),)), log, pipes=pipes)
