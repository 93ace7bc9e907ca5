"""Turns of workspaces at a shared queue: equal shares by cost, and live workspaces before test ones.

While both wait, all test workspaces together get an eighth of what the live ones get. So they go on, however long live
ones wait, and no number of them takes more.
"""

from collections.abc import Mapping
from typing import Final

from policies.fair_queue import FairQueue

TEST_PART: Final = 8
"""The live workspaces get this many times what the test ones get, while both wait."""


class Turns:
    """Chooses which workspace goes next. `open` those that wait, then take `next` and `charge` it, then `close`."""

    def __init__(self) -> None:
        self._environments: FairQueue[bool] = FairQueue()
        self._workspaces: dict[bool, FairQueue[str]] = {True: FairQueue(), False: FairQueue()}
        self._waiting = {True: 0, False: 0}
        self._live = True
        """Whether the workspace that `next` returned is a live one."""

    def open(self, waiting: Mapping[str, bool]) -> None:
        """Let these workspaces wait, each with whether it is live. Among equals the first one goes first."""
        for live, workspaces in self._workspaces.items():
            flows = [workspace for workspace, is_live in waiting.items() if is_live is live]
            workspaces.open(flows)
            self._waiting[live] = len(flows)
        self._environments.open(live for live in (True, False) if self._waiting[live])

    def next(self) -> str | None:
        """Return the workspace whose turn it is, and remove it until it is charged; None if none waits."""
        live = self._environments.next()
        if live is None:
            return None
        self._live = live
        return self._workspaces[live].next()

    def charge(self, workspace: str, cost: float, *, waits: bool) -> None:
        """Charge the workspace that `next` returned with what it got. `waits`: it has more work."""
        live = self._live
        self._workspaces[live].charge(workspace, cost, waits=waits)
        self._waiting[live] -= not waits
        self._environments.charge(live, cost if live else cost * TEST_PART, waits=self._waiting[live] > 0)

    def close(self) -> None:
        """End these turns. What a workspace has had more than its share counts in the next ones."""
        self._environments.close()
        for workspaces in self._workspaces.values():
            workspaces.close()


def divide(rows: int, waiting: Mapping[str, bool]) -> dict[str, int]:
    """Return how many of `rows` each of the waiting workspaces may take, at least one each, in the order of `waiting`.

    Leaves out workspaces at the end if there are more of them than rows. A test workspace always gets at least one.
    """
    found: dict[str, int] = {}
    tests = sum(not live for live in waiting.values())
    lives = len(waiting) - tests
    for_tests = rows if not lives else max(1, rows // (TEST_PART + 1)) if tests else 0
    left = {True: max(1, rows - for_tests), False: for_tests}
    each = {True: max(1, left[True] // max(lives, 1)), False: max(1, left[False] // max(tests, 1))}
    for workspace, live in waiting.items():
        if left[live] > 0:
            found[workspace] = min(each[live], left[live])
            left[live] -= found[workspace]
    return found
