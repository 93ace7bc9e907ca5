"""What becomes of a batch of results, before the database hears of it."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from policies.retry import SCHEDULE_S
from policies.verdict import Delivered, Failed, Gone, Verdict
from spine.kernel.http_client import HttpResponse
from spine.webhooks.attempts import excerpt
from workers.webhooks.jobs import AttemptResult, DeliveryJob, Discarded
from workers.webhooks.result_batch import sort_results

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def _outcome(verdict: Verdict, failures: int = 0, id: str = "dlv_1", duration_s: float = 0.5) -> AttemptResult:
    job = DeliveryJob("wsp", id, "evt_1", "a.b", "whe_1", failures, 1, None, START, b"{}", 0.0, None)
    return AttemptResult(job, HttpResponse(500, None, None, b"why", START, duration_s), verdict)


@pytest.mark.parametrize("failures", range(7))
def test_the_schedule_counts_from_the_end_of_the_attempt(failures: int) -> None:
    """The wait after failure n begins when the attempt ended, not when it started."""
    batch = sort_results([_outcome(Failed("http_500", ""), failures)])
    ((_, due_at, attempt),) = batch.failed
    assert due_at == START + timedelta(seconds=0.5 + SCHEDULE_S[failures])
    assert orjson.loads(attempt)["number"] == failures + 1


def test_the_eighth_failure_is_the_last() -> None:
    """After the eighth failure nothing is scheduled: the delivery is dead."""
    batch = sort_results([_outcome(Failed("http_500", ""), 7)])
    assert batch.failed == []
    ((_, reason, attempt),) = batch.dead
    assert reason == "attempts_exhausted"
    assert attempt is not None
    assert orjson.loads(attempt)["next_attempt_at"] is None


def test_gone_is_dead_at_once_and_names_the_endpoint() -> None:
    """410 ends the delivery whatever its number of failures, and its endpoint is to be disabled."""
    batch = sort_results([_outcome(Gone())])
    assert [reason for _, reason, _ in batch.dead] == ["endpoint_gone"]
    assert batch.gone == {("wsp", "whe_1")}


def test_an_endpoint_that_took_anything_does_not_only_fail() -> None:
    """In a batch with a success and a failure of one endpoint, the success counts for its health."""
    batch = sort_results([_outcome(Failed("timeout", ""), id="dlv_1"), _outcome(Delivered(), id="dlv_2")])
    assert batch.delivered_endpoints == {("wsp", "whe_1")}
    assert set(batch.failing) - batch.delivered_endpoints == set()


def test_what_ends_without_an_attempt_leaves_none() -> None:
    """A delivery that was stopped is dead for its reason, without an attempt that never was."""
    job = _outcome(Delivered()).job
    assert sort_results([Discarded(job, "payload_erased")]).dead == [(job, "payload_erased", None)]


def test_an_excerpt_is_text_that_jsonb_takes() -> None:
    """Broken UTF-8 and U+0000 become U+FFFD; no more than 8 KiB are kept."""
    assert excerpt(b"a\x00b\xff") == "a\ufffdb\ufffd"
    assert len(excerpt(b"x" * 10_000)) == 8192
    assert excerpt(b"") == ""
