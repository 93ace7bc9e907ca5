"""The rates of accounts to one person (`recipient_rate`), which all workers keep together: one row for an account and an address.

A batch locks the rows of the persons that it may write to, in the transaction that decides. It waits for no lock: a message
whose row another worker holds is decided on again a moment later.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from policies.recipient_rate import RecipientPace, RecipientRate
from spine.notifications.locked_messages import Connection, LockedMessage

PACES_PUT: Final = """
    INSERT INTO spine.recipient_paces (workspace_id, account_id, recipient, used_until, queued_until)
    SELECT DISTINCT u.workspace_id, u.account_id, u.recipient, $4::timestamptz, $4
      FROM unnest($1::text[], $2::text[], $3::text[]) AS u (workspace_id, account_id, recipient)
     WHERE NOT EXISTS (SELECT FROM spine.recipient_paces p
                        WHERE p.workspace_id = u.workspace_id AND p.account_id = u.account_id AND p.recipient = u.recipient)
     ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING
"""
PACES_LOCK: Final = """
    SELECT p.workspace_id, p.account_id, p.recipient, p.used_until, p.queued_until
      FROM unnest($1::text[], $2::text[], $3::text[]) AS u (workspace_id, account_id, recipient)
      JOIN spine.recipient_paces p
        ON p.workspace_id = u.workspace_id AND p.account_id = u.account_id AND p.recipient = u.recipient
       FOR UPDATE OF p SKIP LOCKED
"""
PACES_WRITE: Final = """
    UPDATE spine.recipient_paces p SET used_until = u.used_until, queued_until = u.queued_until
      FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
           AS u (workspace_id, account_id, recipient, used_until, queued_until)
     WHERE p.workspace_id = u.workspace_id AND p.account_id = u.account_id AND p.recipient = u.recipient
"""

_LOCKED_PAUSE: Final = timedelta(seconds=0.25)
"""A message whose person's row another worker holds is due again after this time."""

_Key = tuple[str, str, str]
"""(workspace id, account id, address)."""


class RecipientPaces:
    """The paces that the messages of one batch need, under lock."""

    def __init__(self, accounts: Iterable[Mapping[str, Any]], now: datetime) -> None:
        self._now = now
        self._rated: dict[str, list[Mapping[str, Any]]] = {}
        for account in accounts:
            if account["recipient_rate"] is not None:
                self._rated.setdefault(account["workspace_id"], []).append(account)
        self._locked: dict[_Key, RecipientPace] = {}
        self._changed: set[_Key] = set()

    @classmethod
    async def lock(
        cls,
        connection: Connection,
        messages: Iterable[LockedMessage],
        accounts: Iterable[Mapping[str, Any]],
        now: datetime,
    ) -> "RecipientPaces":
        """Lock the paces of these messages' persons, in the running transaction. `accounts` are those of their workspaces."""
        paces = cls(accounts, now)
        wanted = {key: account for message in messages for key, account in paces._keys(message)} if paces._rated else {}
        if wanted:
            columns = _columns(sorted(wanted))
            await connection.execute(PACES_PUT, *columns, now)
            for row in await connection.fetch(PACES_LOCK, *columns):
                key = row["workspace_id"], row["account_id"], row["recipient"]
                paces._locked[key] = RecipientPace(_rate(wanted[key]), row["used_until"], row["queued_until"])
        return paces

    def _keys(self, message: LockedMessage) -> Iterator[tuple[_Key, Mapping[str, Any]]]:
        channels = {step.channel for step in message.policy.steps}
        for account in self._rated.get(message.key[0], ()):
            if account["channel"] in channels:
                yield (message.key[0], account["id"], message.row["addresses"][account["channel"]]), account

    def free_at(self, message: LockedMessage) -> dict[str, datetime]:
        """Return when each account with a rate to one person may send this message."""
        return {
            key[1]: self._locked[key].free_at(self._now) if key in self._locked else self._now + _LOCKED_PAUSE
            for key, _ in self._keys(message)
        }

    def use(self, message: LockedMessage, account_id: str) -> None:
        """Note that the account sends this message now."""
        for pace in self._paces(message, account_id):
            pace.use(self._now)

    def queue(self, message: LockedMessage, account_id: str, until: datetime) -> bool:
        """Note that this message waits until then for the account. Returns False if another worker holds the row."""
        paces = list(self._paces(message, account_id))
        for pace in paces:
            pace.queue(until)
        return bool(paces)

    def _paces(self, message: LockedMessage, account_id: str) -> Iterator[RecipientPace]:
        """Yield the pace, if the account has a rate to one person and its row is locked: it is about to change."""
        for key, _ in self._keys(message):
            if key[1] == account_id and key in self._locked:
                self._changed.add(key)
                yield self._locked[key]

    async def write(self, connection: Connection) -> None:
        """Write the paces that have changed, in the transaction that locked them."""
        if self._changed:
            keys = sorted(self._changed)
            paces = [self._locked[key] for key in keys]
            times = [pace.used_until for pace in paces], [pace.queued_until for pace in paces]
            await connection.execute(PACES_WRITE, *_columns(keys), *times)


def _columns(keys: Sequence[_Key]) -> tuple[list[str], list[str], list[str]]:
    return [key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]


def _rate(account: Mapping[str, Any]) -> RecipientRate:
    rate = account["recipient_rate"]
    return RecipientRate(timedelta(seconds=rate["interval_s"]), rate["burst"])
