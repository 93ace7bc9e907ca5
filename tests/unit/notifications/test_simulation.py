"""A simulation follows the fallback policy."""

from datetime import timedelta
from typing import Any

import pytest

from policies.fallback_values import Policy, Quotas, Route, Step
from policies.simulation import simulate
from policies.simulation_values import ScriptedOutcome, SimulatedWorld
from tests.unit.policies.test_fallback import NOW


def test_a_simulation_shows_a_fallback() -> None:
    """WhatsApp sends no receipt and SMS delivers: the trace shows both in order, and that both may have arrived."""
    policy = Policy((Step("whatsapp", "delivered", 60), Step("sms", "delivered", 60)), 3600)
    world = SimulatedWorld(
        {0: [Route("w", True)], 1: [Route("s", True)]}, outcomes={"whatsapp": ScriptedOutcome("none")}
    )
    lines, outcome, duplicate_possible = simulate(policy, world, NOW)
    assert [line.action for line in lines] == [
        "send",
        "accepted",
        "wait",
        "send",
        "accepted",
        "wait",
        "receipt",
        "done",
    ]
    assert (lines[3].channel, lines[3].at_s) == ("sms", 60)
    assert (outcome, duplicate_possible) == ("delivered", True)


def test_a_simulated_outage_uses_the_next_account() -> None:
    """With the first account down the second one is used, after a limited number of tries."""
    policy = Policy((Step("sms", "delivered", 60),), 3600)
    world = SimulatedWorld({0: [Route("a", True), Route("b", True)]}, frozenset({"a"}))
    lines, outcome, _ = simulate(policy, world, NOW)
    assert [line.account_id for line in lines if line.action == "send"] == ["a", "a", "a", "b"]
    assert outcome == "delivered"


TWO = Policy((Step("whatsapp", "delivered", 60), Step("sms", "delivered", 60)), 3600)
ROUTES = {0: [Route("w", True)], 1: [Route("s", True)]}
NIGHT = NOW + timedelta(hours=6)
"""23:30 in India."""


@pytest.mark.parametrize(
    ("world", "start", "reason"),
    [
        ({"open_s": {"w": 30.0}}, NOW, "circuit_open"),
        ({"recipient_free_s": {"w": 61.0}}, NOW, "recipient_rate"),
        ({"quotas": Quotas(money=frozenset({"whatsapp"}))}, NOW, "quota_exceeded"),
        ({"blocked": {"whatsapp": "opted_out"}}, NOW, "opted_out"),
    ],
)
def test_a_simulation_skips_a_channel_for_the_same_reasons(world: dict[str, Any], start: Any, reason: str) -> None:
    """What skips a channel in reality skips it in the trace, with its name, and the next channel has the message."""
    lines, outcome, _ = simulate(TWO, SimulatedWorld(ROUTES, **world), start)
    assert [(line.action, line.channel, line.reason) for line in lines[:2]] == [
        ("skip", "whatsapp", reason),
        ("send", "sms", "first_choice"),
    ]
    assert outcome == "delivered"


def test_a_simulation_waits_for_its_turn() -> None:
    """A person who has just got a message gets the next one when the rate allows it; a circuit that is alone, when it closes."""
    lines, outcome, _ = simulate(TWO, SimulatedWorld(ROUTES, recipient_free_s={"w": 6.0}), NOW)
    assert [(line.action, line.reason, line.at_s) for line in lines[:2]] == [
        ("wait", "recipient_rate", 0),
        ("send", "first_choice", 6),
    ]
    alone = Policy((Step("sms", "delivered", 60),), 3600)
    lines, _, _ = simulate(alone, SimulatedWorld({0: [Route("s", True)]}, open_s={"s": 90.0}), NOW)
    assert [(line.action, line.at_s) for line in lines[:3]] == [("skip", 0), ("wait", 0), ("send", 90)]
    assert outcome == "delivered"


def test_a_simulated_promotion_is_not_sent_at_night() -> None:
    """Indian rules forbid a promotional SMS at 23:30 IST and permit it at noon; another category is sent at any time."""
    alone, routes = Policy((Step("sms", "delivered", 60),), 3600), {0: [Route("s", True)]}
    closed = simulate(alone, SimulatedWorld(routes, sms=("+919812345678", "promotional")), NIGHT)
    assert [(line.action, line.reason) for line in closed[0]] == [("skip", "window_closed"), ("fail", "exhausted")]
    assert (
        simulate(alone, SimulatedWorld(routes, sms=("+919812345678", "promotional")), NOW - timedelta(hours=4))[1]
        == "delivered"
    )
    assert simulate(alone, SimulatedWorld(routes, sms=("+919812345678", "service_implicit")), NIGHT)[1] == "delivered"


def test_a_simulated_provider_is_asked_before_the_next_channel() -> None:
    """With its receipt lost, a provider that can be asked saves the second message; one that cannot does not."""
    lost = {"whatsapp": ScriptedOutcome("lost")}
    lines, outcome, duplicate_possible = simulate(
        TWO, SimulatedWorld(ROUTES, outcomes=lost, polls=frozenset({"w"})), NOW
    )
    assert [line.action for line in lines] == ["send", "accepted", "wait", "poll", "receipt", "done"]
    assert (outcome, duplicate_possible) == ("delivered", False)
    _, outcome, duplicate_possible = simulate(TWO, SimulatedWorld(ROUTES, outcomes=lost), NOW)
    assert (outcome, duplicate_possible) == ("delivered", True)


def test_a_simulated_quota_of_messages_ends_after_what_was_accepted() -> None:
    """The message's own place is taken; the fallback after an accepted call would be one too many."""
    silent = {"whatsapp": ScriptedOutcome("none")}
    lines, outcome, _ = simulate(TWO, SimulatedWorld(ROUTES, outcomes=silent, quotas=Quotas(messages=True)), NOW)
    assert [line.action for line in lines] == ["send", "accepted", "wait", "skip", "fail"]
    assert (lines[3].reason, outcome) == ("quota_exceeded", "failed")
