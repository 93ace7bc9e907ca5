"""Render tenants' templates: Liquid with strict limits and without files. A missing variable is an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from liquid import BoundTemplate, Environment, FalsyStrictUndefined
from liquid.exceptions import LiquidError, UndefinedError

MAX_OUTPUT_BYTES: Final = 100_000
_MAX_CACHED: Final = 5_000
_FILE_TAGS: Final = ("include", "render")


class _LimitedEnvironment(Environment):
    loop_iteration_limit: ClassVar[int] = 10_000
    output_stream_limit: ClassVar[int] = MAX_OUTPUT_BYTES
    local_namespace_limit: ClassVar[int] = 100_000
    context_depth_limit: ClassVar[int] = 20


def _environment(autoescape: bool) -> Environment:
    environment = _LimitedEnvironment(undefined=FalsyStrictUndefined, autoescape=autoescape)
    for tag in _FILE_TAGS:
        environment.tags.pop(tag)
    return environment


_PLAIN: Final = _environment(autoescape=False)
_HTML: Final = _environment(autoescape=True)


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent on one channel. Only an e-mail has a subject; its html is optional."""

    text: str
    subject: str | None = None
    html: str | None = None


class VariableMissing(Exception):
    """A template uses a variable that was not given."""


class Unrenderable(Exception):
    """A template cannot be parsed or rendered, or exceeds a limit."""


def parse(source: str, *, html: bool = False) -> BoundTemplate:
    """Parse a template. Raises Unrenderable with the reason."""
    environment = _HTML if html else _PLAIN
    try:
        template = environment.from_string(source)
        unknown = set(template.analyze().filters) - set(environment.filters)
    except (LiquidError, RecursionError) as error:
        raise Unrenderable(_reason(error)) from error
    if unknown:
        raise Unrenderable(f"there is no filter named {min(unknown)}")
    return template


def render(template: BoundTemplate, variables: Mapping[str, Any]) -> str:
    """Render a template to text. Raises VariableMissing, Unrenderable."""
    try:
        return template.render(**dict(variables))
    except UndefinedError as error:
        raise VariableMissing(_reason(error)) from error
    except (LiquidError, RecursionError, TypeError, ValueError, ArithmeticError) as error:
        raise Unrenderable(_reason(error)) from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True, slots=True)
class ParsedTemplate:
    """The parsed bodies of a template, by channel and part (text, subject, html). They never change."""

    parts: Mapping[str, Mapping[str, BoundTemplate]]

    def content(self, channel: str, variables: Mapping[str, Any]) -> Content:
        """Render the body of this channel. Raises KeyError if there is none, VariableMissing, Unrenderable."""
        parts = self.parts[channel]
        rendered = {name: render(template, variables) for name, template in parts.items()}
        if "subject" in rendered:
            rendered["subject"] = " ".join(rendered["subject"].split())  # a mail header is one line
        return Content(rendered["text"], rendered.get("subject"), rendered.get("html"))


def parse_bodies(bodies: Mapping[str, Any]) -> ParsedTemplate:
    """Parse all bodies of a template. Raises Unrenderable."""
    parts: dict[str, dict[str, BoundTemplate]] = {}
    for channel, body in bodies.items():
        sources = body if isinstance(body, dict) else {"text": body}
        parts[channel] = {
            name: parse(source, html=name == "html") for name, source in sources.items() if source is not None
        }
    return ParsedTemplate(parts)


class TemplateCache:
    """A cache of parsed templates by id. It is cleared when it is full (5,000 templates)."""

    def __init__(self) -> None:
        self._parsed: dict[str, ParsedTemplate] = {}

    def get(self, id: str, bodies: Mapping[str, Any]) -> ParsedTemplate:
        """Return the template with this id. Parses `bodies` if it is not cached. Raises Unrenderable."""
        parsed = self._parsed.get(id)
        if parsed is None:
            if len(self._parsed) >= _MAX_CACHED:
                self._parsed.clear()
            parsed = self._parsed[id] = parse_bodies(bodies)
        return parsed

    def cached(self, id: str) -> ParsedTemplate | None:
        """Return the template with this id if it is cached, else None."""
        return self._parsed.get(id)
