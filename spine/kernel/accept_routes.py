"""The two routes of an accept path: POST one item, and POST a batch of them to `/batch`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from spine.kernel.idempotency import StoredResponse
from spine.kernel.resource import Body
from spine.kernel.responses import to_response
from spine.kernel.routes import RequestContext, request_context

Accept = Callable[..., Awaitable[tuple[StoredResponse, bool]]]
"""`accept(request, items, batch=...)` commits the items; returns the response and whether it is a replay."""


@dataclass(frozen=True, slots=True)
class AcceptRoute:
    """One accept route: the handler's name in OpenAPI, its models, and its summary."""

    name: str
    body: type[Body]
    out: type[BaseModel]
    summary: str


def add_accept_routes(
    router: APIRouter,
    accept: Accept,
    one: AcceptRoute,
    batch: AcceptRoute,
    items_of: Callable[[Any], Sequence[Any]],
    extra: dict[str, Any],
) -> None:
    """Add both routes to the router. `items_of` returns the items in a batch's body; `extra` is from `declares`.

    A tool's name in `extra` is that of the route of one item.
    """

    async def accept_one(body: Any, context: Annotated[RequestContext, Depends(request_context)]) -> Response:
        return to_response(*await accept(await context.accept_request(), [body], batch=False))

    async def accept_batch(body: Any, context: Annotated[RequestContext, Depends(request_context)]) -> Response:
        return to_response(*await accept(await context.accept_request(), items_of(body), batch=True))

    without_tool = {name: value for name, value in extra.items() if name != "x-mcp-tool"}
    for path, handler, route, declared in (
        ("", accept_one, one, extra),
        ("/batch", accept_batch, batch, without_tool),
    ):
        handler.__annotations__["body"] = route.body
        router.add_api_route(
            path,
            handler,
            methods=["POST"],
            status_code=201,
            response_model=route.out,
            openapi_extra=declared,
            summary=route.summary,
            name=route.name,
        )
