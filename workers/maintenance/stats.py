"""Read the stats of the queues for the metrics."""

from typing import Any

from spine.kernel.metrics import FAILING_FOR, BacklogStats, QueueStats, observe_queue
from spine.webhooks import queries
from workers.connection import Connection


class QueueObserver:
    """Reads the stats of the queues. It keeps the count of dead letters, which is read more rarely."""

    def __init__(self) -> None:
        self._dead_letters = 0

    async def count_dead_letters(self, connection: Connection) -> None:
        """Count the dead letters that were not replayed."""
        self._dead_letters = await connection.fetchval(queries.DEAD_LETTERS)

    async def observe(self, connection: Connection) -> None:
        """Read the stats of the queues for the metrics."""
        async with connection.transaction():
            # A sequential scan is the fastest way to count a whole table.
            await connection.execute("SET LOCAL enable_seqscan TO on")
            row = await connection.fetchrow(queries.QUEUE_STATS)
        failing = await connection.fetch(queries.FAILING_SINCE)
        observe_queue(_stats(row, [float(one["seconds"]) for one in failing], self._dead_letters))


def _stats(row: Any, failing_s: list[float], dead_letters: int) -> BacklogStats:
    deliveries = QueueStats(
        open={state: row[state] for state in ("pending", "retrying", "held")},
        due=row["due"],
        leased=row["leased"],
        oldest_due_age_s=float(row["due_age_s"] or 0),
    )
    messages = QueueStats(
        open={"waiting": row["sends"] - row["sends_leased"], "sending": row["sends_leased"]},
        due=row["sends_due"],
        leased=row["sends_leased"],
        oldest_due_age_s=float(row["sends_due_age_s"] or 0),
    )
    return BacklogStats(
        outbox_rows=row["outbox_rows"],
        outbox_oldest_age_s=float(row["outbox_age_s"] or 0),
        queues={"delivery": deliveries, "message": messages},
        parked=row["parked"],
        dead_letters=dead_letters,
        endpoints_failing={
            label: sum(age_s >= since_s for age_s in failing_s) for label, since_s in FAILING_FOR.items()
        },
        endpoints_disabled=row["disabled"],
    )
