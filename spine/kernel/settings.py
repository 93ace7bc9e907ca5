"""Settings in small frozen groups, read from the environment at the entry points and passed down.

`.env.example` lists every name, its meaning and its default too. A test compares the two.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, EmailStr, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _split(value: object) -> object:
    """Split a text at its commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Texts, separated by commas in the environment."""
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split)]
"""CIDR ranges, separated by commas in the environment."""


class _Group(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SPINE_", frozen=True, extra="ignore", populate_by_name=True)


class DatabaseSettings(_Group):
    """The connection to PostgreSQL, which holds all state."""

    database_url: str = Field(validation_alias="DATABASE_URL")
    database_pool_size: int = Field(default=16, ge=2, le=500)
    """Connections in each pool of a process."""


class WakeupSettings(_Group):
    """The connection to Redis, which carries wakeups. Losing Redis costs time and never work."""

    redis_url: str = Field(validation_alias="REDIS_URL")
    """`redis://`, `rediss://`, `unix://`, or `sentinel://host:port,host:port/master-name/db`."""
    poll_delay_s: float = Field(default=0.05, gt=0, le=5)
    """Seconds between an idle worker's polls for due wakeups. A wakeup for now arrives at once."""


class TemplateSettings(_Group):
    """The budget of rendering one message on one channel, in the API and in workers."""

    template_max_steps: int = Field(default=20_000, ge=1_000, le=1_000_000)
    template_max_ms: int = Field(default=40, ge=5, le=1_000)
    """CPU time. The steps end a rendering first, except on a slow machine."""


class HttpSettings(TemplateSettings):
    """The API's HTTP server and its limits."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=1, le=65535)
    http_processes: int = Field(default=1, ge=1, le=64)
    public_url: str | None = None
    """The API's URL for callers, if it is not http://host:port."""
    signup: Literal["open", "closed"] = "closed"
    signup_confirmation: Literal["required", "none"] = "required"
    """Whether a live key works only after its organisation confirmed the address that signed up."""
    signup_per_hour: int = Field(default=20, ge=1)
    """Signups, and confirmations, of one address in an hour."""
    account_tests_per_hour: int = Field(default=120, ge=1)
    """Tests of provider accounts of one workspace in an hour."""
    page_views_per_minute: int = Field(default=600, ge=1)
    """Hosted pages that one address may look at in a minute."""
    page_submissions_per_hour: int = Field(default=600, ge=1)
    """Submissions of hosted pages from one address in an hour, refused ones included."""
    page_submissions_per_slug: int = Field(default=6000, ge=1)
    """Submissions of one hosted page in an hour that pass its checks, from all addresses."""
    page_min_fill_s: float = Field(default=0.5, ge=0, le=10)
    """A submission that comes sooner after its page was rendered waits for the rest of this time."""
    operator_token: SecretStr | None = None
    """The bearer token for /metrics. Without it they are for callers on this machine, with no proxy in front."""
    metrics_access: Literal["token", "local"] = "token"
    """local: callers on this machine need no token. For an API that no proxy on its machine leads to."""
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_event_bytes: int = Field(default=256 * 1024, ge=1024)
    rate_limit_requests: int = Field(default=60_000, ge=1)
    """Requests per workspace and minute."""
    max_scan: int = Field(default=10_000, ge=100)
    """Rows that one page of a filtered list looks at. A page that found too few has a cursor to read on."""
    max_reads: int = Field(default=4, ge=1)
    """Reads of one workspace that use the database at the same time, in each API process. Further ones wait."""
    read_timeout_s: float = Field(default=5, gt=0, le=60)
    """Seconds that one statement of a read may take, and that a read waits for its turn."""
    max_outbox: int = Field(default=500_000, ge=1)
    """Events of one workspace in the outbox beyond which it gets 429 for new ones."""
    max_outbox_total: int = Field(default=4_000_000, ge=1)
    """Events of all workspaces in the outbox beyond which everybody gets 429 for new ones."""
    max_endpoints: int = Field(default=10_000, ge=1)
    """Webhook endpoints of one workspace."""
    call_session_ttl_s: int = Field(default=1800, ge=60, le=86_400)
    """Seconds after which an open call session is abandoned."""
    max_header_bytes: int = Field(default=64 * 1024, ge=8192, le=1024 * 1024)
    """Bytes of a request's head, and of chunk extensions or trailers between two parts of a body."""
    max_headers: int = Field(default=100, ge=10)
    max_url_bytes: int = Field(default=48 * 1024, ge=1024)
    head_timeout_s: float = Field(default=10, gt=0)
    """Seconds for a request's head, from the connection or from its first byte on."""
    body_timeout_s: float = Field(default=60, gt=0)
    answer_timeout_s: float = Field(default=60, gt=0)
    """Seconds that a client may leave an answer unread."""
    max_connections: int = Field(default=2000, ge=16)
    """Connections of one API process."""
    max_connections_per_address: int = Field(default=256, ge=1)
    """Connections of one address, or of one IPv6 network of 64 bits, to one API process."""
    max_streams: int = Field(default=256, ge=1)
    """Streams of server-sent events that one API process holds open. Each is a connection."""
    max_streams_per_workspace: int = Field(default=32, ge=1)
    trusted_proxies: Networks = ()
    """Proxies whose X-Forwarded-For names the client, and whose connections are not limited by address."""

    @property
    def url(self) -> str:
        """The API's URL for callers."""
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return (self.public_url or f"http://{host}:{self.http_port}").rstrip("/")


