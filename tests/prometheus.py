"""A real Prometheus for tests: installed on this machine, or unpacked beside the virtual environment."""

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


class PrometheusUnavailable(Exception):
    """Prometheus is not installed and cannot be downloaded. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the two programs."""

    prometheus: Path
    promtool: Path


def tools() -> Tools:
    """Return the installed programs, else those of the Debian package, unpacked into TOOLS once.

    Raises PrometheusUnavailable.
    """
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return Tools(Path(found[0]), Path(found[1]))
    unpacked = Tools(TOOLS / "root/usr/bin/prometheus", TOOLS / "root/usr/bin/promtool")
    if not unpacked.promtool.exists():
        _fetch()
    return unpacked


def require_tools() -> Tools:
    """Return the programs. Skips the test if there are none."""
    try:
        return tools()
    except PrometheusUnavailable as reason:
        pytest.skip(str(reason))


def _fetch() -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise PrometheusUnavailable("prometheus is not installed, and this machine has no apt-get to fetch it with")
    try:
        TOOLS.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrometheusUnavailable(
            f"prometheus is not installed, and there is no place to unpack it: {error}"
        ) from error
    # Two test processes may run this at the same time.
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (TOOLS / "root").exists():
            return
        package = _download()
        partial = TOOLS / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        _run("dpkg-deb", "-x", str(package), str(partial))
        package.unlink()
        shutil.rmtree(TOOLS / "apt", ignore_errors=True)
        partial.rename(TOOLS / "root")


def _download() -> Path:
    """Download the package with the machine's package lists, or with separate lists if it has none."""
    try:
        _run("apt-get", "download", "prometheus")
    except PrometheusUnavailable:
        own = _own_state()
        _run("apt-get", *own, "update")
        _run("apt-get", *own, "download", "prometheus")
    return next(TOOLS.glob("prometheus_*.deb"))


def _own_state() -> tuple[str, ...]:
    state, cache = TOOLS / "apt/state", TOOLS / "apt/cache"
    (state / "lists/partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
    # apt's own download user may not write below this directory.
    return (
        "-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}",
        "-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root",
    )  # fmt: skip


def _run(*argv: str) -> None:
    try:
        done = subprocess.run(argv, cwd=TOOLS, capture_output=True, text=True, timeout=_APT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PrometheusUnavailable(f"prometheus cannot be fetched: {argv[0]} took longer than {_APT_S} s") from error
    if done.returncode != 0:
        raise PrometheusUnavailable(
            f"prometheus cannot be fetched: {' '.join(argv[:1] + argv[-2:])}: {done.stderr.strip()[-300:]}"
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A running Prometheus."""

    url: str

    def samples(self, expr: str) -> list[float]:
        """Return the finite values of an instant query."""
        result = self._get("query", query=expr)["result"]
        return [value for each in result if math.isfinite(value := float(each["value"][1]))]

    def all_up(self) -> bool:
        """Return True if every target has been scraped."""
        targets = self._get("targets", state="active")["activeTargets"]
        return bool(targets) and all(target["health"] == "up" for target in targets)

    def _get(self, what: str, **arguments: str) -> dict[str, Any]:
        with urlopen(f"{self.url}/api/v1/{what}?{urlencode(arguments)}", timeout=10) as answer:
            body: dict[str, Any] = json.load(answer)
        data: dict[str, Any] = body["data"]
        return data

    def ready(self) -> bool:
        """Return True if the server is ready."""
        try:
            with urlopen(f"{self.url}/-/ready", timeout=2):
                return True
        except (URLError, ConnectionError):
            return False


@contextmanager
def scraping(jobs: Mapping[str, Sequence[str]], directory: Path) -> Iterator[Server]:
    """Run a Prometheus that scrapes these `host:port` targets by job every second, and wait until all are up."""
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


def wait_for_data(server: Server, queries: Iterable[str], within_s: float) -> list[str]:
    """Repeat each query until it returns data. Returns the queries without data after `within_s`."""
    empty = sorted(set(queries))
    until = time.monotonic() + within_s
    while empty := [query for query in empty if not server.samples(query)]:
        if time.monotonic() > until:
            break
        time.sleep(1)
    return empty
