"""Messages of the benchmarks: what a workspace needs to send them, and when they were handed over."""

import asyncio

import orjson

from bench.database import Database, Workspace
from spine.kernel import ids

TEMPLATE = "bench"
_ACCOUNT = """
    INSERT INTO spine.provider_accounts (workspace_id, id, env, name, channel, kind, priority, weight, sandbox)
    VALUES ($1, $2, 'test', 'bench', 'sms', 'sandbox', 1, 1, $3::jsonb)
"""
_TEMPLATE = """
    INSERT INTO spine.templates (workspace_id, id, slug, locale, bodies, category)
    VALUES ($1, $2, $3, 'en', '{"sms": "hello"}', 'transactional')
"""


async def prepare(database: Database, *, slow_ms: int = 0) -> Workspace:
    """Create a workspace with a sandbox account for SMS, which takes `slow_ms` for each call, and a template."""
    workspace = await database.create_workspace()
    state = {"outage": "slow_ms" if slow_ms else False, "slow_ms": slow_ms}
    account_id = ids.mint(ids.PREFIXES["provider_account"])
    await database.pool.execute(_ACCOUNT, workspace.id, account_id, orjson.dumps(state).decode())
    await database.pool.execute(_TEMPLATE, workspace.id, ids.mint(ids.PREFIXES["template"]), TEMPLATE)
    return workspace


async def sent_after_s(database: Database, workspace: Workspace, count: int, within_s: float = 120) -> list[float]:
    """Wait until `count` messages were handed over. Return the seconds that each took since it was accepted."""
    until_s = asyncio.get_running_loop().time() + within_s
    query = (
        "SELECT extract(epoch FROM min(a.started_at) - m.created_at)::float8 FROM spine.messages m JOIN spine.attempts a "
        "ON a.workspace_id = m.workspace_id AND a.message_id = m.id WHERE m.workspace_id = $1 GROUP BY m.id, m.created_at"
    )
    while len(rows := await database.pool.fetch(query, workspace.id)) < count:
        if asyncio.get_running_loop().time() > until_s:
            raise TimeoutError(f"{len(rows)} of {count} messages were sent")
        await asyncio.sleep(0.1)
    return [row[0] for row in rows]
