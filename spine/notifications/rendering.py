"""Render tenants' templates: Liquid within a budget and without files. A missing variable is an error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from liquid import BoundTemplate
from liquid.exceptions import LiquidError, ResourceLimitError, UndefinedError

from spine.kernel.settings import TemplateSettings
from spine.kernel.turns import Turns
from spine.notifications.template_budget import Budget, TooExpensive, Unrenderable
from spine.notifications.template_engine import HTML, PLAIN, evaluate
from spine.notifications.template_source import check_source

_MAX_CACHED: Final = 5_000


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent on one channel. Only an e-mail has a subject; its html is optional."""

    text: str
    subject: str | None = None
    html: str | None = None


class VariableMissing(Exception):
    """A template uses a variable that was not given."""


def parse(source: str, *, html: bool = False) -> BoundTemplate:
    """Parse a template. Raises Unrenderable with the reason, TooExpensive for more code than it may have."""
    check_source(source)
    environment = HTML if html else PLAIN
    try:
        template = environment.from_string(source)
        unknown = set(template.analyze().filters) - set(environment.filters)
    except (LiquidError, RecursionError) as error:
        raise Unrenderable(_reason(error)) from error
    if unknown:
        raise Unrenderable(f"there is no filter named {min(unknown)}")
    return template


def render(template: BoundTemplate, variables: Mapping[str, Any], budget: Budget) -> str:
    """Render a template to text. Raises VariableMissing, Unrenderable, TooExpensive."""
    try:
        return evaluate(template, variables, budget)
    except UndefinedError as error:
        raise VariableMissing(_reason(error)) from error
    except ResourceLimitError as error:
        raise TooExpensive(_reason(error)) from error
    except Unrenderable:
        raise
    except Exception as error:  # a filter raises whatever its arguments make Python raise
        raise Unrenderable(_reason(error)) from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@dataclass(frozen=True, slots=True)
class ParsedTemplate:
    """The parsed bodies of a template, by channel and part (text, subject, html), and what providers need beside them.

    They never change.
    """

    parts: Mapping[str, Mapping[str, BoundTemplate]]
    provider_templates: Mapping[str, Any] = field(default_factory=dict)
    dlt: Mapping[str, Any] | None = None

    def content(self, channel: str, variables: Mapping[str, Any], settings: TemplateSettings) -> Content:
        """Render the body of this channel. Raises KeyError if there is none, VariableMissing, Unrenderable, TooExpensive."""
        budget = Budget(settings)
        rendered = {name: render(template, variables, budget) for name, template in self.parts[channel].items()}
        if "subject" in rendered:
            rendered["subject"] = " ".join(rendered["subject"].split())  # a mail header is one line
        return Content(rendered["text"], rendered.get("subject"), rendered.get("html"))


async def parse_bodies(bodies: Mapping[str, Any]) -> ParsedTemplate:
    """Parse all bodies of a template, with turns for others in between. Raises Unrenderable, TooExpensive."""
    parts: dict[str, dict[str, BoundTemplate]] = {}
    turns = Turns()
    for channel, body in bodies.items():
        parts[channel] = {}
        for name, source in (body if isinstance(body, dict) else {"text": body}).items():
            if source is not None:
                parts[channel][name] = parse(source, html=name == "html")
                await turns.give()
    return ParsedTemplate(parts)


class TemplateCache:
    """A cache of parsed templates by id. It is cleared when it is full (5,000 templates)."""

    def __init__(self) -> None:
        self._parsed: dict[str, ParsedTemplate] = {}

    async def get(self, id: str, row: Mapping[str, Any]) -> ParsedTemplate:
        """Return the template with this id. Parses its row if it is not cached. Raises Unrenderable, TooExpensive."""
        parsed = self._parsed.get(id)
        if parsed is None:
            parts = (await parse_bodies(row["bodies"])).parts
            parsed = ParsedTemplate(parts, row["provider_templates"], row["dlt"])
            if len(self._parsed) >= _MAX_CACHED:
                self._parsed.clear()
            self._parsed[id] = parsed
        return parsed

    def cached(self, id: str) -> ParsedTemplate | None:
        """Return the template with this id if it is cached, else None."""
        return self._parsed.get(id)
