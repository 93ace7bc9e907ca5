"""Writes a batch of results: in one statement if all were delivered, otherwise in one transaction."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
import structlog

from policies.auto_disable import AutoDisable, should_disable
from spine.kernel.errors import SpineError
from spine.kernel.events import timestamp
from spine.notifications.system_mail import ENDPOINT_DISABLED, queue_system_mail
from spine.webhooks import queries
from workers.connection import Connection, fetch_each, write_each
from workers.webhooks.endpoint_cache import EndpointKey
from workers.webhooks.result_batch import ResultBatch
from workers.webhooks.system_events import SystemEvent, dead_letter_event, endpoint_disabled_event, write_system_events

_RULE: Final = AutoDisable()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Committed:
    """What was committed in addition to the results."""

    events: bool
    """Whether system events were written to the outbox."""
    system_mails: int
    """Number of messages queued for owners of endpoints."""
    disabled: bool = False
    """Whether an endpoint was disabled, so that its deliveries must follow."""


_RESULTS_ONLY: Final = Committed(events=False, system_mails=0)


async def commit(connection: Connection, batch: ResultBatch) -> Committed:
    """Write the batch, all or nothing."""
    if not batch.failed and not batch.dead:
        await _put_delivered(connection, batch)
        return _RESULTS_ONLY
    system_mails = 0
    disabled_rows: list[Any] = []
    async with connection.transaction():
        if batch.delivered:
            await _put_delivered(connection, batch)
        if batch.failed:
            await _put_failed(connection, batch)
        system_events = await _put_dead(connection, batch) if batch.dead else []
        # One delivered result in the batch is enough: such an endpoint does not only fail.
        delivered_endpoints = batch.delivered_endpoints
        failing = sorted((key, since) for key, since in batch.failing.items() if key not in delivered_endpoints)
        if failing:
            rows = await connection.fetch(
                queries.FAILING_PUT,
                [key[0] for key, _ in failing],
                [key[1] for key, _ in failing],
                [since for _, since in failing],
            )
            failing_since = _to_disable(rows)
            disabled = await _disable(connection, failing_since, "failing")
            system_mails = await _queue_system_mails(
                connection, [(row, failing_since[row["workspace_id"], row["id"]]) for row in disabled]
            )
            disabled_rows += disabled
        disabled_rows += await _disable(connection, batch.gone, "gone")
        system_events += [endpoint_disabled_event(row) for row in disabled_rows]
        await write_system_events(connection, system_events)
    return Committed(bool(system_events), system_mails, bool(disabled_rows))


def _to_disable(rows: Iterable[Any]) -> dict[EndpointKey, datetime]:
    """The endpoints that have failed for so long that they must be disabled (`policies.auto_disable`), and since when."""
    return {
        (row["workspace_id"], row["endpoint_id"]): row["failing_since"]
        for row in rows
        if should_disable(_RULE, row["failing_since"], row["now"])
    }


async def _disable(connection: Connection, keys: Iterable[EndpointKey], reason: str) -> list[Any]:
    """Disable endpoints; their waiting deliveries follow. Returns the rows of those that were not disabled before."""
    ordered = sorted(keys)
    if not ordered:
        return []
    rows = await connection.fetch(
        queries.ENDPOINTS_DISABLE, [key[0] for key in ordered], [key[1] for key in ordered], reason
    )
    if rows:
        await connection.execute(
            queries.ENDPOINTS_FOLLOW, [row["workspace_id"] for row in rows], [row["id"] for row in rows]
        )
    return rows


async def _queue_system_mails(connection: Connection, disabled: Iterable[tuple[Any, datetime]]) -> int:
    """Queue a message to the owner of each endpoint that was disabled for its failures. Returns the number queued.

    A message that cannot be queued is logged and dropped, because it must not prevent that results are written.
    """
    queued = 0
    for row, failing_since in disabled:
        vars = {
            "endpoint_id": row["id"],
            "url": row["url"].partition("?")[0],  # a query often carries a credential
            "failing_since": timestamp(failing_since),
            "disabled_at": timestamp(row["disabled_at"]),
        }
        try:
            async with connection.transaction():  # a savepoint
                await queue_system_mail(connection, row["workspace_id"], ENDPOINT_DISABLED, vars)
        except SpineError as error:
            _log.warning("system mail not queued", endpoint_id=row["id"], code=error.code, reason=error.detail)
        except (ValueError, asyncpg.PostgresError):
            _log.exception("system mail not queued", endpoint_id=row["id"])
        else:
            queued += 1
    return queued


async def _put_delivered(connection: Connection, batch: ResultBatch) -> None:
    rows = batch.delivered
    endpoints = sorted(batch.delivered_endpoints)
    await write_each(
        connection,
        queries.DELIVERED_PUT,
        rows,
        [job.workspace_id for job, _ in rows],
        [job.id for job, _ in rows],
        [job.series for job, _ in rows],
        [attempt for _, attempt in rows],
        [key[0] for key in endpoints],
        [key[1] for key in endpoints],
    )


async def _put_failed(connection: Connection, batch: ResultBatch) -> None:
    rows, start_s = batch.failed, time.monotonic()
    await write_each(
        connection,
        queries.FAILED_PUT,
        rows,
        [job.workspace_id for job, _, _ in rows],
        [job.id for job, _, _ in rows],
        [job.series for job, _, _ in rows],
        [job.failures for job, _, _ in rows],
        [due_s - start_s for _, due_s, _ in rows],
        [attempt for _, _, attempt in rows],
    )
    batch.writing_failed_s = time.monotonic() - start_s


async def _put_dead(connection: Connection, batch: ResultBatch) -> list[SystemEvent]:
    rows = batch.dead
    closed = await fetch_each(
        connection,
        queries.DEAD_PUT,
        rows,
        [job.workspace_id for job, _, _ in rows],
        [job.id for job, _, _ in rows],
        [job.series for job, _, _ in rows],
        [job.failures for job, _, _ in rows],
        [reason for _, reason, _ in rows],
        [attempt for _, _, attempt in rows],
    )
    body_of = {job.id: job.body for job, _, _ in rows}
    events = (dead_letter_event(row, body_of[row["id"]]) for row in closed)
    return [event for event in events if event is not None]
