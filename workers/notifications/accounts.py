"""The provider accounts of a batch of messages, and which of them may be called: quotas, breakers, probes."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from policies.fallback_values import Breakers
from spine.notifications.breakers import may_probe, not_before
from spine.notifications.locked_messages import Connection, LockedMessage

ACCOUNTS_LOAD: Final = """
    SELECT a.workspace_id, a.id, a.env, a.name, a.channel, a.kind, a.priority, a.weight, a.rate_per_s, a.recipient_rate,
           a.unit_cost_micros, a.credentials, a.config, a.sandbox,
           CASE WHEN a.unit_cost_micros IS NULL THEN false ELSE EXISTS (
               SELECT FROM spine.quotas q WHERE q.workspace_id = a.workspace_id AND q.name = 'spend' AND q.used >= q."limit"
                  AND q.resets_at > now()) END AS spent,
           b.state AS breaker, coalesce(b.generation, 0) AS generation, b.opened_until, b.probe_until, b.forced, b.forced_until,
           coalesce(b.degraded_until > now(), false) AS degraded
      FROM spine.provider_accounts a
      LEFT JOIN spine.provider_breakers b ON b.workspace_id = a.workspace_id AND b.account_id = a.id
     WHERE a.workspace_id = ANY ($1::text[]) ORDER BY a.workspace_id, a.priority, a.id
"""
QUOTAS_USED_UP: Final = """
    SELECT workspace_id FROM spine.quotas
     WHERE workspace_id = ANY ($1::text[]) AND name = 'messages' AND used >= "limit" AND resets_at > now()
"""
PROBES_TAKE: Final = """
    UPDATE spine.provider_breakers b
       SET state = 'half_open', opened_until = NULL, generation = generation + (state = 'open')::int, probe_until = now() + $3::interval,
           successes = CASE state WHEN 'open' THEN 0 ELSE successes END, calls = '[]', connect_failures = 0
     WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM spine.provider_breakers WHERE (workspace_id, account_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
            AND (forced IS NULL OR forced_until <= now())
            AND ((state = 'open' AND opened_until <= now()) OR (state = 'half_open' AND coalesce(probe_until, '-infinity') <= now()))
          ORDER BY workspace_id, account_id FOR UPDATE SKIP LOCKED))
 RETURNING b.account_id, b.generation
"""
"""Gives this worker the only probe of each of these accounts, unless another worker is about to take it."""
PROBES_GIVE_BACK: Final = "UPDATE spine.provider_breakers SET probe_until = NULL WHERE account_id = ANY ($1::text[])"

_LONGEST_WAIT_S: Final = 60.0
"""Parked messages look again after this time: an operator, or other credentials, may have ended what they wait for."""


class Accounts:
    """The accounts of the workspaces of one batch, in order of priority."""

    def __init__(self, rows: Iterable[Any], recheck_s: float, probe_lease: timedelta) -> None:
        self._by_workspace: dict[str, list[dict[str, Any]]] = {}
        self.by_id: dict[str, dict[str, Any]] = {}
        for row in rows:
            account = dict(row)
            self._by_workspace.setdefault(account["workspace_id"], []).append(account)
            self.by_id[account["id"]] = account
        self._recheck_s = recheck_s
        self._probe_lease = probe_lease
        self._open_until: dict[str, datetime] = {}
        self._probes: set[str] = set()

    @classmethod
    async def load(
        cls,
        connection: Connection,
        workspaces: Collection[str],
        now: datetime,
        recheck_s: float,
        probe_lease: timedelta,
    ) -> "Accounts":
        """Load the accounts of these workspaces, and take the probes that are due, in the running transaction."""
        accounts = cls(await connection.fetch(ACCOUNTS_LOAD, sorted(workspaces)), recheck_s, probe_lease)
        await accounts._read_breakers(connection, now)
        return accounts

    async def _read_breakers(self, connection: Connection, now: datetime) -> None:
        due = []
        for account in self.by_id.values():
            recheck_s = _LONGEST_WAIT_S if account["breaker"] == "misconfigured" else self._recheck_s
            until = not_before(account, now, recheck_s)
            if until is not None:
                self._open_until[account["id"]] = min(until, now + timedelta(seconds=_LONGEST_WAIT_S))
                if may_probe(account, now):
                    due.append((account["workspace_id"], account["id"]))
        if due:
            columns = [workspace_id for workspace_id, _ in due], [id for _, id in due]
            for taken in await connection.fetch(PROBES_TAKE, *columns, self._probe_lease):
                self._probes.add(taken["account_id"])
                self.by_id[taken["account_id"]]["generation"] = taken["generation"]

    def of(self, workspace_id: str) -> list[dict[str, Any]]:
        """Return the accounts of a workspace."""
        return self._by_workspace.get(workspace_id, [])

    @property
    def breakers(self) -> Breakers:
        """The accounts that must not be called now. An account whose probe is free may be called once."""
        return Breakers({id: until for id, until in self._open_until.items() if id not in self._probes})

    def start(self, account_id: str) -> Mapping[str, Any]:
        """Note that a call to the account is about to start; it uses the probe. Returns the account's row."""
        self._probes.discard(account_id)
        return self.by_id[account_id]

    async def give_back_probes(self, connection: Connection) -> None:
        """Give back the probes that no message of the batch has used."""
        if self._probes:
            await connection.execute(PROBES_GIVE_BACK, sorted(self._probes))


async def quotas_used_up(connection: Connection, messages: Iterable[LockedMessage]) -> set[str]:
    """Return the workspaces whose quota is used up, of those with a message that may take a further step."""
    asked = {one.key[0] for one in messages if any(attempt.accepted_at is not None for attempt in one.attempts)}
    return {row["workspace_id"] for row in await connection.fetch(QUOTAS_USED_UP, sorted(asked))} if asked else set()
