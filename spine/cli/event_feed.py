"""The forward feed of a workspace's events, from now on, for as long as somebody listens."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from spine.cli.api import Api
from spine.cli.errors import Failure

SHORTEST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 2.0
_SLOWER: Final = 1.25
_PAGE: Final = 100


class Feed:
    """Reads on where it left off. What is committed late is read late, and nothing is read twice or left out."""

    def __init__(self, api: Api, types: list[str], sleep: Callable[[float], None], note: Callable[[str], None]) -> None:
        self._api = api
        self._types = types
        self._sleep = sleep
        self._note = note
        self._cursor: str | None = None

    def start(self) -> None:
        """Take the present as the beginning. Raises Failure."""
        self._cursor = self._api.get("/v1/events", type=self._types, start="now")["next_cursor"]

    def follow(self) -> Iterator[dict[str, Any]]:
        """Events as they come, without end. An API that is away for a while is waited for.

        Raises Failure for what waiting does not mend, such as a key that was revoked.
        """
        if self._cursor is None:
            self.start()
        wait_s, away = SHORTEST_WAIT_S, False
        while True:
            try:
                page = self._api.get("/v1/events", type=self._types, cursor=self._cursor, limit=_PAGE)
            except Failure as failure:
                if 400 <= failure.status < 500 and failure.status != 429:
                    raise
                if not away:
                    self._note(f"lost the API ({failure.problem['detail']}); waiting for it")
                away = True
                self._sleep(LONGEST_WAIT_S)
                continue
            if away:
                self._note("the API is back; going on where it was left")
                away = False
            yield from page["data"]
            self._cursor = page["next_cursor"] or self._cursor
            if page["has_more"]:
                continue
            wait_s = SHORTEST_WAIT_S if page["data"] else min(wait_s * _SLOWER, LONGEST_WAIT_S)
            self._sleep(wait_s)
