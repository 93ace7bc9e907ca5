"""A template has a budget: its text, its steps, its output, each value in between and its time."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine.kernel.settings import TemplateSettings
from spine.notifications import template_budget
from spine.notifications.rendering import VariableMissing, parse, parse_bodies, render
from spine.notifications.template_budget import MAX_CHARS, MAX_ELEMENTS, Budget, TooExpensive, Unrenderable, check_size

SETTINGS = TemplateSettings(template_max_ms=1000)
"""The steps decide here, however slow the machine is."""
ROWS = [{"name": f"n{i}", "price": i} for i in range(3000)]
VARIABLES: dict[str, Any] = {
    "rows": ROWS,
    "few": ROWS[:100],
    "text": "a" * 29_000,
    "rare": "b" + "a" * 97,
    "spaces": "a " * 20_000,
    "tags": "<!--" * 4_000,
    "entities": "&lt" * 15_000,
    "empties": [""] * 9_000,
}

HOSTILE = {
    "a range that is joined": "{{ (1..30000000) | join: '' | size }}",
    "a range that is measured": "{{ (1..300000000000000000000000000000) | size }}",
    "a range whose end is sliced": "{{ (1..3000000000) | slice: -5, 3 }}",
    "nine chained replaces": "{% assign a = 'aaaaaaaaaa' %}{{ a" + " | replace: 'a', 'aaaaaaaaaa'" * 9 + " | size }}",
    "a replace of nothing": "{{ text | replace: '', 'aaaaaaaaaa' }}",
    "nested loops": "{% for a in rows %}{% for b in rows %}{% endfor %}{% endfor %}",
    "nested loops that end early": "{% for a in rows %}{% for b in rows limit: 3 %}{{ b.name }}{% endfor %}{% endfor %}",
    "a loop from far on": "{% for a in (1..30000000) offset: 29999990 %}{% endfor %}",
    "a table": "{% tablerow a in (1..9000) %}{% endtablerow %}",
    "a long block": "{% for a in (1..9000) %}" + "{% if a %}{% endif %}" * 50 + "{% endfor %}",
    "many names": "{% for a in (1..5000) %}" + "".join(f"{{% assign a{i} = 1 %}}" for i in range(200)) + "{% endfor %}",
    "a text that doubles": "{% assign x = 'ab' %}{% for a in (1..99) %}{% assign x = x | append: x %}{% endfor %}",
    "a list that doubles": "{% assign x = rows %}{% for a in (1..99) %}{% assign x = x | concat: x %}{% endfor %}",
    "a number that squares": "{% assign x = 3 %}{% for a in (1..99) %}{% assign x = x | times: x %}{% endfor %}",
    "a long separator": "{{ rows | join: text }}",
    "a split into characters": "{{ text | split: '' | size }}",
    "captures": "{% for a in (1..5000) %}{% capture x %}{{ text }}{% endcapture %}{% endfor %}",
    "texts that are compared": "{% for a in (1..5000) %}{% ifchanged %}{{ text }}{% endifchanged %}{% endfor %}",
    "searches": "{% for a in (1..5000) %}{% if text contains rare %}{% endif %}{% endfor %}",
    "a search in a range": "{% if (1..99999999) contains 'x' %}{% endif %}",
    "a search in a range in a loop": "{% for a in rows %}{% unless a and (1..9999) contains 'x' %}{% endunless %}{% endfor %}",
    "a search in a block": "{% case 1 %}{% when 1 %}{% if nil %}{% elsif (1..9999999) contains 1.5 %}{% endif %}{% endcase %}",
    "searches from the end": "{% for a in (1..5000) %}{% assign x = text | remove_last: rare %}{% endfor %}",
    "unique rows": "{{ rows | uniq | size }}",
    "unique rows again and again": "{% for a in (1..5000) %}{% assign x = few | uniq %}{% endfor %}",
    "sorted rows": "{% for a in (1..5000) %}{% assign x = rows | sort_natural: 'name' %}{% endfor %}",
    "dates": "{% for a in (1..5000) %}{% assign x = a | append: ' May 2024' | date: '%c%c%c%c%c%c%c' %}{% endfor %}",
    "a long date": "{{ text | date: '%Y' }}",
    "a long date format": "{{ 'now' | date: text }}",
    "tags that do not end": "{{ tags | strip_html }}",
    "entities": "{% for a in (1..5000) %}{% assign x = entities | escape_once %}{% endfor %}",
    "escapes": "{% for a in (1..5000) %}{% assign x = text | url_encode %}{% endfor %}",
    "words": "{% for a in (1..5000) %}{% assign x = spaces | truncatewords: 30000 %}{% endfor %}",
    "lists that print nothing": "{% for a in (1..5000) %}{{ empties }}{% endfor %}",
    "an endless output": "{% for a in (1..9000) %}0123456789012345{% endfor %}",
}

HOSTILE_SOURCES = {
    "openings without end": "{{" * 9_000,
    "tags without end": "{%" * 9_000,
    "openings in an opening": "{{" * 4_000 + "}}",
    "raw without end": "{% raw %}" * 2_000,
    "doc without end": "{% doc %}" * 2_000,
    "spaces in an output": "{{" + " " * 19_000 + "}}",
    "spaces in a tag": "{%" + " " * 19_000 + "raw %}{% endraw %}",
    "brackets": "{{ a: " + "(" * 5_000 + " }}",
    "quotes in brackets": "{{ a" + "['" * 2_500 + " }}",
    "thousands of outputs": "{{ a }}" * 2_800,
    "thousands of filters": "{{ a" + " | size" * 2_700 + " }}",
    "thousands of arguments": "{{ a | default: " + "1," * 9_000 + "1 }}",
    "thousands of lines": "{% liquid\n" + "echo a\n" * 2_700 + "%}",
}


@pytest.mark.parametrize("html", [False, True], ids=["text", "html"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_at_its_budget(name: str, html: bool) -> None:
    """It is refused as too expensive, and holds less than 8 MB on the way: today's worst took 2.3 GB."""
    template = parse(HOSTILE[name], html=html)
    tracemalloc.start()
    try:
        with pytest.raises(TooExpensive):
            render(template, VARIABLES, Budget(SETTINGS))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE_SOURCES)
