"""Exception handlers: every error response has the same shape (ruling X16)."""

from typing import Final

import asyncpg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from spine.kernel.database_errors import to_spine_error
from spine.kernel.errors import (
    BadRequest,
    FieldError,
    InternalError,
    InvalidBody,
    MethodNotAllowed,
    NotFound,
    SpineError,
)
from spine.kernel.responses import PROBLEM

_LOCATIONS: Final = {"body", "query", "path", "header", "cookie"}
_log = structlog.get_logger(__name__)


def problem_response(request: Request, error: SpineError) -> Response:
    """Return the response for an error, as problem+json."""
    return Response(error.body(request.scope["spine.request_id"]), error.status, error.headers, PROBLEM)


async def _spine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpineError)
    return problem_response(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [FieldError(param=_path(item["loc"]), code=item["type"], detail=item["msg"]) for item in error.errors()]
    detail = "; ".join(f"{item.param}: {item.detail}" for item in errors[:5])
    return problem_response(request, InvalidBody(detail, param=errors[0].param if errors else None, errors=errors))


def _path(loc: tuple[int | str, ...]) -> str:
    """Return the location of an error as a path in the body, query or headers. The whole body is `body`."""
    return ".".join(map(str, loc[1:] if loc[0] in _LOCATIONS and len(loc) > 1 else loc))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: NotFound("there is no such path"), 405: MethodNotAllowed()}
    problem = known.get(error.status_code) or BadRequest(str(error.detail))
    problem.headers |= dict(error.headers or {})
    return problem_response(request, problem)


async def _database_error(request: Request, error: Exception) -> Response:
    known = to_spine_error(error)
    return problem_response(request, known) if known is not None else await _unexpected_error(request, error)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.url.path, request_id=request.scope["spine.request_id"], exc_info=error)
    return problem_response(request, InternalError())


def install_error_handlers(app: FastAPI) -> None:
    """Register the handler of every exception type."""
    app.add_exception_handler(SpineError, _spine_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    for error_type in (
        SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
    ):
        app.add_exception_handler(error_type, _database_error)
