"""Seal stored secrets again, with the first key of SPINE_ENCRYPTION_KEY: the second half of a rotation."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import asyncpg

from spine.cli.errors import Failure
from spine.kernel.database import open_pool
from spine.kernel.vault import Place, Unsealable, Vault
from spine.notifications.account_credentials import credentials_place
from spine.webhooks.endpoint_store import headers_place, secret_place

_BATCH: Final = 500
_WORKSPACES: Final = "SELECT workspace_id FROM spine.workspaces WHERE workspace_id > $1 ORDER BY 1 LIMIT $2"


class _Column(NamedTuple):
    """A column of sealed values, the column that names their row, and their place."""

    table: str
    row: str
    column: str
    place: Callable[[str, str], Place]


_COLUMNS: Final = (
    _Column("endpoint_secrets", "endpoint_id", "secret", secret_place),
    _Column("webhook_endpoints", "id", "headers", headers_place),
    _Column("provider_accounts", "id", "credentials", credentials_place),
)
"""Every sealed column, except for the responses of idempotency keys, which expire within a day."""


async def reseal(database_url: str, vault: Vault) -> dict[str, int]:
    """Seal again what an older key or version has sealed. Returns how many were sealed and how many did not open.

    Each batch is one transaction; the command may be stopped and run again at any time. Raises Failure.
    """
    counts = {"resealed": 0, "unreadable": 0}
    try:
        pool = await open_pool(database_url, "spine_app", "spine cli", 1)
        workers = await open_pool(database_url, "spine_worker", "spine cli", 1)
        async with pool, workers:
            last = ""
            while rows := await workers.fetch(_WORKSPACES, last, _BATCH):
                last = rows[-1]["workspace_id"]
                for row in rows:
                    for column in _COLUMNS:
                        await _reseal_column(pool, vault, row["workspace_id"], column, counts)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Failure(f"the database at DATABASE_URL does not do it: {error}; `spine doctor` says more") from error
    return counts


async def _reseal_column(pool: Any, vault: Vault, workspace_id: str, column: _Column, counts: dict[str, int]) -> None:
    table, row, name, place = column
    select = (
        f"SELECT {row} AS row, {name} AS sealed FROM spine.{table} WHERE workspace_id = $1 AND {name} IS NOT NULL "  # noqa: S608
        f"AND substring({name} FROM 1 FOR {len(vault.prefix)}) <> $2 AND NOT {name} = ANY ($3::bytea[]) LIMIT {_BATCH}"
    )
    update = f"UPDATE spine.{table} SET {name} = $3 WHERE workspace_id = $1 AND {row} = $2 AND {name} = $4"  # noqa: S608
    unreadable: list[bytes] = []
    found = [None]
    while found:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.ws', $1, true)", workspace_id)
            found = await connection.fetch(select, workspace_id, vault.prefix, unreadable)
            changes = []
            for one in found:
                try:
                    plain = vault.open(one["sealed"], place(workspace_id, one["row"]))
                except Unsealable:
                    unreadable.append(one["sealed"])
                    continue
                changes.append(
                    (workspace_id, one["row"], vault.seal(plain, place(workspace_id, one["row"])), one["sealed"])
                )
            await connection.executemany(update, changes)
        counts["resealed"] += len(changes)
    counts["unreadable"] += len(unreadable)
