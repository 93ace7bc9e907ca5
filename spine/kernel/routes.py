"""Routes: the checks that every request passes before its handler runs, and the dependencies of handlers.

    401 key ─► 403 scope ─► 400 Idempotency-Key ─► 429 rate, backlog ─► 422 body ─► handler in one transaction ─► response

The order is fixed (wire.md, "Everywhere"): a revoked key must not get a replay, and the body is not even read for a
caller who may not send it. A handler that takes a `CurrentUnit` runs inside its transaction. Its result is serialised
there, with the model that OpenAPI shows, and stored under the idempotency key before the commit.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from spine.kernel.accept import AcceptRequest
from spine.kernel.authentication import Caller
from spine.kernel.client_address import client_site
from spine.kernel.cursors import MAX_LENGTH
from spine.kernel.errors import BadRequest
from spine.kernel.events import EventType
from spine.kernel.handlers import direct_handler, transactional_handler, unit_parameter
from spine.kernel.idempotency import HEADER, Claim, fingerprint, read_key
from spine.kernel.platform import Platform
from spine.kernel.request_body import BodyRequest
from spine.kernel.resource import Resource
from spine.kernel.unit_of_work import UnitOfWork

_MUTATING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(slots=True)
class RequestContext:
    """An authenticated request: its caller, its request id and its idempotency key (None for reads)."""

    platform: Platform
    caller: Caller
    request_id: str
    key: str | None
    request: BodyRequest

    async def claim(self) -> Claim | None:
        """Return the request's claim to its idempotency key, or None for reads."""
        if self.key is None:
            return None
        url = self.request.url
        return Claim(self.key, fingerprint(self.request.method, url.path, url.query, await self.request.json()))

    async def accept_request(self) -> AcceptRequest:
        """Return the request for the accept path. Only for mutating routes, whose key is checked before."""
        claim = await self.claim()
        assert claim is not None
        return AcceptRequest(self.platform, self.caller, self.request_id, claim)


def declares(
    scope: str,
    *events: EventType | str,
    sealed: bool = False,
    public: bool = False,
    listed_at: str | None = None,
    tool: str | None = None,
) -> dict[str, Any]:
    """Return the `openapi_extra` of an operation: its scope and the events that it emits. `ApiRoute` reads it too.

    Events are types of the catalogue or, if callers choose the type, a pattern. `sealed` responses hold secrets and are
    stored encrypted. `public` operations take no key. `listed_at` is the path of the list that holds the created object,
    if that is not the operation's own path. `tool` makes the operation an MCP tool of this name, `<product>_<verb>_<noun>`.
    """
    extra: dict[str, Any] = {} if public else {"x-scope": scope}
    if events:
        extra["x-events"] = [event if isinstance(event, str) else event.name for event in events]
    if listed_at:
        extra["x-listed-at"] = listed_at
    if sealed:
        extra["x-sealed"] = True
    if public:
        extra["security"] = []
    if tool:
        extra["x-mcp-tool"] = tool
    return extra


class ApiRoute(APIRoute):
    """A route that runs the checks above. Raises ValueError if the operation is not public and declares no scope."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        extra: dict[str, Any] = options.get("openapi_extra") or {}
        methods = set(options.get("methods") or {"GET"})
        self.mutating = bool(methods & _MUTATING)
        parameter = unit_parameter(endpoint)
        if parameter is not None:
            endpoint = transactional_handler(
                endpoint, parameter, self.mutating, options.get("status_code") or 200, extra
            )
        super().__init__(path, endpoint, **options)
        self.scope: str | None = extra.get("x-scope")
        self.public = extra.get("security") == []
        if not self.public and self.scope is None:
            raise ValueError(f"{sorted(methods)} {path} declares no scope")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        direct = direct_handler(self.endpoint)
        inner = direct or super().get_route_handler()

        async def handler(plain: Request) -> Response:
            request = BodyRequest(plain.scope, plain.receive)
            if self.public or self.scope is None:
                if self.mutating and self.body_field is not None:
                    await request.json()
                return await inner(request)
            platform: Platform = plain.app.state.platform
            caller = await platform.authenticator.caller(
                request.headers.get("authorization"), lambda: client_site(plain, platform.http.trusted_proxies)
            )
            caller.require(self.scope)
            key = read_key(request.headers.get(HEADER)) if self.mutating else None
            plain.scope["spine.headers"] = await platform.limiter.take(caller.workspace_id)
            if direct is not None:
                # Before the body is parsed, so that a refusal is cheap.
                platform.backpressure.refuse_when_full(caller.workspace_id)
            request.scope["spine.context"] = RequestContext(
                platform, caller, request.scope["spine.request_id"], key, request
            )
            if self.mutating:
                await request.json()  # invalid JSON gets our own error here; later readers find it parsed
            return await inner(request)

        return handler


async def request_context(request: Request) -> RequestContext:
    """Return the context of an authenticated request (a FastAPI dependency)."""
    context: RequestContext = request.scope["spine.context"]
    return context


async def _unit_of_work(context: Annotated[RequestContext, Depends(request_context)]) -> UnitOfWork:
    return UnitOfWork(
        context.platform, context.caller, context.request_id, context.request.url.path, await context.claim()
    )


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The page of a list that a request reads: at most `limit` rows, from `cursor` on."""

    cursor: str | None
    limit: int


async def _page_request(
    cursor: Annotated[
        str | None, Query(max_length=MAX_LENGTH, description="The next_cursor of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
) -> PageRequest:
    return PageRequest(cursor, limit)


CurrentUnit = Annotated[UnitOfWork, Depends(_unit_of_work)]
Paging = Annotated[PageRequest, Depends(_page_request)]
IfMatch = Annotated[str | None, Header(alias="If-Match", description='The version you last saw, in quotes: "3".')]


def version_of(if_match: str | None) -> int | None:
    """Return the version in an If-Match header, or None without one. Raises BadRequest `invalid_if_match`."""
    if if_match is None:
        return None
    text = if_match.strip().removeprefix('"').removesuffix('"')
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest('If-Match takes the version in quotes, such as "3"', code="invalid_if_match", param="If-Match")
    return int(text)


def _name_and_path(route: APIRoute) -> str:
    return f"{route.name} {route.path_format}"  # the documents make a short operationId of it


class ResourceRouter(APIRouter):
    """A router of `ApiRoute`s. `resource` is the resource that it serves, if it is the router of one.

    Its routes are built when they are asked for first: a worker, which imports the handlers, saves half a second.
    """

    def __init__(self, prefix: str, tag: str, resource: Resource | None) -> None:
        self._declared: list[Callable[[], None]] = []
        super().__init__(prefix=prefix, tags=[tag], route_class=ApiRoute, generate_unique_id_function=_name_and_path)
        self.resource = resource

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Declare a route."""
        self._declared.append(partial(super().add_api_route, path, endpoint, **options))

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of this router."""
        declared, self._declared = self._declared, []
        for build in declared:
            build()
        return self._built

    @routes.setter
    def routes(self, routes: list[BaseRoute]) -> None:
        self._built = routes


def new_router(prefix: str, tag: str, resource: Resource | None = None) -> ResourceRouter:
    """Return a router. The catalogue reads the resource and its event types off it."""
    return ResourceRouter(prefix, tag, resource)
