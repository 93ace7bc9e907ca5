"""CRUD routes: the operations `create`, `get`, `list` and `update` of a resource, generated from its definition."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from spine.kernel import store
from spine.kernel.resource import Resource
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, ResourceRouter, declares, new_router, version_of


@dataclass(frozen=True, slots=True)
class _Operation:
    method: str
    path: str
    endpoint: Callable[..., Any]
    extra: dict[str, Any]
    summary: str
    status: int = 200


def crud_router(
    resource: Resource, product: str, *verbs: str, tools: Mapping[str, str] = MappingProxyType({})
) -> ResourceRouter:
    """Return a router with the generated operations of a resource: `create`, `get`, `list`, `update`.

    A verb that differs is left out of `verbs` and written by hand in the resource's module. `tools` names the operations that
    are MCP tools too, by verb.
    """
    base = f"/{product}/v1" if product else "/v1"
    router = new_router(f"{base}/{resource.plural}", resource.plural, resource)
    operations = _operations(resource, tools)
    for verb in verbs:
        operation = operations[verb]
        router.add_api_route(
            operation.path,
            operation.endpoint,
            methods=[operation.method],
            status_code=operation.status,
            openapi_extra=operation.extra,
            summary=operation.summary,
            name=f"{verb}_{resource.plural if verb == 'list' else resource.noun}",
        )
    return router


def _operations(resource: Resource, tools: Mapping[str, str]) -> dict[str, _Operation]:
    noun = resource.noun.replace("_", " ")
    a_noun = f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"
    nouns = resource.plural.replace("_", " ")
    endpoints = _endpoints(resource)

    def reads(verb: str) -> dict[str, Any]:
        return declares(f"{resource.scope}:read", tool=tools.get(verb))

    def writes(verb: str) -> dict[str, Any]:
        events = filter(None, [resource.event(f"{verb}d")])
        return declares(f"{resource.scope}:write", *events, tool=tools.get(verb))

    return {
        "create": _Operation("POST", "", endpoints["create"], writes("create"), f"Create {a_noun}", 201),
        "get": _Operation("GET", "/{id}", endpoints["get"], reads("get"), f"Read {a_noun}"),
        "list": _Operation("GET", "", endpoints["list"], reads("list"), f"List {nouns}, newest first"),
        "update": _Operation("PATCH", "/{id}", endpoints["update"], writes("update"), f"Change {a_noun}"),
    }


def _endpoints(resource: Resource) -> dict[str, Callable[..., Any]]:
    async def create(unit: CurrentUnit, body: Any) -> Any:
        row = await store.create(unit, resource, **store.columns(body))
        return await store.emit_event(unit, resource, row, "created")

    async def get(id: str, unit: CurrentUnit) -> Any:
        return resource.out.model_validate(await store.get(unit, resource, id))

    async def list_(unit: CurrentUnit, paging: Paging) -> Any:
        return await store.page(unit, resource, paging.cursor, paging.limit)

    async def update(id: str, unit: CurrentUnit, body: Any, if_match: IfMatch = None) -> Any:
        row = await store.get(unit, resource, id, lock=True)
        if await store.change(unit, resource, row, store.columns(body), version_of(if_match)):
            return await store.emit_event(unit, resource, row, "updated")
        return resource.out.model_validate(row)

    create.__annotations__ |= {"body": resource.create, "return": resource.out}
    get.__annotations__["return"] = resource.out
    list_.__annotations__["return"] = store.Page[resource.out]  # type: ignore[name-defined]  # the resource's own model
    update.__annotations__ |= {"body": resource.update, "return": resource.out}
    return {"create": create, "get": get, "list": list_, "update": update}
