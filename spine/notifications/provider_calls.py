"""Values that pass between the workers and the provider adapters: calls, results and reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from policies.fallback_values import FailureClass, Outcome
from policies.sms_segments import sms_segments
from spine.notifications.rendering import Content

_MAX_UNITS: Final = 10_000


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
    provider_templates: Mapping[str, Any] = field(default_factory=dict)
    """The templates that providers hold for this one, by kind of provider: `spine.notifications.provider_templates`."""
    dlt: Mapping[str, Any] | None = None
    """The template's registration for SMS to India (providers.md 2.3)."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a provider asks for one message: its units, which are the parts of an SMS, and their cost in all."""

    units: int
    cost_micros: int | None = None
    """In millionths of the workspace's currency; None if the account has no price."""


FREE: Final = Charge(1)


def charge(channel: str, text: str, unit_cost_micros: int | None) -> Charge:
    """Return what a message of this text costs over an account with this price."""
    units = min(sms_segments(text).count, _MAX_UNITS) if channel == "sms" else 1
    return Charge(units, units * unit_cost_micros if unit_cost_micros is not None else None)


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
    opt_out: str | None = None
    """The category that the person no longer wants on this channel, by the provider's word; `*` for all of them."""


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """One report of a provider: a state that an attempt reached, a person's reply, or another change that it tells of.

    `provider_message_id` and `reported_at` tell a report from its repetitions. A report finds its attempt by
    `attempt_id`, else by the provider's id, else by `in_reply_to`, else as the newest one of its account to `sender`.
    """

    provider_message_id: str
    status: str
    """`sent`, `delivered`, `read`, `failed`, `replied`, `opted_out`, `number_changed`; others are stored and change nothing."""
    reported_at: str
    attempt_id: str | None
    text: str | None = None
    code: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)
    failure: FailureClass | None = None
    """The class of a reported failure; None means that the person could not be reached."""
    in_reply_to: str | None = None
    """The provider's id of the message that the person replied to."""
    sender: str | None = None
    """The address that a reply came from, normalised."""
    wish: Literal["stop", "start"] | None = None
    """What the provider itself took a reply for. None: the text decides."""
    opt_out: str | None = None
    """As in a result."""
    new_address: str | None = None
    """The address that a person changed to."""


def callback_path(account_id: str, token: str | None = None) -> str:
    """Return the path that a provider calls for an account; with the account's token, where the provider signs nothing."""
    return f"/notifications/v1/inbound/{account_id}" + (f"/{token}" if token is not None else "")
