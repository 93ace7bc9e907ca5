"""The pace of accounts with a rate, which all workers keep together: one row that is locked while messages are claimed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from policies.send_turns import calls_due, next_call_s
from workers.connection import Connection

PACES_PUT: Final = """
    INSERT INTO spine.provider_paces (workspace_id, account_id)
    SELECT u.workspace_id, u.id FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id) ORDER BY 1, 2 ON CONFLICT DO NOTHING
"""
PACES_LOCK: Final = """
    SELECT p.account_id, p.next_call_at, clock_timestamp() AS now FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.provider_paces p ON p.workspace_id = u.workspace_id AND p.account_id = u.id
     ORDER BY p.workspace_id, p.account_id FOR UPDATE OF p SKIP LOCKED
"""
"""Locks the paces of these accounts. One that another worker holds is left out: it claims the account's messages."""
PACES_WRITE: Final = """
    UPDATE spine.provider_paces p SET next_call_at = u.next_call_at
      FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u (workspace_id, id, next_call_at)
     WHERE p.workspace_id = u.workspace_id AND p.account_id = u.id
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of one account, under lock. `next_call_in_s` is negative if a call may have started already."""

    workspace_id: str
    account_id: str
    rate_per_s: float
    now: datetime
    next_call_in_s: float

    @property
    def calls(self) -> int:
        """How many calls may start now."""
        return calls_due(self.next_call_in_s, 0.0, self.rate_per_s)

    def next_call_at(self, calls: int) -> datetime:
        """Return when the next call may start, after this many that start now."""
        return self.now + timedelta(seconds=next_call_s(self.next_call_in_s, 0.0, self.rate_per_s, calls))


async def lock_paces(connection: Connection, accounts: Iterable[Any]) -> dict[str, Pace]:
    """Lock the paces of accounts with a rate, in the running transaction. `accounts` are rows of `turns.WAITING_FIND`."""
    rated = {row["id"]: row for row in accounts}
    unknown = [row for row in rated.values() if not row["paced"]]
    if unknown:
        await connection.execute(PACES_PUT, [row["workspace_id"] for row in unknown], [row["id"] for row in unknown])
    columns = [row["workspace_id"] for row in rated.values()], list(rated)
    return {
        locked["account_id"]: Pace(
            rated[locked["account_id"]]["workspace_id"],
            locked["account_id"],
            rated[locked["account_id"]]["rate_per_s"],
            locked["now"],
            (locked["next_call_at"] - locked["now"]).total_seconds(),
        )
        for locked in await connection.fetch(PACES_LOCK, *columns)
    }


async def write_paces(connection: Connection, paces: Mapping[str, Pace], calls: Mapping[str, int]) -> None:
    """Take the calls that start now off the paces, by account, in the transaction that locked them."""
    used = [(pace, calls[id]) for id, pace in paces.items() if calls.get(id)]
    if used:
        await connection.execute(
            PACES_WRITE,
            [pace.workspace_id for pace, _ in used],
            [pace.account_id for pace, _ in used],
            [pace.next_call_at(count) for pace, count in used],
        )
