"""Runs `make up` as a process, and checks that none of its processes remains."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
WITH_FAKES = (sys.executable, str(Path(__file__).parent / "fakes/up.py"))
"""The supervisor with fakes for the API and the workers."""


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Up:
    """One running `make up`."""

    process: psutil.Popen
    directory: Path
    port: int
    log: Path

    def children(self) -> dict[str, psutil.Process]:
        """The supervised processes by name, found by their command lines."""
        patterns = {"products.app": "api", "workers.main": "worker", "bin/postgres": "postgres", "-server": "redis"}
        found: dict[str, psutil.Process] = {}
        for child in self.process.children():
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:
                continue
            found |= {name: child for pattern, name in patterns.items() if pattern in line}
        return found

    def has_printed(self, text: str) -> bool:
        """Whether its output has this text."""
        return text in self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a stop signal. Returns the exit code."""
        self.process.send_signal(number)
        return int(self.process.wait(timeout=60))


def until(condition: Callable[[], object], within_s: float = 60) -> None:
    """Wait for a condition, or fail."""
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, "did not happen in time"
        time.sleep(0.05)


def environment(directory: Path, port: int, **more: str) -> dict[str, str]:
    """The settings of one installation."""
    # Empty, not absent: otherwise the tests would use the servers of a developer's .env.
    inherited = os.environ | {"DATABASE_URL": "", "REDIS_URL": ""}
    own = {"SPINE_HTTP_HOST": "127.0.0.1", "SPINE_HTTP_PORT": str(port), "SPINE_DATA_DIR": str(directory)}
    return inherited | own | {"SPINE_WORKERS": "1", "PYTHONPATH": str(ROOT)} | more


def try_up(directory: Path, port: int, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a `make up` that must exit by itself."""
    return subprocess.run(
        WITH_FAKES,
        env=environment(directory, port, **more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@contextmanager
def up(directory: Path, argv: Sequence[str] = WITH_FAKES, **more: str) -> Iterator[Up]:
    """Run `make up` until the block ends. None of its processes may remain."""
    port, log = free_port(), directory.with_name(f"{directory.name}.log")
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = psutil.Popen(
            argv,
            env=environment(directory, port, **more),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Up(process, directory, port, log)
    processes: list[psutil.Process] = []
    try:
        until(lambda: running.has_printed("Spine is running at") or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        processes = process.children(recursive=True)
        yield running
        processes += process.children(recursive=True) if process.is_running() else []
    finally:
        if process.poll() is None:
            running.stop()
        _, left = psutil.wait_procs(processes, timeout=15)
        for orphan in left:
            orphan.kill()
    assert left == [], f"left behind: {left}"
