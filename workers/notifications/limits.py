"""The calls in flight of this process, by workspace and by account, and what each account may call now."""

from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

from policies.fair_share import room
from policies.send_turns import calls_due
from workers.notifications.calls import PreparedCall


class SendLimits:
    """Bounds the calls of this process: in all, of one workspace (`policies.fair_share`), and of one account.

    The rate of an account is kept by all workers together, in `workers.notifications.paces`. An account whose messages wait
    is in `waiting`: its new messages wait behind them.
    """

    def __init__(self, max_calls: int, max_calls_per_account: int) -> None:
        self._max = max_calls
        self._max_per_account = max_calls_per_account
        self._accounts: Counter[str] = Counter()
        self._live: Counter[str] = Counter()
        self._test: Counter[str] = Counter()
        self.waiting: Set[str] = frozenset()

    @property
    def free(self) -> int:
        """How many more calls may start."""
        return self._max - self._live.total() - self._test.total()

    @property
    def by_workspace(self) -> Mapping[str, int]:
        """The calls in flight of each workspace."""
        return self._live | self._test

    @property
    def is_crowded(self) -> bool:
        """Whether a workspace holds all that it may, so that claims must look at whose messages they take."""
        free = self.free
        return any(
            calls and room(max(calls.values()), free, live=live) < 1
            for calls, live in ((self._live, True), (self._test, False))
        )

    def start(self, prepared: PreparedCall) -> None:
        """Count a call that starts."""
        self._calls_of(prepared)[prepared.key[0]] += 1
        self._accounts[prepared.account_id] += 1

    def end(self, prepared: PreparedCall) -> None:
        """Count a call that has ended."""
        for calls, key in ((self._calls_of(prepared), prepared.key[0]), (self._accounts, prepared.account_id)):
            calls[key] -= 1
            if not calls[key]:
                del calls[key]

    def _calls_of(self, prepared: PreparedCall) -> Counter[str]:
        return self._live if prepared.live else self._test

    def may_call(self, account: Any, planned: int) -> bool:
        """Whether a message that has not waited may call this account, beside `planned` calls that have not started.

        A message of an account with a rate always waits for its turn, so that turns are in the order of acceptance.
        """
        if account["rate_per_s"] is not None or account["id"] in self.waiting:
            return False
        return self._accounts[account["id"]] + planned < self._max_per_account

    def calls_now(self, account: Any) -> int:
        """How many of an account's waiting messages may be called now. `account` is a row of `turns.WAITING_FIND`."""
        free = max(0, self._max_per_account - self._accounts[account["id"]])
        rate = account["rate_per_s"]
        return free if rate is None else min(free, calls_due(account["next_call_in_s"], 0.0, rate))
