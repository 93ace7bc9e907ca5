"""A provider call before it is made, and its result."""

from dataclasses import dataclass

from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.locked_messages import MessageKey
from spine.notifications.provider_calls import FREE, Charge, ProviderCall, ProviderResult


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """The call of a committed attempt. `provider` is the kind of the provider account."""

    key: MessageKey
    account: ProviderAccount | None
    call: ProviderCall | None
    attempt_id: str
    account_id: str
    provider: str
    live: bool
    lease_ends_s: float
    """When the lease of the message ends, on the monotonic clock."""
    rejection: ProviderResult | None
    """The result of an attempt that cannot be called: credentials or template are unusable."""
    generation: int
    """The generation of the account's breaker under which the call starts."""
    charge: Charge = FREE
    """What the provider asks for the message if it takes it."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call and its duration."""

    prepared: PreparedCall
    result: ProviderResult
    duration_s: float
