"""A real Prometheus for tests: found on this machine, or unpacked beside the virtual environment without installing it."""

import fcntl
import json
import math
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

TOOLS: Final = Path(sys.prefix) / "tools" / "prometheus"
_APT_S: Final = 120


class NotToBeHad(Exception):
    """Prometheus is not on this machine and cannot be fetched; the message says why."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The two programs."""

    prometheus: Path
    promtool: Path


def tools() -> Tools:
    """The programs of this machine, else those of the Debian package, unpacked into TOOLS once. Raises NotToBeHad."""
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return Tools(Path(found[0]), Path(found[1]))
    unpacked = Tools(TOOLS / "root/usr/bin/prometheus", TOOLS / "root/usr/bin/promtool")
    if not unpacked.promtool.exists():
        _fetch()
    return unpacked


def require_tools() -> Tools:
    """The programs, or a skipped test that says why there are none."""
    try:
        return tools()
    except NotToBeHad as reason:
        pytest.skip(str(reason))


def _fetch() -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotToBeHad("prometheus is not installed, and this machine has no apt-get to fetch it with")
    try:
        TOOLS.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotToBeHad(f"prometheus is not installed, and there is no place to unpack it: {error}") from error
    # Two test processes may come here at once.
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (TOOLS / "root").exists():
            return
        package = _download()
        half = TOOLS / "half"
        shutil.rmtree(half, ignore_errors=True)
        _run("dpkg-deb", "-x", str(package), str(half))
        package.unlink()
        shutil.rmtree(TOOLS / "apt", ignore_errors=True)
        half.rename(TOOLS / "root")


def _download() -> Path:
    """The package, by the machine's own package lists, or where it has none by lists of our own."""
    try:
        _run("apt-get", "download", "prometheus")
    except NotToBeHad:
        own = _own_state()
        _run("apt-get", *own, "update")
        _run("apt-get", *own, "download", "prometheus")
    return next(TOOLS.glob("prometheus_*.deb"))


def _own_state() -> tuple[str, ...]:
    state, cache = TOOLS / "apt/state", TOOLS / "apt/cache"
    (state / "lists/partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
    # apt changes to a user of its own to fetch, who may not write below this directory.
    return (
        "-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}",
        "-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root",
    )  # fmt: skip


def _run(*argv: str) -> None:
    try:
        done = subprocess.run(argv, cwd=TOOLS, capture_output=True, text=True, timeout=_APT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotToBeHad(f"prometheus cannot be fetched: {argv[0]} took longer than {_APT_S} s") from error
    if done.returncode != 0:
        raise NotToBeHad(
            f"prometheus cannot be fetched: {' '.join(argv[:1] + argv[-2:])}: {done.stderr.strip()[-300:]}"
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A running Prometheus."""

    url: str

    def samples(self, expr: str) -> list[float]:
        """The finite values that an instant query finds now."""
        result = self._get("query", query=expr)["result"]
        return [value for each in result if math.isfinite(value := float(each["value"][1]))]

    def all_up(self) -> bool:
        """Whether every target has been scraped."""
        targets = self._get("targets", state="active")["activeTargets"]
        return bool(targets) and all(target["health"] == "up" for target in targets)

    def _get(self, what: str, **arguments: str) -> dict[str, Any]:
        with urlopen(f"{self.url}/api/v1/{what}?{urlencode(arguments)}", timeout=10) as answer:
            body: dict[str, Any] = json.load(answer)
        data: dict[str, Any] = body["data"]
        return data

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urlopen(f"{self.url}/-/ready", timeout=2):
                return True
        except (URLError, ConnectionError):
            return False


@contextmanager
def scraping(jobs: Mapping[str, Sequence[str]], directory: Path) -> Iterator[Server]:
    """A Prometheus that scrapes these `host:port` targets, by job, every second, and has reached all of them."""
    program = require_tools().prometheus
    config = directory / "prometheus.json"  # JSON is YAML too
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s"},
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
                ],
            }
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = (
        program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )  # fmt: skip
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, cwd=directory)
    try:
        server = Server(f"http://127.0.0.1:{port}")
        until = time.monotonic() + 30
        while not (server.ready() and server.all_up()):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"prometheus did not come up, or a target is down:\n{log.read_text()}")
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait(timeout=10)


def still_empty(server: Server, queries: Iterable[str], patience_s: float) -> list[str]:
    """Ask each query until it finds data; gives those that found none in all that time."""
    empty = sorted(set(queries))
    until = time.monotonic() + patience_s
    while empty := [query for query in empty if not server.samples(query)]:
        if time.monotonic() > until:
            break
        time.sleep(1)
    return empty
