"""Routes of pages: public, outside the API's specification, and with errors that people can read."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import asyncpg
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError

from products.pages.rendering import error_page
from spine.kernel.database_errors import to_spine_error
from spine.kernel.errors import SpineError
from spine.kernel.routes import ApiRoute, declares

_TITLES: Final = {
    403: "This is not possible",
    404: "Page not found",
    409: "This is not possible any more",
    429: "Too many requests",
    503: "Please try again",
}
_DATABASE_ERRORS: Final = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


class PageRoute(ApiRoute):
    """A route of a page. Its body is a form and no JSON, so the checks of `ApiRoute` do not run; it answers errors as pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = APIRoute.get_route_handler(self)

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except SpineError as error:
                return _error_page(error)
            except _DATABASE_ERRORS as error:
                known = to_spine_error(error)
                if known is None:
                    raise
                return _error_page(known)

        return handler


def page_router() -> APIRouter:
    """Return a router of pages, which are outside the specification (P-26)."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


PUBLIC: Final = declares("", public=True)
"""What the routes of pages declare: they take no key."""


def _error_page(error: SpineError) -> Response:
    return error_page(_TITLES.get(error.status, "Something went wrong"), error.detail, error.status, error.headers)
