"""A simulation follows the fallback policy."""

from policies.fallback_values import Policy, Route, Step
from policies.simulation import ScriptedOutcome, SimulatedWorld, simulate
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
