"""Values of a simulation (`policies.simulation`): the imagined world, and the trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from policies.fallback_values import NO_QUOTAS, Quotas, Route

OutcomeKind = Literal[
    "sent", "delivered", "read", "failed", "none", "late", "lost", "rejected", "rate_limited", "timeout", "transient"
]
"""`lost`: delivered, but the receipt does not come; a provider that can be asked says so when it is."""


@dataclass(frozen=True, slots=True)
class ScriptedOutcome:
    """The outcome of all calls on a channel, and the delay of their receipt in seconds; None for the usual delay."""

    kind: OutcomeKind = "delivered"
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class SimulatedWorld:
    """The surroundings of a simulation. Accounts are named by their ids, and times are seconds after the start.

    `down`: their provider does not answer. `open_s`: until when their breaker is open. `recipient_free_s`: when they may
    write to this person. `polls`: their provider can be asked. `blocked`: channels that are not used, and why.
    `sms`: the number and the DLT category of an SMS, which Indian rules forbid at some times.
    """

    routes: Mapping[int, Sequence[Route]]
    down: frozenset[str] = frozenset()
    outcomes: Mapping[str, ScriptedOutcome] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    open_s: Mapping[str, float] = field(default_factory=dict)
    recipient_free_s: Mapping[str, float] = field(default_factory=dict)
    quotas: Quotas = NO_QUOTAS
    polls: frozenset[str] = frozenset()
    sms: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """One entry of a trace. `at_s` is in seconds after the start."""

    at_s: float
    action: Literal["skip", "send", "accepted", "rejected", "unknown", "wait", "poll", "receipt", "done", "fail"]
    step: int | None = None
    channel: str | None = None
    account_id: str | None = None
    reason: str | None = None
    until_s: float | None = None
