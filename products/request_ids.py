"""The outermost middleware: request ids and request metrics (conventions 2.10)."""

import time
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spine.kernel import ids
from spine.kernel.errors import InternalError
from spine.kernel.metrics import http_request
from spine.kernel.responses import PROBLEM

_HEADER: Final = b"request-id"
_log = structlog.get_logger(__name__)


class RequestIds:
    """Gives every request an id and every response its `Request-Id`. Answers an uncaught exception with a 500 and a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = ids.mint("req")
        scope["spine.request_id"] = request_id
        started_s = time.perf_counter()
        status = 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra: dict[str, str] = scope.get("spine.headers", {})  # the rate limit's, set by ApiRoute
                message["headers"] = [
                    *message.get("headers", ()),
                    (_HEADER, request_id.encode()),
                    *((name.lower().encode(), value.encode()) for name, value in extra.items()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except ClientDisconnect:
            _log.info("the caller left", path=scope["path"], request_id=request_id)
        except Exception:
            _log.exception("request failed", path=scope["path"], request_id=request_id)
            if status:
                raise
            await _send_internal_error(request_id, with_id)
        finally:
            route: Any = scope.get("route")
            http_request(scope["method"], getattr(route, "path", "unmatched"), status, time.perf_counter() - started_s)


async def _send_internal_error(request_id: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", PROBLEM.encode())]})
    await send({"type": "http.response.body", "body": InternalError().body(request_id)})
