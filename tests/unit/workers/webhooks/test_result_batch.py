"""Result batches: what must be written for each result, decided without a database."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from policies.retry import SCHEDULE_S
from policies.verdict import Delivered, Failed, Verdict
from spine.kernel.http_client import HttpResponse
from spine.webhooks.attempts import excerpt
from workers.webhooks.jobs import AttemptResult, DeliveryJob, Discarded
from workers.webhooks.result_batch import sort_results

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def _result(verdict: Verdict, failures: int = 0, id: str = "dlv_1", duration_s: float = 0.5) -> AttemptResult:
    job = DeliveryJob("wsp", id, "evt_1", "a.b", "whe_1", failures, 1, None, START, b"{}", 0.0, None)
    return AttemptResult(job, HttpResponse(500, None, None, b"why", START, duration_s), verdict)


@pytest.mark.parametrize("failures", range(7))
def test_the_schedule_counts_from_the_end_of_the_attempt(failures: int) -> None:
    """The wait after a failure begins at the end of the attempt, not at its start."""
    result = _result(Failed("http_500", ""), failures)
    ((_, due_s, attempt),) = sort_results([result]).failed
    assert due_s == result.ended_s + SCHEDULE_S[failures]
    shown = orjson.loads(attempt)
    assert shown["number"] == failures + 1
    assert datetime.fromisoformat(shown["next_attempt_at"]) == START + timedelta(seconds=0.5 + SCHEDULE_S[failures])


def test_one_success_outweighs_failures_of_the_same_batch() -> None:
    """If a batch has a success and a failure of one endpoint, the endpoint does not count as failing."""
    batch = sort_results([_result(Failed("timeout", ""), id="dlv_1"), _result(Delivered(), id="dlv_2")])
    assert batch.delivered_endpoints == {("wsp", "whe_1")}
    assert set(batch.failing) - batch.delivered_endpoints == set()


def test_a_discarded_delivery_has_no_attempt() -> None:
    """A discarded delivery is dead with its reason and without an attempt."""
    job = _result(Delivered()).job
    assert sort_results([Discarded(job, "payload_erased")]).dead == [(job, "payload_erased", None)]


def test_an_excerpt_is_valid_text_for_jsonb() -> None:
    """Invalid UTF-8 and U+0000 become U+FFFD; at most 8 KiB are kept."""
    assert excerpt(b"a\x00b\xff") == "a\ufffdb\ufffd"
    assert len(excerpt(b"x" * 10_000)) == 8192
    assert excerpt(b"") == ""


@pytest.mark.parametrize("body", [b"\xff" * 10_000, "\u20ac".encode() * 5_000, b"\x00" * 9_000, b"a" * 9_000])
def test_an_excerpt_takes_at_most_8_kib(body: bytes) -> None:
    """A replacement character is longer than the byte that it replaces; what is kept is bounded all the same (promise 7)."""
    kept = excerpt(body).encode()
    assert 8190 <= len(kept) <= 8192
