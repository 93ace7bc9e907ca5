"""Read the stats of the queues for the metrics: exact while they are short, estimates from a sample of blocks when they are long."""

from collections.abc import Mapping, Sequence
from typing import Final

from spine.kernel.metrics import FAILING_FOR, BacklogStats, QueueStats, observe_queue
from spine.webhooks import stat_queries as queries
from workers.connection import Connection

_MAX_FAILING: Final = 20_000


class QueueObserver:
    """Reads the stats of the queues. It keeps the count of dead letters, which is read more rarely."""

    def __init__(self) -> None:
        self._dead_letters = 0

    async def count_dead_letters(self, connection: Connection) -> None:
        """Count the dead letters that were not replayed: exactly up to a limit, above it as the statistics of Postgres say."""
        found = await connection.fetchval(queries.DEAD_LETTERS, queries.COUNT_LIMIT)
        if found == queries.COUNT_LIMIT:
            found = max(found, await connection.fetchval(queries.DEAD_LETTERS_ESTIMATE))
        self._dead_letters = found

    async def observe(self, connection: Connection) -> None:
        """Read the stats of the queues for the metrics."""
        counts: dict[str, int] = {}
        for table, sample, first in queries.COUNTED:
            counts |= await _count(connection, table, sample, first)
        ages_s = [max(0.0, float(await connection.fetchval(age) or 0)) for age in queries.OLDEST]
        failing = await connection.fetch(queries.FAILING, list(map(float, FAILING_FOR.values())), _MAX_FAILING)
        observe_queue(_stats(counts, ages_s, [row["endpoints"] for row in failing], self._dead_letters))


async def _count(connection: Connection, table: str, sample: str, first: str) -> dict[str, int]:
    """Count the rows of a table that is in use by all workspaces."""
    blocks = await connection.fetchval(queries.BLOCKS, table)
    part = min(1, queries.SAMPLE_BLOCKS / max(blocks, 1))
    async with connection.transaction():
        # Only a sequential scan can take a sample; others read more blocks than it does.
        await connection.execute("SET LOCAL enable_seqscan TO on")
        (row,) = await connection.fetch(sample, 100 * part)
    counts = dict(row)
    rows = counts.pop("all_rows") / part
    if part < 1 and rows < queries.COUNT_LIMIT:  # few rows in a large table: a sample says nothing of them
        async with connection.transaction():
            # A plan that was made while the table was empty would read and sort all of it.
            await connection.execute("SET LOCAL enable_sort TO off")
            (row,) = await connection.fetch(first)
        return dict(row)
    return {name: round(count / part) for name, count in counts.items()}


def _stats(
    counts: Mapping[str, int], ages_s: Sequence[float], failing: Sequence[int], dead_letters: int
) -> BacklogStats:
    outbox_age_s, deliveries_age_s, sends_age_s = ages_s
    deliveries = QueueStats(
        open={state: counts[state] for state in ("pending", "retrying", "held")},
        due=counts["due"],
        leased=counts["leased"],
        oldest_due_age_s=deliveries_age_s,
    )
    messages = QueueStats(
        open={"waiting": counts["sends"] - counts["sends_leased"], "sending": counts["sends_leased"]},
        due=counts["sends_due"],
        leased=counts["sends_leased"],
        oldest_due_age_s=sends_age_s,
    )
    return BacklogStats(
        outbox_rows=counts["outbox_rows"],
        outbox_oldest_age_s=outbox_age_s,
        queues={"delivery": deliveries, "message": messages},
        parked=counts["parked"],
        dead_letters=dead_letters,
        endpoints_failing=dict(zip(FAILING_FOR, failing, strict=True)),
        endpoints_disabled=counts["disabled"],
    )
