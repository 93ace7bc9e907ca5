"""Templates are checked when they are created, and rendering has limits."""

import pytest

from spine.notifications.rendering import Unrenderable, VariableMissing, parse, parse_bodies, render


@pytest.mark.parametrize(
    "source", ["{{ a", "{% nope %}", "{% include 'x' %}", "{% render 'x' %}", "{{ a | no_such_filter }}", "{% if %}"]
)
def test_a_broken_template_is_refused(source: str) -> None:
    """Syntax, tags and filters are checked before anything is stored; file tags do not exist."""
    with pytest.raises(Unrenderable):
        parse(source)


def test_rendering_is_limited() -> None:
    """Loop iterations and output size have limits."""
    with pytest.raises(Unrenderable):
        render(parse("{% for i in (1..1000000) %}{% endfor %}"), {})
    with pytest.raises(Unrenderable):
        render(parse("{% for i in (1..9000) %}0123456789012345{% endfor %}"), {})


def test_a_missing_variable_is_an_error() -> None:
    """A variable that is used must be given; one that is tested or defaulted may be missing."""
    with pytest.raises(VariableMissing):
        render(parse("Hi {{ name }}"), {})
    assert render(parse("Hi{% if name %} {{ name }}{% endif %}"), {}) == "Hi"
    assert render(parse("{{ name | default: 'you' }}"), {}) == "you"


def test_html_is_escaped_and_text_is_not() -> None:
    """A variable cannot add HTML; a subject is one line."""
    content = parse_bodies({"email": {"subject": "For {{ n }}", "text": "{{ n }}", "html": "<p>{{ n }}</p>"}}).content(
        "email", {"n": "<b>\r\nBcc: x"}
    )
    assert content.html == "<p>&lt;b&gt;\nBcc: x</p>"
    assert content.text == "<b>\nBcc: x"
    assert content.subject == "For <b> Bcc: x"
