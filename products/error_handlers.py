"""From exceptions to answers: one handler each, one shape for all (ruling X16)."""

from typing import Final

import asyncpg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from spine.kernel.errors import BadRequest, FieldError, InvalidBody, MethodNotAllowed, NotFound, SpineError
from spine.kernel.responses import PROBLEM
from spine.kernel.unit_of_work import to_spine_error

_IN: Final = {"body", "query", "path", "header", "cookie"}
_log = structlog.get_logger(__name__)


def problem(request: Request, error: SpineError) -> Response:
    """The answer that tells of an error."""
    return Response(error.body(request.scope["spine.request_id"]), error.status, error.headers, PROBLEM)


async def _domain(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpineError)
    return problem(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        FieldError(
            param=_path(item["loc"]),
            code=item["type"],
            detail=item["msg"],
        )
        for item in error.errors()
    ]
    detail = "; ".join(f"{item.param}: {item.detail}" for item in found[:5])
    return problem(request, InvalidBody(detail, param=found[0].param if found else None, errors=found))


def _path(loc: tuple[int | str, ...]) -> str:
    """The place of a fault as a path from the body's root, the query or the headers; the body itself is `body`."""
    return ".".join(map(str, loc[1:] if loc[0] in _IN and len(loc) > 1 else loc))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: NotFound("there is no such path"), 405: MethodNotAllowed()}
    answer = known.get(error.status_code) or BadRequest(str(error.detail))
    answer.headers |= dict(error.headers or {})
    return problem(request, answer)


async def _database(request: Request, error: Exception) -> Response:
    known = to_spine_error(error)
    return problem(request, known) if known is not None else await _ours(request, error)


async def _ours(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.url.path, request_id=request.scope["spine.request_id"], exc_info=error)
    return problem(
        request, SpineError("our fault; it is logged under this request_id, and the request is safe to send again")
    )


def install_error_handlers(app: FastAPI) -> None:
    """Give every kind of exception its handler."""
    app.add_exception_handler(SpineError, _domain)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        app.add_exception_handler(kind, _database)
