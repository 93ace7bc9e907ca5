"""Rendering tenants' templates: liquid with strict limits, no files, no surprises; a variable that is missing is an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from liquid import BoundTemplate, Environment, FalsyStrictUndefined
from liquid.exceptions import LiquidError, UndefinedError

MAX_OUTPUT_BYTES: Final = 100_000
_KEPT: Final = 5_000
_NO_FILES: Final = ("include", "render")


class _Limited(Environment):
    loop_iteration_limit: ClassVar[int] = 10_000
    output_stream_limit: ClassVar[int] = MAX_OUTPUT_BYTES
    local_namespace_limit: ClassVar[int] = 100_000
    context_depth_limit: ClassVar[int] = 20


def _environment(autoescape: bool) -> Environment:
    made = _Limited(undefined=FalsyStrictUndefined, autoescape=autoescape)
    for tag in _NO_FILES:
        made.tags.pop(tag)
    return made


_PLAIN: Final = _environment(autoescape=False)
_HTML: Final = _environment(autoescape=True)


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent on one channel. Only e-mail has a subject, and perhaps html."""

    text: str
    subject: str | None = None
    html: str | None = None


class VariableMissing(Exception):
    """A template uses a variable that was not given."""


class Unrenderable(Exception):
    """A template cannot be parsed, or breaks a limit."""


def parse(source: str, *, html: bool = False) -> BoundTemplate:
    """The parsed template. Raises Unrenderable with the reason."""
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
    """The text. Raises VariableMissing, Unrenderable."""
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
    """A template's bodies, parsed once: they never change."""

    parts: Mapping[str, Mapping[str, BoundTemplate]]

    def content(self, channel: str, variables: Mapping[str, Any]) -> Content:
        """What goes out on this channel. KeyError where the template has no body for it."""
        parts = self.parts[channel]
        rendered = {name: render(template, variables) for name, template in parts.items()}
        if "subject" in rendered:
            rendered["subject"] = " ".join(rendered["subject"].split())  # a header has one line
        return Content(rendered["text"], rendered.get("subject"), rendered.get("html"))


def parse_bodies(bodies: Mapping[str, Any]) -> ParsedTemplate:
    """All bodies of a template. Raises Unrenderable."""
    parts: dict[str, dict[str, BoundTemplate]] = {}
    for channel, body in bodies.items():
        sources = body if isinstance(body, dict) else {"text": body}
        parts[channel] = {
            name: parse(source, html=name == "html") for name, source in sources.items() if source is not None
        }
    return ParsedTemplate(parts)


class Templates:
    """Parsed templates by id, as far as this process has met them."""

    def __init__(self) -> None:
        self._known: dict[str, ParsedTemplate] = {}

    def get(self, id: str, bodies: Mapping[str, Any]) -> ParsedTemplate:
        """The template with this id; `bodies` are parsed at the first meeting."""
        known = self._known.get(id)
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[id] = parse_bodies(bodies)
        return known

    def known(self, id: str) -> ParsedTemplate | None:
        """The template where it was met before."""
        return self._known.get(id)
