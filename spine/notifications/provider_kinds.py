"""Channels, and the kinds of provider accounts with their abilities. Adapters are in `providers`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from spine.kernel.resource import Body
from spine.notifications import account_models as models


class Channel(StrEnum):
    """Ways to a person."""

    WHATSAPP = "whatsapp"
    SMS = "sms"
    EMAIL = "email"


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """A kind of provider.

    `receipts`: it reports deliveries. `replies`: it passes on what people answer. `polls`: it can be asked what became of
    a message. `dedupes`: repeated calls with one attempt id count once. `time_to_live_s`: how long the provider itself may
    go on trying, if known; a shorter wait may cause duplicates. `proof`: the credential that proves who calls;
    `proof_goes_to`: the credentials that say where and as whom it is used; `target`: the one that is called.
    """

    channels: frozenset[Channel]
    credentials: type[Body]
    config: type[Body]
    receipts: bool
    dedupes: bool
    proof: str
    proof_goes_to: tuple[str, ...] = ()
    target: str | None = None
    time_to_live_s: int | None = None
    replies: bool = False
    polls: bool = False


_SMS: Final = frozenset({Channel.SMS})
_EMAIL: Final = frozenset({Channel.EMAIL})

PROVIDER_KINDS: Final[dict[str, ProviderKind]] = {
    "sandbox": ProviderKind(
        frozenset(Channel),
        models.SandboxCredentials,
        models.NoConfig,
        receipts=True,
        dedupes=True,
        proof="secret",
        time_to_live_s=120,
        replies=True,
    ),
    "smtp": ProviderKind(
        _EMAIL,
        models.SmtpCredentials,
        models.SmtpConfig,
        receipts=False,
        dedupes=False,
        proof="password",
        proof_goes_to=("host", "port", "username"),
        target="host",
    ),
    "http": ProviderKind(
        frozenset(Channel),
        models.HttpCredentials,
        models.HttpConfig,
        receipts=True,
        dedupes=True,
        proof="secret",
        proof_goes_to=("url",),
        target="url",
        replies=True,
    ),
    "whatsapp_cloud": ProviderKind(
        frozenset({Channel.WHATSAPP}),
        models.WhatsAppCloudCredentials,
        models.WhatsAppCloudConfig,
        receipts=True,
        dedupes=False,
        proof="access_token",
        proof_goes_to=("api_url",),
        target="api_url",
        time_to_live_s=30 * 24 * 3600,
        replies=True,
    ),
    "twilio": ProviderKind(
        _SMS,
        models.TwilioCredentials,
        models.TwilioConfig,
        receipts=True,
        dedupes=False,
        proof="auth_token",
        proof_goes_to=("api_url", "account_sid"),
        target="api_url",
        replies=True,
        polls=True,
    ),
    "msg91": ProviderKind(
        _SMS,
        models.Msg91Credentials,
        models.NoConfig,
        receipts=True,
        dedupes=False,
        proof="authkey",
        proof_goes_to=("api_url",),
        target="api_url",
    ),
    "exotel": ProviderKind(
        _SMS,
        models.ExotelCredentials,
        models.ExotelConfig,
        receipts=True,
        dedupes=False,
        proof="api_token",
        proof_goes_to=("api_url", "account_sid", "api_key"),
        target="api_url",
        polls=True,
    ),
    "postmark": ProviderKind(
        _EMAIL,
        models.PostmarkCredentials,
        models.PostmarkConfig,
        receipts=True,
        dedupes=False,
        proof="server_token",
        proof_goes_to=("api_url",),
        target="api_url",
    ),
}
KindName = Literal["sandbox", "smtp", "http", "whatsapp_cloud", "twilio", "msg91", "exotel", "postmark"]
SANDBOX: Final = "sandbox"
