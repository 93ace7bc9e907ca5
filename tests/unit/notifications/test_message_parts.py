"""Laws of a message's parts: addresses in one form, templates within limits, JSONPath in an HTTP provider's answer."""

import pytest

from policies.fallback_values import Policy, Route, Step
from policies.simulation import ScriptedOutcome, SimulatedWorld, simulate
from spine.directory.addresses import email_address, is_sandbox_address, phone_e164
from spine.notifications.rendering import Unrenderable, VariableMissing, parse, parse_bodies, render
from tests.unit.policies.test_fallback import NOW


@pytest.mark.parametrize(
    "text",
    [
        "+91 98765 43210",
        "098765 43210",
        "9876543210",
        "0091 98765 43210",
        "+91-98765-43210",
        "tel:+919876543210",
        "(+91) 98765.43210",
    ],
)
def test_a_number_has_one_form(text: str) -> None:
    """Any common way of writing a number, at home or abroad, is one number (wire.md, CRM)."""
    assert phone_e164(text) == "+919876543210"


@pytest.mark.parametrize("text", ["+910000000123", "+91 0000 000 123", "00910000000123", "+91-0000-000-123"])
def test_the_sandboxs_numbers_are_taken_as_they_are(text: str) -> None:
    """Numbers that cannot exist are the sandbox's, and keep every zero."""
    assert phone_e164(text) == "+910000000123"
    assert is_sandbox_address("+910000000123")


@pytest.mark.parametrize("text", ["", "hello", "12", "+91 98765 43210 ext. 5", "+999 1234", "1" * 60])
def test_what_is_no_number_is_refused(text: str) -> None:
    """Refused with a reason, never guessed."""
    with pytest.raises(ValueError, match="number"):
        phone_e164(text)


def test_an_address_has_one_form_too() -> None:
    """Case does not make two people of one."""
    assert email_address("Meera@Example.COM") == "meera@example.com"
    assert is_sandbox_address(email_address("bounce@sandbox.test"))
    with pytest.raises(ValueError, match="@"):
        email_address("nobody")


@pytest.mark.parametrize(
    "source", ["{{ a", "{% nope %}", "{% include 'x' %}", "{% render 'x' %}", "{{ a | no_such_filter }}", "{% if %}"]
)
def test_a_broken_template_is_found_when_it_is_made(source: str) -> None:
    """Syntax, tags and filters are checked before anything is stored; there are no files to include."""
    with pytest.raises(Unrenderable):
        parse(source)


def test_a_template_can_neither_run_nor_grow_without_end() -> None:
    """Loops and output are bounded."""
    with pytest.raises(Unrenderable):
        render(parse("{% for i in (1..1000000) %}{% endfor %}"), {})
    with pytest.raises(Unrenderable):
        render(parse("{% for i in (1..9000) %}0123456789012345{% endfor %}"), {})


def test_a_missing_variable_is_an_error_and_an_asked_for_one_is_not() -> None:
    """What is used must be there; what is tested first may be absent."""
    with pytest.raises(VariableMissing):
        render(parse("Hi {{ name }}"), {})
    assert render(parse("Hi{% if name %} {{ name }}{% endif %}"), {}) == "Hi"
    assert render(parse("{{ name | default: 'you' }}"), {}) == "you"


def test_html_is_escaped_and_text_is_not() -> None:
    """What a caller fills in cannot write HTML; a subject has one line."""
    content = parse_bodies({"email": {"subject": "For {{ n }}", "text": "{{ n }}", "html": "<p>{{ n }}</p>"}}).content(
        "email", {"n": "<b>\r\nBcc: x"}
    )
    assert content.html == "<p>&lt;b&gt;\nBcc: x</p>"
    assert content.text == "<b>\nBcc: x"
    assert content.subject == "For <b> Bcc: x"


def test_a_simulation_tells_the_story_of_a_fallback() -> None:
    """WhatsApp is silent, SMS delivers: the trace says so in order, and that both may have arrived."""
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


def test_a_simulated_outage_takes_the_next_account() -> None:
    """With the first account down the second one carries it, after bounded tries."""
    policy = Policy((Step("sms", "delivered", 60),), 3600)
    world = SimulatedWorld({0: [Route("a", True), Route("b", True)]}, frozenset({"a"}))
    lines, outcome, _ = simulate(policy, world, NOW)
    assert [line.account_id for line in lines if line.action == "send"] == ["a", "a", "a", "b"]
    assert outcome == "delivered"
