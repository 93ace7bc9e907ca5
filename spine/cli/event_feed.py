"""Poll the API for a workspace's new events until the command ends."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from spine.cli.api import Api
from spine.cli.errors import Failure

MIN_INTERVAL_S: Final = 0.5
MAX_INTERVAL_S: Final = 2.0
_INTERVAL_FACTOR: Final = 1.25
_PAGE_SIZE: Final = 100


class EventFeed:
    """Reads events from a cursor. An event that is committed late is read late; no event is read twice or skipped."""

    def __init__(self, api: Api, types: list[str], sleep: Callable[[float], None], note: Callable[[str], None]) -> None:
        self._api = api
        self._types = types
        self._sleep = sleep
        self._note = note
        self._cursor: str | None = None

    def start(self) -> None:
        """Set the cursor to the present. Raises Failure."""
        self._cursor = self._api.get("/v1/events", type=self._types, start="now")["next_cursor"]

    def follow(self) -> Iterator[dict[str, Any]]:
        """Yield new events without end. Waits while the API is unreachable.

        Raises Failure for errors that waiting does not end, such as a revoked key.
        """
        if self._cursor is None:
            self.start()
        interval_s, is_offline = MIN_INTERVAL_S, False
        while True:
            try:
                page = self._api.get("/v1/events", type=self._types, cursor=self._cursor, limit=_PAGE_SIZE)
            except Failure as failure:
                if 400 <= failure.status < 500 and failure.status != 429:
                    raise
                if not is_offline:
                    self._note(f"lost the API ({failure.problem['detail']}); waiting for it")
                is_offline = True
                self._sleep(MAX_INTERVAL_S)
                continue
            if is_offline:
                self._note("the API is back; going on where it was left")
                is_offline = False
            yield from page["data"]
            self._cursor = page["next_cursor"] or self._cursor
            if page["has_more"]:
                continue
            interval_s = MIN_INTERVAL_S if page["data"] else min(interval_s * _INTERVAL_FACTOR, MAX_INTERVAL_S)
            self._sleep(interval_s)
