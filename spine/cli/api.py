"""Client of the API: one idempotency key per change, retries while the API is busy, errors with the API's own text."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from spine import __version__
from spine.cli.errors import Failure

_PAGE_SIZE: Final = 100
_MAX_ATTEMPTS: Final = 4
_MAX_WAIT_S: Final = 5.0
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


class Api:
    """The API of one workspace. Every method raises Failure."""

    def __init__(
        self,
        url: str,
        key: str,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self.key = key
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": f"spine-cli/{__version__}"},
            timeout=30,
            transport=transport,
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # requests to this machine must not go to a proxy
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Read a resource or a page. Parameters that are None or empty are omitted."""
        return self._call("GET", path, params=_without_empty(params))

    def post(self, path: str, body: dict[str, Any] | None = None, *, idempotency_key: str | None = None) -> Any:
        """Create a resource or run an action."""
        return self._call("POST", path, json=body or {}, headers=_idempotency_header(idempotency_key))

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """Change a resource."""
        return self._call("PATCH", path, json=body, headers=_idempotency_header(None))

    def delete(self, path: str) -> None:
        """Delete a resource."""
        self._call("DELETE", path, headers=_idempotency_header(None))

    def first(self, path: str, count: int, **params: Any) -> dict[str, Any]:
        """Return the first `count` items of a list as `{data, has_more}`. Reads as many pages as necessary."""
        items: list[Any] = []
        has_more = False
        for page in self.pages(path, min(count, _PAGE_SIZE), **params):
            items += page["data"]
            has_more = page["has_more"] or len(items) > count
            if len(items) >= count:
                break
        return {"data": items[:count], "has_more": has_more}

    def pages(self, path: str, limit: int = _PAGE_SIZE, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list."""
        cursor = None
        while True:
            page = self.get(path, limit=limit, cursor=cursor, **params)
            yield page
            cursor = page["next_cursor"]
            if not page["has_more"]:
                return

    def _call(self, method: str, path: str, **options: Any) -> Any:
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                response = self._http.request(method, path, **options)
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            if response.status_code not in (429, 503) or attempt == _MAX_ATTEMPTS:
                return _content(response)
            self._sleep(_retry_after_s(response))
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, error: httpx.HTTPError) -> Failure:
        reason = str(error) or type(error).__name__
        return Failure(
            f"cannot reach the API at {self.url}: {reason}. Is it running (`make up`, `spine doctor`)? "
            "Another address is given by --url or SPINE_URL",
            problem={"code": "unreachable", "detail": reason},
        )


def _without_empty(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value not in (None, [], "")}


def _idempotency_header(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or f"cli-{uuid.uuid4()}"}


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _MAX_WAIT_S) if text.isdigit() else 1.0


def _content(response: httpx.Response) -> Any:
    try:
        content = response.json()
    except ValueError:
        content = None
    if response.is_success and content is not None:
        return content
    if not isinstance(content, dict) or "detail" not in content:
        raise Failure(
            f"this is no Spine API: {response.request.url} answered {response.status_code} without a document of ours",
            problem={"code": "not_spine", "status": response.status_code, "detail": response.text[:200]},
        )
    raise Failure(_format_problem(content), problem=content)


def _format_problem(problem: dict[str, Any]) -> str:
    parts = [f"{problem['detail']} ({problem.get('code', problem.get('status'))}"]
    if problem.get("param") and problem["param"] not in problem["detail"]:
        parts.append(f", field {problem['param']}")
    parts.append(")")
    if problem.get("status", 0) >= 500:
        parts.append(f" [{problem.get('request_id')}]")
    return "".join(parts)