def test_a_hostile_source_is_not_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before python-liquid's regular expressions see it: 9,000 openings took them 16 s."""
    monkeypatch.setattr("spine.notifications.rendering.PLAIN", None)
    with pytest.raises(Unrenderable):
        parse(HOSTILE_SOURCES[name])


def test_time_ends_what_steps_do_not() -> None:
    """On a machine where a step takes longer than it should, the time is the bound."""
    patient = TemplateSettings(template_max_steps=1_000_000, template_max_ms=5)
    template = parse("{% for a in rows %}{% for b in few %}{{ b.name | size | size | size }}{% endfor %}{% endfor %}")
    budget = Budget(patient)
    with pytest.raises(TooExpensive, match="5 ms"):
        render(template, {"rows": ROWS[:90], "few": ROWS[:90]}, budget)
    assert budget.left > 0


def test_an_ordinary_template_fits_many_times() -> None:
    """An order of 100 lines takes less than a third of the budget, and its text is what it was."""
    source = (
        "Dear {{ name | upcase }},\n{% for line in lines %}{{ forloop.index }}. {{ line.title | truncate: 40 }}: "
        "{{ line.price | times: line.count | round: 2 }}\n{% endfor %}{% if total > 100 %}Thank you!{% endif %}"
    )
    lines = [{"title": f"Article {i}", "price": 2.5, "count": i} for i in range(100)]
    budget = Budget(SETTINGS)
    text = render(parse(source), {"name": "Meera", "lines": lines, "total": 500}, budget)
    assert text.startswith("Dear MEERA,\n1. Article 0: 0.0\n2. Article 1: 2.5\n")
    assert text.endswith("Thank you!")
    assert budget.left > SETTINGS.template_max_steps * 2 // 3


def test_a_loop_over_a_huge_range_pays_for_what_it_visits() -> None:
    """A limit makes it cheap, also from the end."""
    budget = Budget(SETTINGS)
    assert render(parse("{% for i in (1..30000000) limit: 3 %}{{ i }}{% endfor %}"), {}, budget) == "123"
    assert render(parse("{% for i in (1..30000000) reversed limit: 2 %}{{ i }}{% endfor %}"), {}, budget) == "21"
    assert budget.left > SETTINGS.template_max_steps - 100


