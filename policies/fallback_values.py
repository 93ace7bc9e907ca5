"""Values that the fallback decision (`policies.fallback`) reads and returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from policies.receipts import State
from policies.windows import QuietHours

Success = Literal["sent", "delivered"]
Outcome = Literal["accepted", "rejected", "unknown"]
FailureClass = Literal[
    "connect", "transient", "timeout", "rate", "recipient_rate", "recipient", "policy", "content", "config", "ours"
]
"""Why a call failed (notifications.md, the table of classes). `recipient_rate`: too much to this person, by this sender."""


@dataclass(frozen=True, slots=True)
class Step:
    """One channel of a policy. Steps are taken in order."""

    channel: str
    success: Success
    wait_s: int
    providers: tuple[str, ...] = ()
    """Accounts by id, name or kind, in order of preference. Empty means all accounts of the channel."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The delivery strategy of one message."""

    steps: tuple[Step, ...]
    deadline_s: int
    quiet: QuietHours | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to a provider, with the fields that the decision needs. `step` counts from 0, `number` from 1 per step."""

    step: int
    number: int
    channel: str
    account_id: str
    receipts: bool
    state: State
    outcome: Outcome | None
    failure: str | None
    """The failure class of a rejection."""
    wait_until: datetime | None
    retry_at: datetime | None
    may_poll: bool = False
    """True if its provider can be asked what became of it, and has not been asked."""


@dataclass(frozen=True, slots=True)
class Route:
    """An account of a channel that may be used. `receipts` is true if its provider reports deliveries."""

    account_id: str
    receipts: bool


@dataclass(frozen=True, slots=True)
class Breakers:
    """Open circuit breakers: accounts that must not be called, and until when."""

    open_until: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quotas:
    """Quotas that are used up. `messages`: a message that a provider has accepted once takes no further step.

    `money`: the channels whose accounts all cost money that is spent.
    """

    messages: bool = False
    money: frozenset[str] = frozenset()


ALL_CLOSED: Final = Breakers()
NO_QUOTAS: Final = Quotas()


@dataclass(frozen=True, slots=True)
class World:
    """The surroundings of a decision: the routes of each step in order, and the reason for each blocked channel."""

    routes: Mapping[int, Sequence[Route]]
    blocked: Mapping[str, str] = field(default_factory=dict)
    deadline_at: datetime | None = None
    held_until: datetime | None = None
    """The end of the quiet hours that the message has already waited for."""
    recipient_free_at: Mapping[str, datetime] = field(default_factory=dict)
    """By account with a rate to one person: when it may send this message to this person (`policies.recipient_rate`)."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A step that is skipped, and the reason. `wait` is the wait for the end of the reason, if that has a time."""

    step: int
    channel: str
    reason: str
    wait: "Wait | None" = None


@dataclass(frozen=True, slots=True)
class Send:
    """Decision: call this account now."""

    step: int
    number: int
    channel: str
    route: Route
    why: str
    duplicate_possible: bool
    """True if an earlier attempt may still reach the person."""
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Decision: do nothing before this time, unless a receipt arrives. `account_id`: for which account, if it is for one."""

    until: datetime
    why: str
    skipped: tuple[Skip, ...] = ()
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """Decision: ask the provider of the last attempt, once, what became of it. Its receipt may be lost."""

    step: int
    account_id: str
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Fail:
    """Decision: the message fails because no step is left."""

    why: str
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """Decision: the message has reached the success that its policy defines."""


Decision = Send | Wait | Poll | Fail | Done
