"""The plan of an installation, made before anything starts: addresses, environment and commands from the settings."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from spine.kernel.client_address import parse_address
from spine.kernel.settings import HttpSettings, WorkSettings
from spine.supervisor import secret_store
from spine.supervisor.command import Command
from spine.supervisor.ports import PortRange, free_range, require_port

ROOT = Path(__file__).parent.parent.parent
_API_GRACE_S = 15.0
# A worker drains for its own `drain_s`. If it takes this many seconds more, it hangs.
_WORKER_MARGIN_S = 5.0


class UpSettings(BaseSettings):
    """Settings of `make up` alone. Without an address of Postgres or Redis it starts its own server."""

    model_config = SettingsConfigDict(env_prefix="SPINE_", frozen=True, extra="ignore", env_ignore_empty=True)

    data_dir: Path = Path(".spine")
    """The directory of all data that must survive a restart."""
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")


@dataclass(frozen=True)
class Programs:
    """The command lines of Spine's own processes. Tests replace them with fakes."""

    migrate: tuple[str, ...] = (sys.executable, "-m", "spine.migrations")
    api: tuple[str, ...] = (sys.executable, "-m", "products.app")
    worker: tuple[str, ...] = (sys.executable, "-m", "arq", "workers.main.WorkerSettings")


@dataclass(frozen=True)
class Plan:
    """One installation on this machine."""

    directory: Path
    database_url: str | None
    redis_url: str | None
    http: HttpSettings
    work: WorkSettings
    metrics: PortRange | None
    environment: Mapping[str, str]
    programs: Programs = field(default_factory=Programs)

    @property
    def address(self) -> str:
        """The URL of the API from this machine."""
        return _local_url(self.http.http_host, self.http.http_port)

    @property
    def encryption_key(self) -> str:
        """SPINE_ENCRYPTION_KEY, given or created."""
        return self.environment["SPINE_ENCRYPTION_KEY"]

    @property
    def api_metrics(self) -> Path:
        """The directory in which API processes behind one port add up their metrics."""
        return self.directory / "metrics"

    @property
    def worker_metrics(self) -> tuple[str, ...]:
        """The URLs of the workers' metrics; empty if they serve none."""
        if self.metrics is None:
            return ()
        ports = range(self.metrics.first, self.metrics.first + self.work.workers)
        return tuple(f"{_local_url(self.work.metrics_host, port)}/metrics" for port in ports)


def _local_url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  a listener on every address
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def make_plan(settings: UpSettings, directory: Path, programs: Programs | None = None) -> Plan:
    """Read the settings and choose ports. Raises StartError if a configured port is taken."""
    http, work = HttpSettings(), WorkSettings()
    require_port(http.http_host, http.http_port, "SPINE_HTTP_PORT")
    secrets = secret_store.load_or_create_secrets(directory / "secrets.json")
    return Plan(
        directory=directory,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        http=http,
        work=work,
        metrics=_metrics_ports(work),
        # On a developer's machine signup is open and receivers may be local; the environment overrides both.
        environment={
            "SPINE_SIGNUP": "open",
            "SPINE_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
            **_defaults_on_loopback(http),
            **secrets,
            **os.environ,
            "PYTHONUNBUFFERED": "1",
        },
        programs=programs or Programs(),
    )


def _defaults_on_loopback(http: HttpSettings) -> dict[str, str]:
    """Return settings for an API that only this machine reaches: no confirmation of signups, no token for metrics."""
    address = parse_address(http.http_host)
    local = http.http_host == "localhost" or (address is not None and address.is_loopback)
    if not local or http.trusted_proxies or http.public_url is not None:
        return {}
    defaults = {
        "SPINE_SIGNUP_CONFIRMATION": "none",
        "SPINE_SIGNUP_PER_HOUR": "10000",
        "SPINE_PAGE_VIEWS_PER_MINUTE": "10000",
        "SPINE_PAGE_SUBMISSIONS_PER_HOUR": "100000",
        "SPINE_PAGE_SUBMISSIONS_PER_SLUG": "100000",
    }
    return defaults if http.operator_token is not None else {**defaults, "SPINE_METRICS_ACCESS": "local"}


def _metrics_ports(work: WorkSettings) -> PortRange | None:
    """The workers' ports. Configured ports must be free; default ports move if another Spine uses them."""
    if work.metrics_port == 0:
        return None
    if "metrics_port" not in work.model_fields_set:
        return free_range(work.metrics_host, work.metrics_port, work.workers)
    for index in range(work.workers):
        require_port(work.metrics_host, work.metrics_port + index, "SPINE_METRICS_PORT")
    return PortRange(work.metrics_port)


def process_environment(plan: Plan, database_url: str, redis_url: str) -> dict[str, str]:
    """The environment of Spine's own processes, with the addresses of both servers."""
    return {**plan.environment, "DATABASE_URL": database_url, "REDIS_URL": redis_url}


def migrate_command(plan: Plan, environment: Mapping[str, str]) -> Command:
    """The command that applies the migrations and exits."""
    return Command("migrate", plan.programs.migrate, ROOT, environment)


def api_commands(plan: Plan, environment: Mapping[str, str]) -> tuple[Command, ...]:
    """The API processes. Several processes share the port."""
    count = plan.http.http_processes
    names = ("api",) if count == 1 else tuple(f"api-{index}" for index in range(count))
    stops = ((signal.SIGTERM, _API_GRACE_S),)
    if count > 1:
        environment = {**environment, "PROMETHEUS_MULTIPROC_DIR": str(plan.api_metrics)}
    return tuple(Command(name, plan.programs.api, ROOT, environment, stop_signals=stops) for name in names)


def worker_commands(plan: Plan, environment: Mapping[str, str]) -> tuple[Command, ...]:
    """The worker processes, each with its index."""
    metrics_port = str(plan.metrics.first if plan.metrics else 0)
    grace_s = plan.work.drain_s + _WORKER_MARGIN_S
    return tuple(
        Command(
            f"worker-{index}",
            plan.programs.worker,
            ROOT,
            {**environment, "SPINE_WORKER_INDEX": str(index), "SPINE_METRICS_PORT": metrics_port},
            stop_signals=((signal.SIGTERM, grace_s),),
        )
        for index in range(plan.work.workers)
    )
