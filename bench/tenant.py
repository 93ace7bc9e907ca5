"""A database on the bench: workspaces, endpoints and events put there by SQL, and what became of them."""

import base64
import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import asyncpg

from bench.reconciliation import Books
from spine.directory.api_keys import key_columns
from spine.kernel import ids
from spine.kernel.events import Actor, event_body
from spine.kernel.keys import mint_key
from spine.kernel.redis_client import open_redis
from spine.kernel.vault import Vault
from spine.kernel.wakeups import WakeupKind, Wakeups
from spine.webhooks.signing import new_secret

BODY_BYTES = 600
"""The size of a usual event, as it is sent."""
CAP = 10
_TABLES = "spine.outbox, spine.deliveries_open, spine.deliveries_closed, spine.events, spine.idempotency_keys"


@dataclass(slots=True)
class Workspace:
    """A workspace with its key; `accepted` are the ids of the events that were put into it."""

    id: str
    key: str
    endpoints: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


@functools.cache
def _fill(size: int) -> bytes:
    """Text that no compression makes smaller: the database would otherwise keep little of a large body."""
    return base64.b64encode(random.Random(1).randbytes(size))[:size]


def body(id: str, type: str, workspace_id: str, size: int, n: int) -> bytes:
    """An event's body of about this size, made as the API makes it."""
    head = {
        "id": id, "type": type, "at": ids.created_at(id), "workspace_id": workspace_id, "env": "test",
        "request_id": "req_00000000000000000000000000", "actor": Actor(type="api_key", id="key_00000000000000000000000000"),
        "sequence": n,
    }  # fmt: skip
    bare = event_body(**head, data=b'{"fill":""}')  # type: ignore[arg-type]  # named one by one above
    return event_body(**head, data=b'{"fill":"' + _fill(max(0, size - len(bare))) + b'"}')  # type: ignore[arg-type]


class Database:
    """One database, seen as its owner sees it, and its bell."""

    def __init__(self, url: str, redis_url: str, key: str, pool: Any, wakeups: Wakeups) -> None:
        self.url, self.redis_url = url, redis_url
        self.pool = pool
        self._bell = wakeups
        self._vault = Vault.from_text(key)

    @classmethod
    async def open(cls, url: str, redis_url: str, key: str) -> Self:
        """Connect to a migrated database."""
        pool = await asyncpg.create_pool(url, min_size=1, max_size=4, command_timeout=1800)
        await pool.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        return cls(url, redis_url, key, pool, Wakeups(open_redis(redis_url)))

    def wake(self, kind: WakeupKind) -> None:
        """Say that there is work."""
        self._bell.wake(kind)

    def wake_at(self, kind: WakeupKind, due_times_s: Sequence[float]) -> None:
        """Say when there will be."""
        self._bell.wake_at(kind, due_times_s)

    async def workers(self) -> int:
        """Workers on the roster."""
        return int(await self.pool.fetchval("SELECT count(*) FROM spine.workers"))

    async def workspace(self) -> Workspace:
        """A new workspace."""
        org, made = ids.mint("org"), Workspace(ids.mint("wsp"), mint_key("test"))
        await self.pool.execute(
            "INSERT INTO spine.organisations (id, name, email) VALUES ($1, 'Bench', 'b@x.test')", org
        )
        await self.pool.execute(
            "INSERT INTO spine.workspaces (workspace_id, organisation_id, env) VALUES ($1, $2, 'test')", made.id, org
        )
        columns = key_columns(made.key)
        await self.pool.execute(
            "INSERT INTO spine.api_keys (workspace_id, id, name, scopes, hash, prefix, last4) "
            "VALUES ($1, $2, 'bench', '{*}', $3, $4, $5)",
            made.id,
            ids.mint("key"),
            *columns.values(),
        )
        return made

    async def endpoints(
        self, workspace: Workspace, urls: Sequence[str], *, type: str | None = None, cap: int = CAP
    ) -> None:
        """Endpoints that listen from now on: the n-th to `bench.t<n>`, or all of them to `type`."""
        first = len(workspace.endpoints)
        made = [(ids.mint("whe"), url, type or f"bench.t{first + n}") for n, url in enumerate(urls)]
        ws = workspace.id
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.executemany(
                "INSERT INTO spine.webhook_endpoints (workspace_id, id, url, events, max_in_flight) VALUES ($1, $2, $3, $4, $5)",
                [(ws, id, url, [pattern], cap) for id, url, pattern in made],
            )
            await connection.executemany(
                "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret) VALUES ($1, $2, $3)",
                [(ws, id, self._vault.seal(new_secret().encode())) for id, _, _ in made],
            )
            await connection.executemany(
                "INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern) VALUES ($1, $2, $3)",
                [(ws, id, pattern) for id, _, pattern in made],
            )
        workspace.endpoints += [id for id, _, _ in made]

    async def events(
        self, workspace: Workspace, count: int, types: Sequence[str], size: int = BODY_BYTES, *, relayed: bool = False
    ) -> list[str]:
        """Commit events as accepting them does, the types in turn; with `relayed` they are not put into the outbox."""
        made = [(ids.mint("evt"), types[n % len(types)]) for n in range(count)]
        ws = workspace.id
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.copy_records_to_table(
                "events",
                schema_name="spine",
                columns=["workspace_id", "id", "type", "body"],
                records=[(ws, id, type, body(id, type, ws, size, n)) for n, (id, type) in enumerate(made)],
            )
            if not relayed:
                await connection.copy_records_to_table(
                    "outbox",
                    schema_name="spine",
                    columns=["workspace_id", "event_id", "type"],
                    records=[(ws, id, type) for id, type in made],
                )
        found = [id for id, _ in made]
        workspace.accepted += found
        return found

    async def books(self, workspace: Workspace) -> Books:
        """Count."""
        row = await self.pool.fetchrow(
            "SELECT (SELECT count(*) FROM spine.deliveries_closed WHERE workspace_id = $1 AND state = 'delivered') AS delivered,"
            " (SELECT count(*) FROM spine.deliveries_closed WHERE workspace_id = $1 AND state = 'dead') AS dead,"
            " (SELECT count(*) FROM spine.deliveries_open WHERE workspace_id = $1) AS open,"
            " (SELECT count(*) FROM spine.outbox WHERE workspace_id = $1) AS outbox,"
            " (SELECT count(*) FROM spine.events WHERE workspace_id = $1) AS events",
            workspace.id,
        )
        return Books(**dict(row))

    async def is_drained(self) -> bool:
        """Whether nothing is on its way any more."""
        return bool(
            await self.pool.fetchval(
                "SELECT NOT EXISTS (SELECT FROM spine.outbox) AND NOT EXISTS (SELECT FROM spine.deliveries_open)"
            )
        )

    async def accepted_at(self, workspace: Workspace) -> dict[str, float]:
        """When each event was accepted, by the database's clock, in seconds since the epoch."""
        rows = await self.pool.fetch(
            "SELECT id, extract(epoch FROM accepted_at)::float8 AS at FROM spine.events WHERE workspace_id = $1",
            workspace.id,
        )
        return {row["id"]: row["at"] for row in rows}

    async def clear(self) -> None:
        """Take away every event and delivery, so that one measurement does not weigh on the next."""
        await self.pool.execute(f"TRUNCATE {_TABLES}")
