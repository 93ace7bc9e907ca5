"""Templates are checked when they are created, and rendering has limits."""

from typing import Any

import pytest

from spine.kernel.settings import TemplateSettings
from spine.notifications.rendering import VariableMissing, parse, parse_bodies
from spine.notifications.rendering import render as render_within
from spine.notifications.template_budget import Budget, TooExpensive, Unrenderable

SETTINGS = TemplateSettings()


def render(source: str, variables: dict[str, Any]) -> str:
    """Parse and render with the default budget."""
    return render_within(parse(source), variables, Budget(SETTINGS))


@pytest.mark.parametrize(
    "source",
    [
        "{{ a",
        "{% nope %}",
        "{% include 'x' %}",
        "{% render 'x' %}",
        "{{ a | no_such_filter }}",
        "{% if %}",
        "{% raw %}",
        "{% doc %}",
    ],
)
def test_a_broken_template_is_refused(source: str) -> None:
    """Syntax, tags and filters are checked before anything is stored; file tags do not exist."""
    with pytest.raises(Unrenderable):
        parse(source)


def test_rendering_is_limited() -> None:
    """Loop iterations and output size have limits."""
    with pytest.raises(TooExpensive):
        render("{% for i in (1..1000000) %}{% endfor %}", {})
    with pytest.raises(TooExpensive):
        render("{% for i in (1..9000) %}0123456789012345{% endfor %}", {})


def test_a_missing_variable_is_an_error() -> None:
    """A variable that is used must be given; one that is tested or defaulted may be missing."""
    with pytest.raises(VariableMissing):
        render("Hi {{ name }}", {})
    assert render("Hi{% if name %} {{ name }}{% endif %}", {}) == "Hi"
    assert render("{{ name | default: 'you' }}", {}) == "you"


async def test_html_is_escaped_and_text_is_not() -> None:
    """A variable cannot add HTML; a subject is one line."""
    bodies = {"email": {"subject": "For {{ n }}", "text": "{{ n }}", "html": "<p>{{ n }}</p>"}}
    content = (await parse_bodies(bodies)).content("email", {"n": "<b>\r\nBcc: x"}, SETTINGS)
    assert content.html == "<p>&lt;b&gt;\nBcc: x</p>"
    assert content.text == "<b>\nBcc: x"
    assert content.subject == "For <b> Bcc: x"


def test_a_failing_filter_is_the_templates_error() -> None:
    """Whatever a filter raises for a tenant's arguments is the template's error, not ours."""
    for source in ("{{ a | date: 'x' }}", "{{ list | compact: 'no' }}", "{{ list | uniq: 3 }}", "{{ a | slice: 'x' }}"):
        with pytest.raises(Unrenderable):
            render(source, {"a": 10**15, "list": [[1], [2]]})
