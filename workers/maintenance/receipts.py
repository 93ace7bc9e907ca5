"""Judges provider accounts by their receipts (`policies.degraded`), where a workspace has several of them on one channel."""

from collections import defaultdict
from typing import Any, Final

import structlog

from policies.degraded import Receipts, degraded
from spine.notifications.provider_kinds import PROVIDER_KINDS
from workers.connection import Connection
from workers.maintenance.lease import Lease

WORKSPACES: Final = """
    SELECT workspace_id FROM spine.provider_accounts WHERE workspace_id > $1 AND kind = ANY ($2::text[])
     GROUP BY workspace_id, channel HAVING count(*) > 1 ORDER BY workspace_id LIMIT $3
"""
"""Workspaces with a channel that has several accounts. One row for each such channel."""
SAMPLES: Final = """
    WITH span (name, starts, ends) AS (VALUES ('recent', interval '20 minutes', interval '5 minutes'),
                                              ('usual', interval '24 hours', interval '1 hour')),
    sample AS (
        SELECT s.name, a.* FROM span s CROSS JOIN LATERAL (
            SELECT o.provider_account_id, o.channel, o.accepted_at, o.delivered_at FROM spine.attempts o
             WHERE o.workspace_id = $1 AND o.id >= 'att_' || spine.ulid_time(now() - s.starts)
               AND o.id < 'att_' || spine.ulid_time(now() - s.ends) ORDER BY o.id DESC LIMIT $2) a
         WHERE a.accepted_at IS NOT NULL
    )
    SELECT name, channel, provider_account_id, count(*) AS accepted,
           count(*) FILTER (WHERE delivered_at <= accepted_at + interval '5 minutes') AS delivered
      FROM sample GROUP BY name, channel, provider_account_id
"""
"""What accounts took from 20 to 5 minutes ago, and from a day to an hour ago, at most `$2` attempts of a workspace each."""
DEGRADE: Final = """
    INSERT INTO spine.provider_breakers AS b (workspace_id, account_id, degraded_until)
    SELECT $1, u.id, now() + interval '5 minutes' FROM unnest($2::text[]) AS u (id) ORDER BY u.id
    ON CONFLICT (workspace_id, account_id) DO UPDATE SET degraded_until = EXCLUDED.degraded_until
"""

_SAMPLE: Final = 5_000
_PAGE: Final = 100
_log = structlog.get_logger(__name__)


class ReceiptJudge:
    """Sets `degraded_until` of accounts. What is not judged bad again within 5 minutes has its full share again."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._kinds = [name for name, kind in PROVIDER_KINDS.items() if kind.receipts]

    async def judge(self, connection: Connection) -> None:
        """Judge the accounts of all workspaces once. Raises LeaseLostError."""
        after = ""
        while page := await connection.fetch(WORKSPACES, after, self._kinds, _PAGE):
            for workspace_id in sorted({row["workspace_id"] for row in page}):
                await self._lease.renew()
                await self._judge(connection, workspace_id)
            after = page[-1]["workspace_id"]

    async def _judge(self, connection: Connection, workspace_id: str) -> None:
        samples: Any = defaultdict(lambda: {"recent": {}, "usual": {}})
        for row in await connection.fetch(SAMPLES, workspace_id, _SAMPLE):
            receipts = Receipts(row["accepted"], row["delivered"])
            samples[row["channel"]][row["name"]][row["provider_account_id"]] = receipts
        bad = sorted(id for one in samples.values() for id in degraded(one["recent"], one["usual"]))
        if bad:
            _log.warning("accounts are degraded", workspace_id=workspace_id, provider_account_ids=bad)
            await connection.execute(DEGRADE, workspace_id, bad)