async def test_the_parts_of_an_email_share_one_budget() -> None:
    """Subject, text and html are rendered in one go, so their steps are counted together."""
    third = "{% for i in (1..9000) %}{% endfor %}"
    (await parse_bodies({"email": {"subject": "s", "text": third}})).content("email", {}, SETTINGS)
    with pytest.raises(TooExpensive):
        (await parse_bodies({"email": {"subject": "s", "text": third, "html": third}})).content("email", {}, SETTINGS)


NAMES = st.sampled_from(["rows", "few", "text", "spaces", "empties", "x", "i", "(1..9)", "(1..99999999)", "'ab'", "7"])
FILTERS = st.sampled_from(
    [
        "append: x", "append: text", "prepend: spaces", "replace: 'a', text", "replace: '', 'ab'", "remove: 'a'",
        "split: ''", "split: ' '", "join: text", "join", "concat: rows", "map: 'name'", "sort", "sort_natural", "uniq",
        "reverse", "where: 'price', 3", "times: 99999999", "times: x", "plus: i", "size", "first", "last", "slice: 2, 900",
        "escape", "url_encode", "strip_html", "truncatewords: 999", "date: '%c'", "default: rows", "escapejs", "sum",
    ]
)  # fmt: skip
EXPRESSIONS = st.tuples(NAMES, st.lists(FILTERS, max_size=6)).map(lambda one: " | ".join([one[0], *one[1]]))
LEAVES = st.one_of(
    EXPRESSIONS.map(lambda one: f"{{{{ {one} }}}}"),
    EXPRESSIONS.map(lambda one: f"{{% assign x = {one} %}}"),
    st.sampled_from(["text ", "{% cycle 'a', 'b' %}", "{% increment n %}", "{% break %}", "{% continue %}"]),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(NAMES, inner).map(lambda one: f"{{% for i in {one[0]} %}}{one[1]}{{% endfor %}}"),
        st.tuples(NAMES, inner).map(lambda one: f"{{% tablerow i in {one[0]} %}}{one[1]}{{% endtablerow %}}"),
        st.tuples(NAMES, inner).map(lambda one: f"{{% if {one[0]} contains x %}}{one[1]}{{% endif %}}"),
        inner.map(lambda one: f"{{% capture x %}}{one}{{% endcapture %}}"),
        inner.map(lambda one: f"{{% ifchanged %}}{one}{{% endifchanged %}}"),
        st.lists(inner, min_size=2, max_size=4).map("".join),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("html", [False, True], ids=["text", "html"])
@given(source=NODES)
@settings(max_examples=15, deadline=None)
def test_every_nest_of_loops_and_filters_ends_within_its_budget(html: bool, source: str) -> None:
    """It renders, or is refused; no value that a filter was given or returned was larger than one may be."""
    seen: list[Any] = []
    original = template_budget.check_size

    def check(value: Any) -> None:
        original(value)
        seen.append(value)

    budget = Budget(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spine.notifications.template_filters.check_size", check)
        try:
            template = parse("{% assign x = 'x' %}{% assign i = 1 %}" + source, html=html)
            assert len(render(template, VARIABLES, budget).encode()) <= MAX_CHARS
            assert budget.left >= 0
        except (Unrenderable, VariableMissing):
            pass
    assert all(len(value) <= MAX_CHARS for value in seen if isinstance(value, str))
    assert all(len(value) <= MAX_ELEMENTS for value in seen if isinstance(value, list))


def test_the_size_of_a_value_has_a_bound() -> None:
    """Texts, lists, ranges and numbers, at their largest and one beyond."""
    for fits, too_large in (
        ("a" * 100_000, "a" * 100_001),
        ([0] * 10_000, [0] * 10_001),
        (range(10_000), range(10_001)),
        (2**2048 - 1, 2**2048),
    ):
        check_size(fits)
        with pytest.raises(TooExpensive):
            check_size(too_large)
