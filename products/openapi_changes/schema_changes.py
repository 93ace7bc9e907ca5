"""Changes of a schema that break a caller: requests must not be narrowed, responses must not be widened.

Both are one rule. Every value that the one side may send must be understood by the other: what an old client sends is
read by the new server, what the new server sends is read by an old client. So a schema of the writer is compared with a
schema of the reader, and only the names in the messages depend on the direction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from products.openapi_changes.schema_shapes import Choice, Schema, Shape, choice_of

_UPPER: Final = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_LOWER: Final = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_MAX_DEPTH: Final = 12
"""Schemas that contain themselves are compared to this depth."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison: the components of the old and the new document, and who writes what is described."""

    old_components: Schema
    new_components: Schema
    request: bool
    """True for what clients send, false for what the server sends."""

    def changes(self, old: Schema | bool, new: Schema | bool, place: str, depth: int = 0) -> Iterator[str]:
        """Yield each breaking change between two schemas, with its place."""
        if depth > _MAX_DEPTH or (old == new and self._same_references(old)):
            return
        before, after = choice_of(old, self.old_components), choice_of(new, self.new_components)
        writer, reader = (before, after) if self.request else (after, before)
        if writer.nullable and not reader.nullable:
            yield f"{place}: null {'is no longer accepted' if self.request else 'is new'}"
        if self.request:
            yield from self._default_change(old, new, place)
        for shape in writer.shapes:
            yield from self._best(shape, reader, place, depth)

    def _same_references(self, schema: Any) -> bool:
        """True if equal schemas mean the same: no component below them differs."""
        return "$ref" not in str(schema) or self.old_components == self.new_components

    def _default_change(self, old: Schema | bool, new: Schema | bool, place: str) -> Iterator[str]:
        before = old.get("default") if isinstance(old, dict) else None
        after = new.get("default") if isinstance(new, dict) else None
        if isinstance(before, dict) and isinstance(after, dict):
            after = {name: value for name, value in after.items() if name in before}  # a new field has its own default
        if before is not None and before != after:
            yield f"{place}: the default was {before!r}, is {after!r}"

    def _best(self, shape: Shape, reader: Choice, place: str, depth: int) -> Iterator[str]:
        """The changes against the alternative of the reader that fits best."""
        found = [list(self._shape_changes(shape, other, place, depth)) for other in reader.shapes]
        if found:
            yield from min(found, key=len)
        else:
            yield f"{place}: an alternative {'is gone' if self.request else 'is new'}"

    def _shape_changes(self, writer: Shape, reader: Shape, place: str, depth: int) -> Iterator[str]:
        yield from self._type_changes(writer, reader, place)
        yield from self._keyword_changes(writer, reader, place)
        yield from self._property_changes(writer, reader, place, depth)
        for name in ("items", "propertyNames", "additionalProperties"):
            written, read = writer.parts.get(name, True), reader.parts.get(name, True)
            if name == "additionalProperties" and read is False:
                if written is not False and self.request:
                    yield f"{place}: further fields are no longer accepted"
                continue
            if name in writer.parts or name in reader.parts:
                old, new = (written, read) if self.request else (read, written)
                yield from self.changes(old, new, f"{place}{'[]' if name == 'items' else '.*'}", depth + 1)

    def _type_changes(self, writer: Shape, reader: Shape, place: str) -> Iterator[str]:
        if reader.types is not None:
            accepted = reader.types | ({"integer"} if "number" in reader.types else set())
            extra = None if writer.types is None else writer.types - accepted
            if extra is None or extra:
                yield f"{place}: type {_listed(writer.types)} where {_listed(reader.types)} is read"
        if reader.values is not None:
            unread = None if writer.values is None else writer.values - reader.values
            if unread is None or unread:
                what = "no longer accepted" if self.request else "new"
                yield f"{place}: values {'of any kind' if unread is None else _listed(unread)} {_are(unread)} {what}"

    def _keyword_changes(self, writer: Shape, reader: Shape, place: str) -> Iterator[str]:
        ignored = {"default"}
        if writer.values is not None:
            ignored |= _UPPER | _LOWER | {"pattern", "format"}  # listed values are compared as such
        for key in sorted((writer.keywords.keys() | reader.keywords.keys()) - ignored):
            written, read = writer.keywords.get(key), reader.keywords.get(key)
            if written == read or read is None or (read == 0 and key in _LOWER - {"minimum", "exclusiveMinimum"}):
                continue
            if written is not None and key in _UPPER and written <= read:
                continue
            if written is not None and key in _LOWER and written >= read:
                continue
            old, new = (written, read) if self.request else (read, written)
            yield f"{place}: {key} was {old!r}, is {new!r}"

    def _property_changes(self, writer: Shape, reader: Shape, place: str, depth: int) -> Iterator[str]:
        for name in sorted(reader.required - writer.required):
            if name in writer.properties or name in reader.properties:
                yield f"{place}.{name}: {_required_text(self.request, name in writer.properties)}"
        for name in sorted(writer.properties.keys() - reader.properties.keys()):
            if self.request:
                yield f"{place}.{name}: the field is gone"
        for name in sorted(reader.properties.keys() - writer.properties.keys() - reader.required):
            if not self.request:
                yield f"{place}.{name}: the field is gone"
        for name in sorted(writer.properties.keys() & reader.properties.keys()):
            written, read = writer.properties[name], reader.properties[name]
            old, new = (written, read) if self.request else (read, written)
            yield from self.changes(old, new, f"{place}.{name}", depth + 1)


def _required_text(request: bool, known_to_writer: bool) -> str:
    if request:
        return "the field became required" if known_to_writer else "a new field is required"
    return "the field is no longer always there" if known_to_writer else "the field is gone"


def _listed(values: frozenset[Any] | None) -> str:
    return "any" if values is None else ", ".join(sorted(map(str, values))) or "nothing"


def _are(values: frozenset[Any] | None) -> str:
    return "is" if values is not None and len(values) == 1 else "are"
