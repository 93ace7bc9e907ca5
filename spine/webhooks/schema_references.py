"""References inside one JSON Schema: `#`, JSON Pointers (RFC 6901) and anchors."""

from typing import Any, Final
from urllib.parse import unquote

_ANCHORS: Final = ("$anchor", "$dynamicAnchor")


class References:
    """The parts of a schema that its references lead to. Each is looked up once."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._found: dict[str, Any] = {}
        self._anchors: dict[str, Any] | None = None

    def find(self, reference: str) -> Any:
        """Return the part of the schema that a reference leads to. Raises LookupError if it leads nowhere."""
        if reference not in self._found:
            self._found[reference] = self._find(unquote(reference.removeprefix("#")))
        return self._found[reference]

    def _find(self, fragment: str) -> Any:
        if fragment and not fragment.startswith("/"):
            if self._anchors is None:
                self._anchors = _anchors(self._schema)
            return self._anchors[fragment]
        part = self._schema
        for escaped in fragment.split("/")[1:]:
            name = escaped.replace("~1", "/").replace("~0", "~")
            if isinstance(part, list) and name.isdecimal():
                part = part[int(name)]
            elif isinstance(part, dict):
                part = part[name]
            else:
                raise KeyError(name)
        if isinstance(part, (dict, bool)):
            return part
        raise LookupError(fragment)


def _anchors(schema: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            for keyword in _ANCHORS:
                if isinstance(part.get(keyword), str):
                    found[part[keyword]] = part
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)
    return found
