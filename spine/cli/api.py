"""The API as a caller uses it: one idempotency key per change, retried while it is busy, its problems told as they are."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from spine import __version__
from spine.cli.errors import Failure

_PAGE: Final = 100
_TRIES: Final = 4
_LONGEST_WAIT_S: Final = 5.0
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


class Api:
    """One workspace's API. Everything raises Failure."""

    def __init__(
        self,
        url: str,
        key: str,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": f"spine-cli/{__version__}"},
            timeout=30,
            transport=transport,
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # a proxy has no business with this machine's own
        )

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Read something; parameters that are None or empty are left out."""
        return self._call("GET", path, params=_given(params))

    def post(self, path: str, body: dict[str, Any] | None = None, *, idempotency_key: str | None = None) -> Any:
        """Make or do something."""
        return self._call("POST", path, json=body or {}, headers=_idempotent(idempotency_key))

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """Change something."""
        return self._call("PATCH", path, json=body, headers=_idempotent(None))

    def some(self, path: str, count: int, **params: Any) -> dict[str, Any]:
        """The first `count` items of a list, over as many pages as it takes, as `{data, has_more}`."""
        items: list[Any] = []
        more = False
        for page in self.pages(path, min(count, _PAGE), **params):
            items += page["data"]
            more = page["has_more"] or len(items) > count
            if len(items) >= count:
                break
        return {"data": items[:count], "has_more": more}

    def pages(self, path: str, limit: int = _PAGE, **params: Any) -> Iterator[dict[str, Any]]:
        """A list page by page."""
        cursor = None
        while True:
            page = self.get(path, limit=limit, cursor=cursor, **params)
            yield page
            cursor = page["next_cursor"]
            if not page["has_more"]:
                return

    def _call(self, method: str, path: str, **options: Any) -> Any:
        for attempt in range(1, _TRIES + 1):
            try:
                answer = self._http.request(method, path, **options)
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            if answer.status_code not in (429, 503) or attempt == _TRIES:
                return _content(answer)
            self._sleep(_retry_after_s(answer))
        raise AssertionError("the last try has answered")

    def _unreachable(self, error: httpx.HTTPError) -> Failure:
        why = str(error) or type(error).__name__
        return Failure(
            f"cannot reach the API at {self.url}: {why}. Is it running (`make up`, `spine doctor`)? "
            "Another address is given by --url or SPINE_URL",
            problem={"code": "unreachable", "detail": why},
        )


def _given(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value not in (None, [], "")}


def _idempotent(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or f"cli-{uuid.uuid4()}"}


def _retry_after_s(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_WAIT_S) if text.isdigit() else 1.0


def _content(answer: httpx.Response) -> Any:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.is_success and content is not None:
        return content
    if not isinstance(content, dict) or "detail" not in content:
        raise Failure(
            f"this is no Spine API: {answer.request.url} answered {answer.status_code} without a document of ours",
            problem={"code": "not_spine", "status": answer.status_code, "detail": answer.text[:200]},
        )
    raise Failure(_sentence(content), problem=content)


def _sentence(problem: dict[str, Any]) -> str:
    parts = [f"{problem['detail']} ({problem.get('code', problem.get('status'))}"]
    if problem.get("param") and problem["param"] not in problem["detail"]:
        parts.append(f", field {problem['param']}")
    parts.append(")")
    if problem.get("status", 0) >= 500:
        parts.append(f" [{problem.get('request_id')}]")
    return "".join(parts)
