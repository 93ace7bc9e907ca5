"""Operations of a document: their ids, parameters, headers, problems, examples and links."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from spine.kernel import ids
from spine.kernel.openapi import shared
from spine.kernel.openapi.schemas import REF, without_titles
from spine.kernel.resource import plural

PLATFORM: Final = "platform"
_MUTATING: Final = {"post", "put", "patch", "delete"}
_PREFIX_BY_LIST: Final = {plural(noun): prefix for noun, prefix in ids.PREFIXES.items()} | {
    "dead_letters": ids.PREFIXES["delivery"],
    "webhook-keys": ids.PREFIXES["webhook_endpoint"],
    "inbound": ids.PREFIXES["provider_account"],
    "queues": ids.PREFIXES["user"],
    "/works/v1/templates": ids.PREFIXES["project_template"],
}
"""The prefix of the ids in a list, by the name of the list or, where products have lists of one name, by its path."""


def product_of(path: str) -> str:
    """Return the product that a path belongs to."""
    first = path.split("/")[1]
    return PLATFORM if first in ("v1", ".well-known") else first


def operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, method and operation of each operation."""
    for path, item in paths.items():
        for method, operation in item.items():
            yield path, method, operation


def parameters_of(operation: Mapping[str, Any], document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters of an operation of a finished document, the shared ones too."""
    shared_ones = document["components"].get("parameters", {})
    return [
        shared_ones[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in operation.get("parameters", ())
    ]


def name_operations(paths: Mapping[str, Any]) -> None:
    """Give each operation its public id: the name of its route, such as `list_contacts`.

    A name that an earlier product has gets the product's name before it (`works_create_template`). Raises ValueError if
    two operations of one product have the same name. `routes.ResourceRouter` writes "name path" as the id.
    """
    taken: dict[str, str] = {}
    for path, method, operation in operations(paths):
        name = operation["operationId"].partition(" ")[0]
        if name in taken and product_of(taken[name]) != product_of(path):
            name = f"{product_of(path)}_{name}"
        if name in taken:
            raise ValueError(f"{method.upper()} {path} and {taken[name]} are both named {name}; rename one's function")
        taken[name] = path
        operation["operationId"] = name


def complete_operation(
    path: str, method: str, operation: dict[str, Any], common: Mapping[str, Any], example: Any
) -> None:
    """Add what all operations share: the Idempotency-Key, problems, headers, the patterns of ids.

    `common` are the parameters that are components, by their names there. `example` is a request body, or None.
    """
    operation.pop("x-listed-at", None)  # read by the route, not part of the document
    mutating, public = method in _MUTATING, operation.get("security") == []
    parameters = [_shared_or_own(path, parameter, common) for parameter in operation.pop("parameters", ())]
    if mutating and not public:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if parameters:
        operation["parameters"] = parameters
    responses = operation["responses"]
    responses.pop("422", None)
    for status, response in responses.items():
        names = ["RequestId"] if public else ["RequestId", "RateLimit", "RateLimitPolicy"]
        names += ["IdempotentReplayed"] if mutating and not public else []
        response["headers"] = shared.headers(*names, *(["Location"] if status == "201" and not public else []))
        for media in response.get("content", {}).values():
            if media.pop("itemSchema", None):
                media["schema"] = {
                    "type": "string"
                }  # OpenAPI 3.2 describes a stream's items; in 3.1 a stream is a text
            without_titles(media.get("schema", {}))
    responses |= {status: {"$ref": f"#/components/responses/Problem{status}"} for status in shared.PROBLEMS}
    for media in operation.get("requestBody", {}).get("content", {}).values():
        without_titles(media.get("schema", {}))
        if example is not None:
            media["examples"] = {"request": {"value": example}}


def _shared_or_own(path: str, parameter: dict[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    without_titles(parameter["schema"])
    component = shared.PARAMETER_NAMES.get(parameter["name"])
    if component is not None and common[component] == parameter:
        return {"$ref": f"#/components/parameters/{component}"}
    if parameter["in"] == "path":
        _add_id_pattern(path, parameter)
        parameter.setdefault("description", "Another kind's id, or another workspace's, is not found.")
    return parameter


def _add_id_pattern(path: str, parameter: dict[str, Any]) -> None:
    """Add the pattern of an id in a path, by the name of the list before it. The route does not validate it: it returns 404."""
    before = re.search(r"^(.*/([^/{}]+))/\{" + parameter["name"] + r"\}", path)
    of_list = (_PREFIX_BY_LIST.get(before[1]) or _PREFIX_BY_LIST.get(before[2])) if before else None
    prefix = of_list or ids.PREFIXES.get(parameter["name"].removesuffix("_id"))
    if prefix is not None and parameter["name"].endswith("id"):
        parameter["schema"] = {**parameter["schema"], "pattern": ids.pattern(prefix)}


def add_links(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> None:
    """Add links to each operation that creates an object: to every operation on one object of the same list."""
    for path, item in paths.items():
        created = item.get("post", {}).get("responses", {}).get("201")
        if "{" in path or created is None:
            continue
        schema_name = created["content"]["application/json"]["schema"].get("$ref", "").removeprefix(REF)
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {"id": "$response.body#/id"},
            }
            for below, others in paths.items()
            if below.startswith(path + "/{id}")
            for operation in others.values()
        }
        if links and "id" in schemas[schema_name]["properties"]:
            created["links"] = links
