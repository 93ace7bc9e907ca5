"""Sorts a batch of results by what must be written for each, without access to the database."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from policies.retry import MAX_ATTEMPTS, next_attempt_at
from policies.verdict import ENDPOINT_GONE, Delivered, Failed, Gone
from spine.kernel.database_clock import DatabaseClock
from spine.webhooks.attempts import AttemptRecord, as_jsonb_text, excerpt
from workers.webhooks.endpoint_cache import EndpointKey
from workers.webhooks.jobs import AttemptResult, DeliveryJob, DeliveryResult, Discarded

ATTEMPTS_EXHAUSTED: Final = "attempts_exhausted"


@dataclass(slots=True)
class ResultBatch:
    """Results sorted by what must be written for them. Each has the JSON text of its attempt, if there was one."""

    delivered: list[tuple[DeliveryJob, str]] = field(default_factory=list)
    failed: list[tuple[DeliveryJob, float, str]] = field(default_factory=list)
    """With the time of the next attempt, on the monotonic clock: Postgres makes the due time from the wait that is left."""
    writing_failed_s: float = 0.0
    """How long it took to write them; they are due at most this much later."""
    dead: list[tuple[DeliveryJob, str, str | None]] = field(default_factory=list)
    """With the reason."""
    failing: dict[EndpointKey, datetime] = field(default_factory=dict)
    """Endpoints with a failure, and the end of the first one in this batch."""
    gone: set[EndpointKey] = field(default_factory=set)
    """Endpoints that responded with 410."""

    @property
    def delivered_endpoints(self) -> set[EndpointKey]:
        """Endpoints with at least one delivered result."""
        return {(job.workspace_id, job.endpoint_id) for job, _ in self.delivered}

    def due_times_s(self, clock: DatabaseClock) -> set[float]:
        """When the next attempts are due by Postgres' clock, in seconds since the epoch."""
        base_s = clock.now_s() - time.monotonic() + self.writing_failed_s
        return {base_s + due_s for _, due_s, _ in self.failed}


def sort_results(results: Iterable[DeliveryResult]) -> ResultBatch:
    """Sort the results. `policies.retry` sets the time of the next attempt, or ends the delivery."""
    batch = ResultBatch()
    for result in results:
        if isinstance(result, Discarded):
            batch.dead.append((result.job, result.reason, None))
        elif isinstance(result.verdict, Delivered):
            batch.delivered.append((result.job, _attempt_json(result, None)))
        else:
            _add_failure(batch, result, result.verdict)
    return batch


def _add_failure(batch: ResultBatch, result: AttemptResult, verdict: Failed | Gone) -> None:
    job, ended_at = result.job, result.response.ended_at
    key = (job.workspace_id, job.endpoint_id)
    batch.failing[key] = min(batch.failing.get(key, ended_at), ended_at)
    if isinstance(verdict, Gone):
        batch.gone.add(key)
        batch.dead.append((job, ENDPOINT_GONE, _attempt_json(result, None)))
        return
    due_at = next_attempt_at(min(job.failures + 1, MAX_ATTEMPTS), ended_at, verdict.retry_after_s)
    if due_at is None:
        batch.dead.append((job, ATTEMPTS_EXHAUSTED, _attempt_json(result, None)))
    else:
        due_s = result.ended_s + (due_at - ended_at).total_seconds()
        batch.failed.append((job, due_s, _attempt_json(result, due_at)))


def _attempt_json(result: AttemptResult, due_at: datetime | None) -> str:
    response, verdict, job = result.response, result.verdict, result.job
    return as_jsonb_text(
        AttemptRecord(
            number=job.failures + 1,
            series=job.series,
            started_at=response.started_at,
            ended_at=response.ended_at,
            status_code=response.status,
            error=None if isinstance(verdict, Delivered) else verdict.code,
            response_body=excerpt(response.body_excerpt),
            retry_after_s=verdict.retry_after_s if isinstance(verdict, Failed) else None,
            next_attempt_at=due_at,
        )
    )
