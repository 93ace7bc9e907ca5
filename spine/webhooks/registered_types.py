"""Registered event types of a workspace: cached per process, with a version that each accept compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from spine.kernel.errors import Conflict, FieldError, Unprocessable
from spine.kernel.events import Catalogue
from spine.webhooks.schema_check import Budget, BudgetExceeded
from spine.webhooks.schemas import CompiledSchema

_MAX_WORKSPACES: Final = 10_000


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """An event as a caller sent it."""

    type: str
    data: dict[str, Any]
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class RegisteredTypes:
    """A workspace's registered types at one version. The database compares the version at each accept."""

    version: int
    archived: frozenset[str]
    schemas: dict[str, CompiledSchema]

    async def check(self, catalogue: Catalogue, events: Sequence[IncomingEvent], *, batch: bool) -> None:
        """Check types and data. Raises Conflict for a reserved or archived type, Unprocessable for data that violates its schema."""
        budget = Budget()
        for n, event in enumerate(events):
            prefix = f"events.{n}." if batch else ""
            if catalogue.is_reserved(event.type):
                raise reserved_type_error(event.type, f"{prefix}type")
            if event.type in self.archived:
                raise Conflict(
                    f"the event type {event.type} is archived", code="event_type_archived", param=f"{prefix}type"
                )
            schema = self.schemas.get(event.type)
            if schema is not None:
                await _check_data(schema, event, prefix, budget)


class RegisteredTypesCache:
    """Registered types of the workspaces that sent events to this process."""

    def __init__(self) -> None:
        self._by_workspace: dict[str, RegisteredTypes] = {}

    async def get(self, pool: "asyncpg.Pool[asyncpg.Record]", workspace_id: str) -> RegisteredTypes:
        """Return the workspace's types, from the cache or the database."""
        types = self._by_workspace.get(workspace_id)
        if types is None:
            if len(self._by_workspace) >= _MAX_WORKSPACES:
                self._by_workspace.clear()
            types = self._by_workspace[workspace_id] = await _load(pool, workspace_id)
        return types

    def invalidate(self, workspace_id: str) -> None:
        """Evict the workspace's types after one was registered or archived."""
        self._by_workspace.pop(workspace_id, None)


async def _load(pool: "asyncpg.Pool[asyncpg.Record]", workspace_id: str) -> RegisteredTypes:
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.execute("SELECT set_config('app.ws', $1, true)", workspace_id)
        version = await connection.fetchval(
            "SELECT event_types_version FROM spine.workspaces WHERE workspace_id = $1", workspace_id
        )
        rows = await connection.fetch(
            "SELECT name, schema, status = 'archived' AS archived FROM spine.event_types WHERE workspace_id = $1",
            workspace_id,
        )
    return RegisteredTypes(
        version=version,
        archived=frozenset(row["name"] for row in rows if row["archived"]),
        schemas={row["name"]: CompiledSchema(row["schema"]) for row in rows if row["schema"] is not None},
    )


def reserved_type_error(name: str, param: str) -> Conflict:
    """Return the error for a name in one of Spine's own event families."""
    return Conflict(
        f"the family {name.partition('.')[0]}.* belongs to the suite; take another first word",
        code="event_type_reserved",
        param=param,
    )


async def _check_data(schema: CompiledSchema, event: IncomingEvent, prefix: str, budget: Budget) -> None:
    try:
        errors = await schema.find_errors(event.data, budget)
    except BudgetExceeded as error:
        raise Unprocessable(
            f"checking {prefix}data against the schema of {event.type} takes too many steps",
            code="event_data_too_costly",
            param=f"{prefix}data",
        ) from error
    if errors:
        found = [
            FieldError(
                param=".".join([f"{prefix}data", *map(str, error.absolute_path)]),
                code=str(error.validator),
                detail=error.message[:500],
            )
            for error in errors
        ]
        raise Unprocessable(
            f"{found[0].param}: {found[0].detail}", code="event_data_invalid", param=found[0].param, errors=found
        )
