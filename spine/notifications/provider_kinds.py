"""Channels, and the kinds of provider accounts: their abilities, credentials and config. Adapters are in `providers`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from spine.directory.addresses import ascii_email_address
from spine.kernel.resource import Body

SecretText = Annotated[str, StringConstraints(pattern=r"^whsec_[A-Za-z0-9+/]{32,88}={0,2}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
JsonPath = Annotated[str, StringConstraints(pattern=r"^\$(\.[A-Za-z_][A-Za-z0-9_-]*|\[\d{1,4}\])*$", max_length=200)]


MailHeaderAddress = Annotated[
    str, StringConstraints(pattern=r"^[^\s<>]+@[^\s<>]+$", max_length=320), AfterValidator(ascii_email_address)
]
"""An address that a mail server without SMTPUTF8 (RFC 6531) can take, so that every server can."""


class Channel(StrEnum):
    """Ways to a person."""

    WHATSAPP = "whatsapp"
    SMS = "sms"
    EMAIL = "email"


class SandboxCredentials(Body):
    """Optional: a secret of the caller's own, to send signed receipts to a sandbox account."""

    secret: SecretText | None = None


class HttpCredentials(Body):
    """The URL of the service, and the secret that signs both calls and receipts."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    secret: SecretText


class SmtpCredentials(Body):
    """The mail server and its login. A login needs TLS."""

    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")]
    port: int = Field(default=587, ge=1, le=65535)
    username: Text | None = None
    password: Text | None = None


class NoConfig(Body):
    """A config without fields."""


class HttpConfig(Body):
    """Where the values are in the response to a call."""

    id: JsonPath = "$.id"
    status: JsonPath | None = None
    error: JsonPath = "$.error"


class SmtpConfig(Body):
    """The sender, the reply address and the use of TLS. Without TLS there is no login."""

    sender: MailHeaderAddress
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    reply_to: MailHeaderAddress | None = None


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """A kind of provider. `receipts`: it reports deliveries. `dedupes`: repeated calls with one attempt id count once.

    `time_to_live_s`: how long the provider itself may go on trying, if known. A shorter wait may cause duplicates.
    `proof`: the credential that proves who calls; `proof_goes_to`: the credentials that say where and as whom it is used.
    """

    channels: frozenset[Channel]
    credentials: type[Body]
    config: type[Body]
    receipts: bool
    dedupes: bool
    proof: str
    proof_goes_to: tuple[str, ...] = ()
    time_to_live_s: int | None = None


PROVIDER_KINDS: Final[dict[str, ProviderKind]] = {
    "sandbox": ProviderKind(
        frozenset(Channel),
        SandboxCredentials,
        NoConfig,
        receipts=True,
        dedupes=True,
        proof="secret",
        time_to_live_s=120,
    ),
    "smtp": ProviderKind(
        frozenset({Channel.EMAIL}),
        SmtpCredentials,
        SmtpConfig,
        receipts=False,
        dedupes=False,
        proof="password",
        proof_goes_to=("host", "port", "username"),
    ),
    "http": ProviderKind(
        frozenset(Channel),
        HttpCredentials,
        HttpConfig,
        receipts=True,
        dedupes=True,
        proof="secret",
        proof_goes_to=("url",),
    ),
}
KindName = Literal["sandbox", "smtp", "http"]
SANDBOX: Final = "sandbox"


class SandboxState(BaseModel):
    """How a sandbox account is told to misbehave."""

    outage: bool | Literal["timeouts", "slow_ms"] = Field(
        default=False,
        description="true: no connection; timeouts: no answer; slow_ms: answers after `slow_ms`; false: heals.",
    )
    slow_ms: int = Field(default=2000, ge=0, le=10_000)
