"""The door: what every call passes before a handler runs, and what every answer passes on its way out.

    401 key ─► 403 scope ─► 400 Idempotency-Key ─► 429 rate, backlog ─► 422 body ─► handler in one transaction ─► answer

The order is fixed (wire.md, "Everywhere"): a key that was revoked must not fetch a replay, and a body is not even
read for a caller who may not send it. A handler that takes a `CurrentUnit` is run inside its transaction; the answer is
serialised there, from the model that OpenAPI shows, and stored under the key before the commit.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Final, TypeVar, get_type_hints

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from spine.kernel import store
from spine.kernel.accept import AcceptRequest
from spine.kernel.authentication import Caller
from spine.kernel.cursors import MAX_LENGTH
from spine.kernel.errors import BadRequest
from spine.kernel.events import EventType
from spine.kernel.idempotency import HEADER, Claim, StoredResponse, fingerprint, read_key
from spine.kernel.platform import Platform
from spine.kernel.request_body import BodyRequest
from spine.kernel.resource import Resource
from spine.kernel.unit_of_work import UnitOfWork

T = TypeVar("T", bound=Callable[..., Any])

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
_MUTATING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(slots=True)
class RequestContext:
    """What the door learnt of one call."""

    platform: Platform
    caller: Caller
    request_id: str
    key: str | None
    request: BodyRequest

    async def claim(self) -> Claim | None:
        """The call's claim to its idempotency key; None for reads."""
        if self.key is None:
            return None
        url = self.request.url
        return Claim(self.key, fingerprint(self.request.method, url.path, url.query, await self.request.json()))

    async def accept_request(self) -> AcceptRequest:
        """The call as the accept path takes it. Only for mutating routes, whose key is checked before."""
        claim = await self.claim()
        assert claim is not None
        return AcceptRequest(self.platform, self.caller, self.request_id, claim)


def declares(
    scope: str,
    *events: EventType | str,
    sealed: bool = False,
    public: bool = False,
    listed_at: str | None = None,
) -> dict[str, Any]:
    """What an operation says of itself in OpenAPI, and what its door goes by: its scope and the events that it emits.

    Events are types of the catalogue or, where callers choose the type, a pattern. `sealed` answers hold secrets and are
    stored encrypted; `public` operations take no key. `listed_at` is the path under which what an operation makes is
    found, where that is not its own.
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
    return extra


def prepared_by(prepare: Callable[..., Awaitable[Any]]) -> Callable[[T], T]:
    """Have a handler's `unit.prepared` made by this function, called with the handler's arguments before its transaction opens.

    For what asks the outside something, such as resolving a name: no transaction is open meanwhile.
    """

    def mark(endpoint: T) -> T:
        endpoint.prepare = prepare  # type: ignore[attr-defined]  # read by the door that wraps this handler
        return endpoint

    return mark


def _unit_parameter(endpoint: Callable[..., Any]) -> str | None:
    return next((name for name, hint in get_type_hints(endpoint).items() if hint is UnitOfWork), None)


def _in_one_transaction(
    endpoint: Callable[..., Awaitable[Any]], parameter: str, mutating: bool, status: int, extra: dict[str, Any]
) -> Any:
    result: Any = get_type_hints(endpoint).get("return")
    adapter: TypeAdapter[Any] = TypeAdapter(Any if result is Response else result)
    sealed = bool(extra.get("x-sealed"))
    listed_at: str | None = extra.get("x-listed-at")
    prepare: Callable[..., Awaitable[Any]] | None = getattr(endpoint, "prepare", None)

    def render(path: str) -> Callable[[Any], StoredResponse]:
        def as_stored(value: Any) -> StoredResponse:
            final = getattr(value, "http_status", status)
            location = f"{listed_at or path}/{value.id}" if final == 201 and hasattr(value, "id") else None
            return StoredResponse(final, adapter.dump_json(value, by_alias=True), location)

        return as_stored

    @wraps(endpoint)
    async def handler(**arguments: Any) -> Response:
        unit: UnitOfWork = arguments[parameter]
        if prepare is not None:
            unit.prepared = await prepare(**arguments)
        if not mutating:
            value = await unit.read(lambda: endpoint(**arguments))
            if isinstance(value, Response):
                return value
            return Response(adapter.dump_json(value, by_alias=True), status, media_type=JSON)
        stored, replayed = await unit.write(lambda: endpoint(**arguments), render(unit.path), sealed=sealed)
        return answer(stored, replayed)

    return handler


def answer(stored: StoredResponse, replayed: bool) -> Response:
    """An answer as it was stored; a replay says so."""
    headers = {"Location": stored.location} if stored.location else {}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(stored.body, stored.status, headers, JSON if stored.status < 400 else PROBLEM)


class ApiRoute(APIRoute):
    """A route behind the door."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        extra: dict[str, Any] = options.get("openapi_extra") or {}
        methods = set(options.get("methods") or {"GET"})
        self.mutating = bool(methods & _MUTATING)
        parameter = _unit_parameter(endpoint)
        if parameter is not None:
            endpoint = _in_one_transaction(endpoint, parameter, self.mutating, options.get("status_code") or 200, extra)
        super().__init__(path, endpoint, **options)
        self.scope: str | None = extra.get("x-scope")
        self.public = extra.get("security") == []
        if not self.public and self.scope is None:
            raise ValueError(f"{sorted(methods)} {path} declares no scope")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        direct = _direct(self.endpoint)
        inner = direct or super().get_route_handler()

        async def handler(plain: Request) -> Response:
            request = BodyRequest(plain.scope, plain.receive)
            if self.public or self.scope is None:
                if self.mutating:
                    await request.json()
                return await inner(request)
            platform: Platform = plain.app.state.platform
            caller = await platform.authenticator.caller(request.headers.get("authorization"))
            caller.require(self.scope)
            key = read_key(request.headers.get(HEADER)) if self.mutating else None
            plain.scope["spine.headers"] = await platform.limiter.take(caller.workspace_id)
            if direct is not None:
                platform.backpressure.refuse_when_full()  # before the body is parsed: saying no must cost little
            request.scope["spine.context"] = RequestContext(
                platform, caller, request.scope["spine.request_id"], key, request
            )
            if self.mutating:
                await request.json()  # refused here, with our own words; what follows finds it parsed
            return await inner(request)

        return handler


