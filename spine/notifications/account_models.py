"""The credentials and the config of each kind of provider account (providers.md), and the state of a sandbox account.

Credentials are encrypted and never shown. A credential named `callback_token` is the caller's own: the last part of the
URL that the provider is given for its callbacks, where the provider signs none.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from spine.directory.addresses import ascii_email_address
from spine.kernel.resource import Body

SigningSecret = Annotated[str, StringConstraints(pattern=r"^whsec_[A-Za-z0-9+/]{32,88}={0,2}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Secret = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,2000}$")]
CallbackToken = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{24,128}$")]
ApiUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+[^\s?#/]$", max_length=500)]
PathPart = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
SenderId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 +_&.-]{1,20}$")]
JsonPath = Annotated[str, StringConstraints(pattern=r"^\$(\.[A-Za-z_][A-Za-z0-9_-]*|\[\d{1,4}\])*$", max_length=200)]
MailHeaderAddress = Annotated[
    str, StringConstraints(pattern=r"^[^\s<>]+@[^\s<>]+$", max_length=320), AfterValidator(ascii_email_address)
]
"""An address that a mail server without SMTPUTF8 (RFC 6531) can take, so that every server can."""


class NoConfig(Body):
    """A config without fields."""


class SandboxCredentials(Body):
    """Optional: a secret of the caller's own, to send signed receipts to a sandbox account."""

    secret: SigningSecret | None = None


class HttpCredentials(Body):
    """The URL of the service, and the secret that signs both calls and receipts."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    secret: SigningSecret


class HttpConfig(Body):
    """Where the values are in the response to a call."""

    id: JsonPath = "$.id"
    status: JsonPath | None = None
    error: JsonPath = "$.error"


class SmtpCredentials(Body):
    """The mail server and its login. A login needs TLS."""

    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")]
    port: int = Field(default=587, ge=1, le=65535)
    username: Text | None = None
    password: Text | None = None


class SmtpConfig(Body):
    """The sender, the reply address and the use of TLS. Without TLS there is no login."""

    sender: MailHeaderAddress
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    reply_to: MailHeaderAddress | None = None


class WhatsAppCloudCredentials(Body):
    """A system user's token, the app's secret that signs callbacks, and the token by which Meta proves its set-up call."""

    access_token: Secret
    app_secret: Secret
    verify_token: Secret
    api_url: ApiUrl = "https://graph.facebook.com/v23.0"


class WhatsAppCloudConfig(Body):
    """The sending number, by Meta's id of it."""

    phone_number_id: PathPart


class TwilioCredentials(Body):
    """The account and its token, which also signs callbacks."""

    account_sid: Annotated[str, StringConstraints(pattern=r"^AC[0-9a-fA-F]{32}$")]
    auth_token: Secret
    api_url: ApiUrl = "https://api.twilio.com/2010-04-01"


class TwilioConfig(Body):
    """The sender: a number or name, or a messaging service."""

    sender: SenderId | None = None
    messaging_service_sid: Annotated[str, StringConstraints(pattern=r"^MG[0-9a-fA-F]{32}$")] | None = None

    @model_validator(mode="after")
    def _has_one_sender(self) -> Self:
        if (self.sender is None) == (self.messaging_service_sid is None):
            raise ValueError("give either sender or messaging_service_sid")
        return self


class Msg91Credentials(Body):
    """The key of the account, and the token in the URL of its callbacks, which are not signed."""

    authkey: Secret
    callback_token: CallbackToken
    api_url: ApiUrl = "https://control.msg91.com/api/v5"


class ExotelCredentials(Body):
    """The account, its key and token, and the token in the URL of its callbacks, which are not signed."""

    account_sid: PathPart
    api_key: Secret
    api_token: Secret
    callback_token: CallbackToken
    api_url: ApiUrl = "https://api.in.exotel.com/v1"


class ExotelConfig(Body):
    """The sender of messages whose template has no DLT header."""

    sender: SenderId | None = None


class PostmarkCredentials(Body):
    """The token of the server, and the token in the URL of its callbacks, which are not signed."""

    server_token: Secret
    callback_token: CallbackToken
    api_url: ApiUrl = "https://api.postmarkapp.com"


class PostmarkConfig(Body):
    """The sender, the reply address and the message stream."""

    sender: MailHeaderAddress
    reply_to: MailHeaderAddress | None = None
    message_stream: PathPart = "outbound"


class SandboxState(BaseModel):
    """How a sandbox account is told to misbehave."""

    outage: bool | Literal["timeouts", "slow_ms"] = Field(
        default=False,
        description="true: no connection; timeouts: no answer; slow_ms: answers after `slow_ms`; false: heals.",
    )
    slow_ms: int = Field(default=2000, ge=0, le=10_000)


class RecipientRate(Body):
    """How often the account writes to one person."""

    interval_s: float = Field(ge=0.1, le=30 * 24 * 3600, description="A person gets at most one message in this time,")
    burst: int = Field(default=1, ge=1, le=1_000, description="and up to this many at once after a pause.")
