"""What becomes of a result that Postgres refuses to store, after its batch was halved until it stood alone.

It is kept in `spine.results_set_apart` with the receiver's answer as bytes. Then the attempt is recorded without its response.
If that is refused too, the delivery waits, longer each time, and is attempted again; after `PUT_OFF_MAX` times it is dead. So a
result is never lost, and a delivery is not sent without end.
"""

from dataclasses import replace
from typing import Final, Literal

import structlog

from spine.kernel import metrics
from spine.webhooks import result_queries
from workers.connection import Connection
from workers.database_errors import is_refusal
from workers.webhooks.jobs import AttemptResult, DeliveryResult, Discarded
from workers.webhooks.result_batch import ResultBatch, sort_results
from workers.webhooks.write_results import Committed, commit

RESULT_REFUSED: Final = "result_refused"
"""The reason of a dead letter whose results could not be stored."""
PUT_OFF_MAX: Final = 8

Outcome = Literal["reduced", "put_off", "dead"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("reduced", "put_off", "dead")

_log = structlog.get_logger(__name__)


async def set_apart(
    connection: Connection, result: DeliveryResult, error: Exception
) -> tuple[ResultBatch, Committed] | None:
    """Keep the result apart and end or put off its delivery. Returns what was committed, or None if it was put off."""
    job = result.job
    times = await connection.fetchval(
        result_queries.SET_APART,
        job.workspace_id,
        job.id,
        job.series,
        job.failures + 1,
        _verdict(result),
        _attempt(result),
        repr(error)[:1000],
    )
    for outcome, batch in _substitutes(result, times):
        committed = await _try_commit(connection, batch)
        if committed is not None:
            await connection.execute(result_queries.SET_APART_RECORDED, job.workspace_id, job.id)
            _observe(result, outcome, error)
            return batch, committed
    await connection.execute(result_queries.DELIVERY_PUT_OFF, job.workspace_id, job.id, job.series, times)
    _observe(result, "put_off", error)
    return None


def _substitutes(result: DeliveryResult, times: int) -> list[tuple[Outcome, ResultBatch]]:
    """What is recorded in place of the result, the first that Postgres takes."""
    found: list[tuple[Outcome, ResultBatch]] = []
    if isinstance(result, AttemptResult):
        bare = replace(result, response=replace(result.response, body_excerpt=b""))
        found.append(("reduced", sort_results([bare])))
    if times >= PUT_OFF_MAX:
        found.append(("dead", ResultBatch(dead=[(result.job, RESULT_REFUSED, None)])))
    return found


async def _try_commit(connection: Connection, batch: ResultBatch) -> Committed | None:
    try:
        async with connection.transaction():
            return await commit(connection, batch)
    except Exception as error:
        if is_refusal(error):
            return None
        raise


def _verdict(result: DeliveryResult) -> str:
    return result.reason if isinstance(result, Discarded) else type(result.verdict).__name__.lower()


def _attempt(result: DeliveryResult) -> bytes | None:
    """The attempt as its receiver answered it, in a form that any column of bytes takes."""
    if isinstance(result, Discarded):
        return None
    response = result.response
    return repr(
        (response.status, response.error, response.started_at, response.ended_at, response.body_excerpt)
    ).encode("utf-8", "backslashreplace")


def _observe(result: DeliveryResult, outcome: Outcome, error: Exception) -> None:
    metrics.results_set_apart(outcome).inc()
    _log.error("result set apart", delivery_id=result.job.id, outcome=outcome, error=repr(error))
