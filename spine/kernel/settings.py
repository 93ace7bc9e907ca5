"""Settings in small frozen groups, read from the environment at the front doors and passed down.

Every name, its meaning and its default stand in `.env.example` too; a test holds the two together.
"""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class _Group(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SPINE_", frozen=True, extra="ignore", populate_by_name=True)


class DatabaseSettings(_Group):
    """Where the truth is kept."""

    database_url: str = Field(validation_alias="DATABASE_URL")
    database_pool_size: int = Field(default=16, ge=2, le=500)
    """Connections of one process, in each of its pools."""


class WakeupSettings(_Group):
    """Where bells ring: Redis, whose loss costs time and never work."""

    redis_url: str = Field(validation_alias="REDIS_URL")
    """`redis://`, `rediss://`, `unix://`, or `sentinel://host:port,host:port/master-name/db`."""
    poll_delay_s: float = Field(default=0.05, gt=0, le=5)
    """How often an idle worker looks for due bells; one that rings now is heard at once."""


class HttpSettings(_Group):
    """The API's front door."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=1, le=65535)
    http_processes: int = Field(default=1, ge=1, le=64)
    public_url: str | None = None
    """How callers reach the API, when that is not http://host:port."""
    signup: Literal["open", "closed"] = "closed"
    operator_token: SecretStr | None = None
    """Opens /metrics to callers that are not on this machine; without it they are refused."""
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_event_bytes: int = Field(default=256 * 1024, ge=1024)
    rate_limit_requests: int = Field(default=60_000, ge=1)
    """Requests a workspace may make in each minute."""
    max_outbox: int = Field(default=2_000_000, ge=1)
    """Events waiting for the relay beyond which accepting answers 429."""


class VaultSettings(_Group):
    """The key that seals secrets at rest."""

    encryption_key: SecretStr
    """Base64 of 32 bytes; several, separated by commas, while rotating: the first seals, all open."""


class EgressSettings(_Group):
    """What calls to the outside may reach, and how much they may cost."""

    egress_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """CIDR ranges opened although they are not public, separated by commas."""
    egress_ca_file: str | None = None
    connect_timeout_s: float = Field(default=5, gt=0, le=60)
    attempt_timeout_s: float = Field(default=15, gt=0, le=60)
    max_response_bytes: int = Field(default=1024 * 1024, ge=8192)

    @field_validator("egress_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class WorkSettings(_Group):
    """How a worker works."""

    workers: int = Field(default=2, ge=1, le=64)
    """Worker processes that `make up` starts."""
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    """Port of the first worker's /metrics; each further one takes the next. 0 for none."""
    worker_index: int = Field(default=0, ge=0)
    metrics_host: str = "127.0.0.1"
    lease_s: float = Field(default=30, ge=5, le=600)
    max_in_flight: int = Field(default=512, ge=1)
    """Calls to the outside that one worker makes at once."""
    max_held: int = Field(default=4096, ge=1)
    """Deliveries that one worker holds, waiting ones included."""
    max_held_bytes: int = Field(default=128 * 1024 * 1024, ge=1024 * 1024)
    commit_gap_s: float = Field(default=0.01, ge=0, le=1)
    """Results are committed together: no sooner than this after the commit before them began."""
    drain_s: float = Field(default=25, ge=0)
    """How long a stopping worker waits for calls in flight before it gives their leases back."""
    sweep_s: float = Field(default=5, gt=0)
    retention_days: int = Field(default=30, ge=1, le=3650)
