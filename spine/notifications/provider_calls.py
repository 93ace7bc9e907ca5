"""What goes to a provider and what comes back: the values between deciding, the adapters and the record."""

from dataclasses import dataclass, field
from typing import Any

from policies.fallback_values import FailureClass, Outcome
from spine.notifications.rendering import Content


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One attempt on its way to one provider. `attempt_id` goes with it, so that a receipt finds its attempt."""

    attempt_id: str
    message_id: str
    workspace_id: str
    channel: str
    to: str
    content: Content
    vars: dict[str, Any]
    env: str
    number: int
    """Which try within its step, from 1."""
    wait_s: int
    """How long success is waited for: the validity, where a provider takes one."""


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """What a provider said. `unknown`: bytes left, and no answer came. `raw` holds no secret and no content."""

    outcome: Outcome
    provider_message_id: str | None = None
    failure: FailureClass | None = None
    code: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """One thing that a provider reports of a message: a state it has reached, or what the person answered."""

    provider_message_id: str
    status: str
    reported_at: str
    attempt_id: str | None
    text: str | None = None
    code: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)