def _direct(endpoint: Callable[..., Awaitable[Response]]) -> Callable[[Request], Coroutine[Any, Any, Response]] | None:
    """For a handler of a body and a gate that answers by itself: body to model to handler, without a dependency graph.

    Accepting goes this way: solving dependencies costs as much as the database does. None for all other handlers.
    """
    hints = get_type_hints(endpoint)
    if set(hints) != {"body", "context", "return"} or hints["return"] is not Response:
        return None
    model: TypeAdapter[Any] = TypeAdapter(hints["body"])

    async def handler(request: Request) -> Response:
        try:
            body = model.validate_python(await request.json())
        except ValidationError as error:
            raise RequestValidationError(
                [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
            ) from error
        return await endpoint(body, request.scope["spine.context"])

    return handler


async def request_context(request: Request) -> RequestContext:
    """What the door learnt of this call."""
    context: RequestContext = request.scope["spine.context"]
    return context


async def _unit_of(context: Annotated[RequestContext, Depends(request_context)]) -> UnitOfWork:
    return UnitOfWork(
        context.platform, context.caller, context.request_id, context.request.url.path, await context.claim()
    )


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list is asked for."""

    cursor: str | None
    limit: int


async def _page_request(
    cursor: Annotated[
        str | None, Query(max_length=MAX_LENGTH, description="The next_cursor of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
) -> PageRequest:
    return PageRequest(cursor, limit)


CurrentUnit = Annotated[UnitOfWork, Depends(_unit_of)]
Paging = Annotated[PageRequest, Depends(_page_request)]
IfMatch = Annotated[str | None, Header(alias="If-Match", description='The version you last saw, in quotes: "3".')]


def version_of(if_match: str | None) -> int | None:
    """The version in an If-Match header. Raises BadRequest where it is none."""
    if if_match is None:
        return None
    text = if_match.strip().removeprefix('"').removesuffix('"')
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest('If-Match takes the version in quotes, such as "3"', code="invalid_if_match", param="If-Match")
    return int(text)


def router(prefix: str, tag: str) -> APIRouter:
    """A router whose routes stand behind the door."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=ApiRoute)


def crud_router(resource: Resource, product: str, *verbs: str) -> APIRouter:
    """The generated verbs of a resource (`create`, `get`, `list`, `update`), behind the door.

    A verb that differs is left out of `verbs` and written by hand in the resource's room.
    """
    base = f"/{product}/v1" if product else "/v1"
    made = router(f"{base}/{resource.plural}", resource.plural)
    noun = resource.noun.replace("_", " ")
    a_noun = f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"
    created, updated = resource.event("created"), resource.event("updated")

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
    writes: dict[str, tuple[str, str, Callable[..., Any], int, dict[str, Any], str]] = {
        "create": (
            "POST",
            "",
            create,
            201,
            declares(f"{resource.scope}:write", *filter(None, [created])),
            f"Create {a_noun}",
        ),
        "get": ("GET", "/{id}", get, 200, declares(f"{resource.scope}:read"), f"Read {a_noun}"),
        "list": (
            "GET",
            "",
            list_,
            200,
            declares(f"{resource.scope}:read"),
            f"List {resource.plural.replace('_', ' ')}, newest first",
        ),
        "update": (
            "PATCH",
            "/{id}",
            update,
            200,
            declares(f"{resource.scope}:write", *filter(None, [updated])),
            f"Change {a_noun}",
        ),
    }
    for verb in verbs:
        method, path, endpoint, status, extra, summary = writes[verb]
        made.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=status,
            openapi_extra=extra,
            summary=summary,
            name=f"{verb}_{resource.noun}",
        )
    return made