class McpSettings(_Group):
    """The tools of the API at /mcp."""

    mcp: Literal["on", "off"] = "on"
    mcp_hosts: Names = ()
    """The names by which /mcp is served, beside addresses, localhost and the host of SPINE_PUBLIC_URL. None: any name."""
    mcp_origins: Names = ()
    """Origins of web pages that may call /mcp, beside those on this machine and that of SPINE_PUBLIC_URL."""
    mcp_max_result_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Bytes of a tool's result."""


class VaultSettings(_Group):
    """The keys that encrypt secrets at rest."""

    encryption_key: SecretStr
    """Base64 of 32 bytes. During a rotation several, separated by commas: the first one encrypts, all decrypt."""


class MailSettings(_Group):
    """The operator's mail server, for mails of the installation itself: confirmations of signups."""

    mail_url: SecretStr | None = None
    """`smtp://user:password@host:587` (STARTTLS, required for a password) or `smtps://user:password@host:465`."""
    mail_from: EmailStr | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.mail_url is None) != (self.mail_from is None):
            raise ValueError("SPINE_MAIL_URL and SPINE_MAIL_FROM go together")
        return self

    @field_validator("mail_url")
    @classmethod
    def _is_smtp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("smtp://", "smtps://")):
            raise ValueError("SPINE_MAIL_URL starts with smtp:// or smtps://")
        return value


class EgressSettings(_Group):
    """The addresses that outgoing calls may reach, and the limits of a call."""

    egress_allow: Networks = ()
    """CIDR ranges that calls may reach although they are not public, separated by commas."""
    egress_ca_file: str | None = None
    connect_timeout_s: float = Field(default=5, gt=0, le=60)
    attempt_timeout_s: float = Field(default=15, gt=0, le=60)
    max_response_bytes: int = Field(default=1024 * 1024, ge=8192)
    max_response_head_bytes: int = Field(default=32 * 1024, ge=8192)
    """Bytes of a response outside of its body: headers, informational responses, chunk extensions, trailers."""

    dns_servers: Annotated[tuple[tuple[str, int], ...], NoDecode] = ()
    """The name servers to ask instead of those of /etc/resolv.conf, separated by commas: `address` or `address:port`."""
    dns_timeout_s: float = Field(default=3, gt=0, le=60)
    """Seconds of a look-up, the wait for its turn included."""
    dns_lookups_per_workspace: int = Field(default=32, ge=1)
    dns_lookups: int = Field(default=256, ge=1)
    """Look-ups that one process makes at the same time."""
    dns_max_stale_s: float = Field(default=3600, ge=0)
    """Seconds for which a name's last addresses are used while its name servers do not answer."""

    @field_validator("dns_servers", mode="before")
    @classmethod
    def _split_servers(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(_address_and_port(part.strip()) for part in value.split(",") if part.strip())


def _address_and_port(text: str) -> tuple[str, int]:
    """Split `address`, `address:port` or `[address]:port`. Raises ValueError."""
    host, _, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "53")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{text}: a port is a number from 1 to 65535")
    return str(ip_address(host.strip("[]"))), int(port)


class WorkSettings(TemplateSettings):
    """The limits and intervals of a worker."""

    workers: int = Field(default=2, ge=1, le=64)
    """Worker processes that `make up` starts."""
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    """Port of the first worker's /metrics. Each further worker takes the next port. 0: no metrics port."""
    worker_index: int = Field(default=0, ge=0)
    metrics_host: str = "127.0.0.1"
    lease_s: float = Field(default=30, ge=5, le=600)
    max_in_flight: int = Field(default=512, ge=1)
    """Outgoing calls that one worker makes at the same time."""
    max_held: int = Field(default=4096, ge=1)
    """Deliveries that one worker holds in memory, waiting ones included."""
    max_held_bytes: int = Field(default=128 * 1024 * 1024, ge=1024 * 1024)
    max_sends: int = Field(default=256, ge=16)
    """Calls to message providers that one worker makes at the same time."""
    max_sends_per_account: int = Field(default=64, ge=1)
    """The same to one provider account."""
    breaker_window_s: int = Field(default=30, ge=1, le=600)
    """The breaker of a provider account looks at the calls of so many seconds."""
    breaker_min_calls: int = Field(default=20, ge=1)
    """Fewer calls than this do not open it, except for refused connections in a row."""
    breaker_failure_rate: float = Field(default=0.5, gt=0, le=1)
    breaker_slow_rate: float = Field(default=0.8, gt=0, le=1)
    breaker_slow_call_s: float = Field(default=10, gt=0)
    breaker_connect_failures: int = Field(default=5, ge=1)
    breaker_open_s: float = Field(default=30, gt=0)
    """How long it stays open at first; each opening after a failed probe lasts twice as long."""
    breaker_max_open_s: float = Field(default=600, gt=0)
    breaker_probe_successes: int = Field(default=3, ge=1, le=100)
    breaker_recheck_s: float = Field(default=5, gt=0)
    """How soon a waiting message looks again at a breaker that another message probes."""
    commit_gap_s: float = Field(default=0.01, ge=0, le=1)
    """Seconds from the start of one commit of results to the next. Results in between are committed together."""
    drain_s: float = Field(default=25, ge=0)
    """Seconds that a stopping worker waits for calls in flight before it releases their leases."""
    sweep_s: float = Field(default=5, gt=0)
    retention_days: int = Field(default=30, ge=1, le=3650)
