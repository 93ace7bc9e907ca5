"""What becomes of a batch of results, decided before the database hears of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from policies.retry import MAX_ATTEMPTS, next_attempt_at
from policies.verdict import ENDPOINT_GONE, Delivered, Failed, Gone
from spine.ledger import AttemptRecord, as_jsonb_text, excerpt
from workers.cargo import Cargo, Outcome, Result, Stopped
from workers.endpoints import EndpointKey

ATTEMPTS_EXHAUSTED: Final = "attempts_exhausted"


@dataclass(slots=True)
class Batch:
    """Results sorted by what is to be done with them."""

    delivered: list[tuple[Cargo, str]] = field(default_factory=list)
    failed: list[tuple[Cargo, datetime, str]] = field(default_factory=list)
    dead: list[tuple[Cargo, str, str | None]] = field(default_factory=list)
    failing: dict[EndpointKey, datetime] = field(default_factory=dict)
    gone: set[EndpointKey] = field(default_factory=set)

    @property
    def took(self) -> set[EndpointKey]:
        """Endpoints that took a delivery."""
        return {(cargo.workspace_id, cargo.endpoint_id) for cargo, _ in self.delivered}

    @property
    def due_times_s(self) -> set[float]:
        """When the next attempts are due."""
        return {due_at.timestamp() for _, due_at, _ in self.failed}


def sort(results: Iterable[Result]) -> Batch:
    """Decide what becomes of each delivery (`policies.retry`)."""
    batch = Batch()
    for result in results:
        if isinstance(result, Stopped):
            batch.dead.append((result.cargo, result.reason, None))
        elif isinstance(result.verdict, Delivered):
            batch.delivered.append((result.cargo, _attempt(result, None)))
        else:
            _sort_failure(batch, result, result.verdict)
    return batch


def _sort_failure(batch: Batch, result: Outcome, verdict: Failed | Gone) -> None:
    cargo, ended_at = result.cargo, result.answer.ended_at
    key = (cargo.workspace_id, cargo.endpoint_id)
    batch.failing[key] = min(batch.failing.get(key, ended_at), ended_at)
    if isinstance(verdict, Gone):
        batch.gone.add(key)
        batch.dead.append((cargo, ENDPOINT_GONE, _attempt(result, None)))
        return
    due_at = next_attempt_at(min(cargo.failures + 1, MAX_ATTEMPTS), ended_at, verdict.retry_after_s)
    if due_at is None:
        batch.dead.append((cargo, ATTEMPTS_EXHAUSTED, _attempt(result, None)))
    else:
        batch.failed.append((cargo, due_at, _attempt(result, due_at)))


def _attempt(result: Outcome, due_at: datetime | None) -> str:
    answer, verdict, cargo = result.answer, result.verdict, result.cargo
    return as_jsonb_text(
        AttemptRecord(
            number=cargo.failures + 1,
            series=cargo.series,
            started_at=answer.started_at,
            ended_at=answer.ended_at,
            status_code=answer.status,
            error=None if isinstance(verdict, Delivered) else verdict.code,
            response_body=excerpt(answer.body_excerpt),
            retry_after_s=verdict.retry_after_s if isinstance(verdict, Failed) else None,
            next_attempt_at=due_at,
        )
    )
