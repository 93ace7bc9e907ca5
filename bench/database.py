"""A database of the benchmarks: insert workspaces, endpoints and events by SQL, and count the results."""

import base64
import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import asyncpg

from bench.reconciliation import DeliveryCounts
from spine.directory.api_keys import key_columns
from spine.kernel import ids
from spine.kernel.events import Actor, event_body
from spine.kernel.keys import key_hash, mint_key
from spine.kernel.redis_client import open_redis
from spine.kernel.vault import Vault
from spine.kernel.wakeups import WakeupKind, Wakeups
from spine.webhooks.endpoint_store import secret_place
from spine.webhooks.signing import new_secret

BODY_BYTES = 600
"""The size of a typical event body."""
MAX_IN_FLIGHT = 10
_TABLES = (
    "spine.outbox, spine.deliveries_open, spine.deliveries_closed, spine.events, spine.idempotency_keys, "
    "spine.sends_open, spine.messages, spine.attempts, spine.receipts, spine.sandbox_calls, spine.sandbox_receipts"
)


@dataclass(slots=True)
class Workspace:
    """A workspace with its key. `accepted` are the ids of its events."""

    id: str
    key: str
    endpoints: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


@functools.cache
def _fill(size: int) -> bytes:
    """Return incompressible text, because the database would compress a large uniform body."""
    return base64.b64encode(random.Random(1).randbytes(size))[:size]


def body(id: str, type: str, workspace_id: str, size: int, n: int) -> bytes:
    """Return an event body of about this size, built as the API builds it."""
    head = {
        "id": id, "type": type, "at": ids.created_at(id), "workspace_id": workspace_id, "env": "test",
        "request_id": "req_00000000000000000000000000", "actor": Actor(type="api_key", id="key_00000000000000000000000000"),
        "sequence": n,
    }  # fmt: skip
    bare = event_body(**head, data=b'{"fill":""}')  # type: ignore[arg-type]  # each one is named above
    return event_body(**head, data=b'{"fill":"' + _fill(max(0, size - len(bare))) + b'"}')  # type: ignore[arg-type]


