"""Values that pass between the workers and the provider adapters: calls, results and reports."""

from dataclasses import dataclass, field
from typing import Any

from policies.fallback_values import FailureClass, Outcome
from spine.notifications.rendering import Content


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One attempt as a provider is called with it. `attempt_id` is sent along, so that a receipt finds its attempt."""

    attempt_id: str
    message_id: str
    workspace_id: str
    channel: str
    to: str
    content: Content
    vars: dict[str, Any]
    env: str
    number: int
    """The number of the attempt within its step, from 1."""
    wait_s: int
    """How long the step waits for success. Sent as the validity if the provider takes one."""


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """The result of a call. `unknown`: bytes were sent and no response came. `raw` holds no secret and no content."""

    outcome: Outcome
    provider_message_id: str | None = None
    failure: FailureClass | None = None
    code: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """One report of a provider about an attempt: a state that it reached, or the person's reply."""

    provider_message_id: str
    status: str
    reported_at: str
    attempt_id: str | None
    text: str | None = None
    code: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)
