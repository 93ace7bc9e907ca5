"""Request handlers: run an endpoint function inside a unit of work, or directly on the parsed body."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Any, TypeVar, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from spine.kernel.idempotency import StoredResponse
from spine.kernel.responses import JSON, to_response
from spine.kernel.unit_of_work import UnitOfWork

T = TypeVar("T", bound=Callable[..., Any])


def prepared_by(prepare: Callable[..., Awaitable[Any]]) -> Callable[[T], T]:
    """Set a mutating handler's `unit.prepared` to the result of `prepare`, called with the handler's arguments.

    It runs before the transaction opens, and not for a replay. Use it for outgoing calls, such as resolving a name: no
    transaction waits for them.
    """

    def mark(endpoint: T) -> T:
        endpoint.prepare = prepare  # type: ignore[attr-defined]  # read by transactional_handler
        return endpoint

    return mark


def unit_parameter(endpoint: Callable[..., Any]) -> str | None:
    """Return the name of the endpoint's parameter of type UnitOfWork, or None."""
    return next((name for name, hint in get_type_hints(endpoint).items() if hint is UnitOfWork), None)


def transactional_handler(
    endpoint: Callable[..., Awaitable[Any]], parameter: str, mutating: bool, status: int, extra: dict[str, Any]
) -> Any:
    """Return a handler that runs the endpoint in the transaction of its unit of work, the argument named `parameter`.

    `status` is the response's status unless the result sets `http_status`; `extra` is what `declares` returned.
    """
    result: Any = get_type_hints(endpoint).get("return")
    adapter: TypeAdapter[Any] = TypeAdapter(Any if result is Response else result)
    sealed = bool(extra.get("x-sealed"))
    listed_at: str | None = extra.get("x-listed-at")
    prepare: Callable[..., Awaitable[Any]] | None = getattr(endpoint, "prepare", None)

    def renderer(path: str) -> Callable[[Any], StoredResponse]:
        def render(value: Any) -> StoredResponse:
            final = getattr(value, "http_status", status)
            location = f"{listed_at or path}/{value.id}" if final == 201 and hasattr(value, "id") else None
            return StoredResponse(final, adapter.dump_json(value, by_alias=True), location)

        return render

    @wraps(endpoint)
    async def handler(**arguments: Any) -> Response:
        unit: UnitOfWork = arguments[parameter]
        if not mutating:
            value = await unit.read(lambda: endpoint(**arguments))
            if isinstance(value, Response):
                return value
            return Response(adapter.dump_json(value, by_alias=True), status, media_type=JSON)
        stored, replayed = await unit.write(
            lambda: endpoint(**arguments),
            renderer(unit.path),
            sealed=sealed,
            prepare=None if prepare is None else partial(prepare, **arguments),
        )
        return to_response(stored, replayed)

    return handler


def direct_handler(
    endpoint: Callable[..., Awaitable[Response]],
) -> Callable[[Request], Coroutine[Any, Any, Response]] | None:
    """Return a handler for an endpoint that takes only `body` and `context` and returns a Response; else None.

    It validates the body and calls the endpoint, without FastAPI's dependencies. The accept routes use it, because solving
    dependencies costs as much time as the database does.
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
