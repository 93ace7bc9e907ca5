"""Changes of a document that break a caller: operations, parameters, responses, events, and the names that clients use."""

from collections.abc import Iterator, Mapping
from typing import Any

from products.openapi_changes.schema_changes import Comparison

Document = Mapping[str, Any]


def breaking_changes(old: Document, new: Document) -> list[str]:
    """Return each change from the old to the new document that an existing caller or receiver may not survive."""
    return list(_Documents(old, new).changes())


class _Documents:
    """Two versions of one document."""

    def __init__(self, old: Document, new: Document) -> None:
        self._old, self._new = old, new
        self._request = Comparison(old["components"], new["components"], request=True)
        self._response = Comparison(old["components"], new["components"], request=False)

    def changes(self) -> Iterator[str]:
        for path, item in self._old["paths"].items():
            for method, operation in item.items():
                place = f"{method.upper()} {path}"
                new = self._new["paths"].get(path, {}).get(method)
                if new is None:
                    yield f"{place}: the operation is gone"
                else:
                    yield from self._operation_changes(operation, new, place)
        for name, item in self._old.get("webhooks", {}).items():
            if name not in self._new.get("webhooks", {}):
                yield f"{name}: the event type is gone"
            else:
                yield from self._event_changes(item["post"], self._new["webhooks"][name]["post"], name)
        gone = self._old["components"]["schemas"].keys() - self._new["components"]["schemas"].keys()
        yield from (f"{name}: the schema is gone, and with it the type in generated clients" for name in sorted(gone))

    def _operation_changes(self, old: Document, new: Document, place: str) -> Iterator[str]:
        for key, text in (("operationId", "method name"), ("x-scope", "scope"), ("x-mcp-tool", "tool name")):
            if old.get(key) is not None and old[key] != new.get(key):
                yield f"{place}: the {text} was {old[key]}, is {new.get(key)}"
        if old.get("security") == [] and new.get("security") != []:
            yield f"{place}: a key became necessary"
        for event in old.get("x-events", ()):
            if event not in new.get("x-events", ()):
                yield f"{place}: {event} is no longer emitted"
        yield from self._parameter_changes(old, new, place)
        yield from self._body_changes(old.get("requestBody"), new.get("requestBody"), place)
        yield from self._response_changes(old["responses"], new["responses"], place)

    def _parameter_changes(self, old: Document, new: Document, place: str) -> Iterator[str]:
        before, after = _parameters(old, self._old), _parameters(new, self._new)
        for key, parameter in before.items():
            where = f"{place} {key[1]}"
            if key not in after:
                yield f"{where}: the parameter is gone"
                continue
            if after[key].get("required") and not parameter.get("required"):
                yield f"{where}: the parameter became required"
            yield from self._request.changes(parameter["schema"], after[key]["schema"], where)
        for key in after.keys() - before.keys():
            if after[key].get("required"):
                yield f"{place} {key[1]}: a new parameter is required"

    def _body_changes(self, old: Document | None, new: Document | None, place: str) -> Iterator[str]:
        if old is None:
            if new is not None and new.get("required"):
                yield f"{place}: a body became required"
            return
        if new is None:
            yield f"{place}: the body is gone"
            return
        if new.get("required") and not old.get("required"):
            yield f"{place}: the body became required"
        for media, content in old["content"].items():
            if media not in new["content"]:
                yield f"{place}: bodies of type {media} are no longer accepted"
            else:
                yield from self._request.changes(content["schema"], new["content"][media]["schema"], f"{place} body")

    def _response_changes(self, old: Document, new: Document, place: str) -> Iterator[str]:
        for status, response in old.items():
            where = f"{place} {status}"
            if status not in new:
                yield f"{where}: the response is gone"
                continue
            before, after = _resolved(response, self._old), _resolved(new[status], self._new)
            for header in before.get("headers", {}).keys() - after.get("headers", {}).keys():
                yield f"{where}: the header {header} is gone"
            for media, content in before.get("content", {}).items():
                if media not in after.get("content", {}):
                    yield f"{where}: responses of type {media} are gone"
                else:
                    yield from self._response.changes(content["schema"], after["content"][media]["schema"], where)
        successes = [status for status in new if status < "400" and status not in old]
        yield from (f"{place} {status}: a success with a new status" for status in successes)

    def _event_changes(self, old: Document, new: Document, name: str) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"{name}: the method name was {old['operationId']}, is {new['operationId']}"
        before, after = (one["requestBody"]["content"]["application/json"]["schema"] for one in (old, new))
        yield from self._response.changes(before, after, name)
        gone = _parameters(old, self._old).keys() - _parameters(new, self._new).keys()
        yield from (f"{name}: the header {header} is gone" for _, header in sorted(gone))


def _resolved(part: Document, document: Document) -> Document:
    if "$ref" not in part:
        return part
    kind, name = part["$ref"].removeprefix("#/components/").split("/")
    found: Document = document["components"][kind][name]
    return found


def _parameters(operation: Document, document: Document) -> dict[tuple[str, str], Document]:
    parameters = [_resolved(parameter, document) for parameter in operation.get("parameters", ())]
    return {(parameter["in"], parameter["name"]): parameter for parameter in parameters}