class Database:
    """One database, with the privileges of its owner, and its wakeups."""

    def __init__(self, url: str, redis_url: str, key: str, pool: Any, wakeups: Wakeups) -> None:
        self.url, self.redis_url = url, redis_url
        self.pool = pool
        self._wakeups = wakeups
        self._vault = Vault.from_text(key)

    @classmethod
    async def open(cls, url: str, redis_url: str, key: str) -> Self:
        """Connect to a migrated database."""
        pool = await asyncpg.create_pool(url, min_size=1, max_size=4, command_timeout=1800)
        await pool.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        return cls(url, redis_url, key, pool, Wakeups(open_redis(redis_url)))

    def wake(self, kind: WakeupKind) -> None:
        """Wake a worker for work that is due now."""
        self._wakeups.wake(kind)

    def wake_at(self, kind: WakeupKind, due_times_s: Sequence[float]) -> None:
        """Wake a worker at these times."""
        self._wakeups.wake_at(kind, due_times_s)

    async def count_workers(self) -> int:
        """Return the number of workers that have written a heartbeat."""
        return int(await self.pool.fetchval("SELECT count(*) FROM spine.workers"))

    async def create_workspace(self) -> Workspace:
        """Insert a workspace with an API key."""
        org, workspace = ids.mint("org"), Workspace(ids.mint("wsp"), mint_key("test"))
        await self.pool.execute(
            "INSERT INTO spine.organisations (id, name, email) VALUES ($1, 'Bench', 'b@x.test')", org
        )
        await self.pool.execute(
            "INSERT INTO spine.workspaces (workspace_id, organisation_id, env) VALUES ($1, $2, 'test')",
            workspace.id,
            org,
        )
        key_id = ids.mint("key")
        await self.pool.execute(
            "INSERT INTO spine.api_keys (workspace_id, id, name, scopes, prefix, last4) VALUES ($1, $2, 'bench', '{*}', $3, $4)",
            workspace.id,
            key_id,
            *key_columns(workspace.key).values(),
        )
        await self.pool.execute(
            "INSERT INTO spine.api_key_hashes (hash, workspace_id, key_id) VALUES ($1, $2, $3)",
            key_hash(workspace.key),
            workspace.id,
            key_id,
        )
        return workspace

    async def create_endpoints(
        self, workspace: Workspace, urls: Sequence[str], *, type: str | None = None, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        """Insert endpoints. The n-th subscribes to `bench.t<n>`, or all of them subscribe to `type`."""
        first = len(workspace.endpoints)
        endpoints = [(ids.mint("whe"), url, type or f"bench.t{first + n}") for n, url in enumerate(urls)]
        ws = workspace.id
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.executemany(
                "INSERT INTO spine.webhook_endpoints (workspace_id, id, url, events, max_in_flight) VALUES ($1, $2, $3, $4, $5)",
                [(ws, id, url, [pattern], max_in_flight) for id, url, pattern in endpoints],
            )
            await connection.executemany(
                "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret) VALUES ($1, $2, $3)",
                [(ws, id, self._vault.seal(new_secret().encode(), secret_place(ws, id))) for id, _, _ in endpoints],
            )
            await connection.executemany(
                "INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern) VALUES ($1, $2, $3)",
                [(ws, id, pattern) for id, _, pattern in endpoints],
            )
        workspace.endpoints += [id for id, _, _ in endpoints]

    async def insert_events(
        self, workspace: Workspace, count: int, types: Sequence[str], size: int = BODY_BYTES, *, relayed: bool = False
    ) -> list[str]:
        """Commit events as the API does, with the types in turn. With `relayed` they are not written to the outbox."""
        events = [(ids.mint("evt"), types[n % len(types)]) for n in range(count)]
        ws = workspace.id
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.copy_records_to_table(
                "events",
                schema_name="spine",
                columns=["workspace_id", "id", "type", "body"],
                records=[(ws, id, type, body(id, type, ws, size, n)) for n, (id, type) in enumerate(events)],
            )
            if not relayed:
                await connection.copy_records_to_table(
                    "outbox",
                    schema_name="spine",
                    columns=["workspace_id", "event_id", "type"],
                    records=[(ws, id, type) for id, type in events],
                )
        event_ids = [id for id, _ in events]
        workspace.accepted += event_ids
        return event_ids

    async def count_deliveries(self, workspace: Workspace) -> DeliveryCounts:
        """Count the deliveries of a workspace by state."""
        row = await self.pool.fetchrow(
            "SELECT (SELECT count(*) FROM spine.deliveries_closed WHERE workspace_id = $1 AND state = 'delivered') AS delivered,"
            " (SELECT count(*) FROM spine.deliveries_closed WHERE workspace_id = $1 AND state = 'dead') AS dead,"
            " (SELECT count(*) FROM spine.deliveries_open WHERE workspace_id = $1) AS open,"
            " (SELECT count(*) FROM spine.outbox WHERE workspace_id = $1) AS outbox,"
            " (SELECT count(*) FROM spine.events WHERE workspace_id = $1) AS events",
            workspace.id,
        )
        return DeliveryCounts(**dict(row))

    async def is_drained(self) -> bool:
        """Return True if the outbox is empty and no delivery is open."""
        return bool(
            await self.pool.fetchval(
                "SELECT NOT EXISTS (SELECT FROM spine.outbox) AND NOT EXISTS (SELECT FROM spine.deliveries_open)"
            )
        )

    async def accepted_at(self, workspace: Workspace) -> dict[str, float]:
        """Return when each event was accepted, by the database's clock, in seconds since the epoch."""
        rows = await self.pool.fetch(
            "SELECT id, extract(epoch FROM accepted_at)::float8 AS at FROM spine.events WHERE workspace_id = $1",
            workspace.id,
        )
        return {row["id"]: row["at"] for row in rows}

    async def clear(self) -> None:
        """Delete every event and delivery, so that one measurement does not affect the next."""
        await self.pool.execute(f"TRUNCATE {_TABLES}")
