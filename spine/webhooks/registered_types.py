"""The event types that a workspace has registered, cached per process and checked by version at each accept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
from jsonschema.protocols import Validator

from spine.kernel.errors import Conflict, FieldError, Unprocessable
from spine.kernel.events import Catalogue
from spine.webhooks import schemas

_MAX_WORKSPACES: Final = 10_000


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """One event as a caller sent it."""

    type: str
    data: dict[str, Any]
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class RegisteredTypes:
    """A workspace's registered types, as of a version that the database compares at each accept."""

    version: int
    archived: frozenset[str]
    schemas: dict[str, Validator]

    def check(self, catalogue: Catalogue, events: Sequence[IncomingEvent], *, batch: bool) -> None:
        """Raise Conflict for a reserved or archived type, and Unprocessable for data that its type's schema refuses."""
        schemas.begin()
        for n, event in enumerate(events):
            at = f"events.{n}." if batch else ""
            if catalogue.is_reserved(event.type):
                raise reserved(event.type, f"{at}type")
            if event.type in self.archived:
                raise Conflict(
                    f"the event type {event.type} is archived", code="event_type_archived", param=f"{at}type"
                )
            validator = self.schemas.get(event.type)
            if validator is not None:
                _check_data(validator, event, at)


class RegisteredTypesCache:
    """Registered types of the workspaces that this process has accepted events of."""

    def __init__(self) -> None:
        self._by_workspace: dict[str, RegisteredTypes] = {}

    async def get(self, pool: "asyncpg.Pool[asyncpg.Record]", workspace_id: str) -> RegisteredTypes:
        """The workspace's types; read from the database where they are not cached."""
        known = self._by_workspace.get(workspace_id)
        if known is None:
            if len(self._by_workspace) >= _MAX_WORKSPACES:
                self._by_workspace.clear()
            known = self._by_workspace[workspace_id] = await _load(pool, workspace_id)
        return known

    def invalidate(self, workspace_id: str) -> None:
        """Read the workspace's types again at the next use: somebody registered or archived one."""
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
        schemas={row["name"]: schemas.compiled(row["schema"]) for row in rows if row["schema"] is not None},
    )


def reserved(name: str, param: str) -> Conflict:
    """The error for a name in one of the suite's own event families."""
    return Conflict(
        f"the family {name.partition('.')[0]}.* belongs to the suite; take another first word",
        code="event_type_reserved",
        param=param,
    )


def _check_data(validator: Validator, event: IncomingEvent, at: str) -> None:
    try:
        errors = schemas.faults(validator, event.data)
    except schemas.TooCostly as error:
        raise Unprocessable(
            f"checking {at}data against the schema of {event.type} takes too many steps",
            code="event_data_too_costly",
            param=f"{at}data",
        ) from error
    if errors:
        found = [
            FieldError(
                param=".".join([f"{at}data", *map(str, error.absolute_path)]),
                code=str(error.validator),
                detail=error.message[:500],
            )
            for error in errors
        ]
        raise Unprocessable(
            f"{found[0].param}: {found[0].detail}", code="event_data_invalid", param=found[0].param, errors=found
        )
