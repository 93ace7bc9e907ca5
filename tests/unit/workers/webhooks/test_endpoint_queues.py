"""Endpoint queues: capacity, reservations and fairness, without a network or a database."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def _queues(
    max_held: int = 100, max_bytes: int = 10**9, live_workers: frozenset[str] = frozenset({"me"})
) -> EndpointQueues:
    heartbeat = Heartbeat(cast("Any", None), "me")
    heartbeat.live_workers = live_workers
    return EndpointQueues(heartbeat, max_held, max_bytes)


def _limits(
    id: str = "whe_1", cap: int = 20, version: int = 1, workspace: str = "wsp", *, live: bool = True
) -> EndpointLimits:
    return EndpointLimits(workspace, id, version, cap, None, live)


def _job(n: int, event: str | None = None, body: bytes = b"{}") -> DeliveryJob:
    return DeliveryJob("wsp", f"dlv_{n}", event or f"evt_{n}", "a.b", "whe_1", 0, 1, None, NOW, body, 1e9, None)


def _load(queues: EndpointQueues, limits: EndpointLimits, job: DeliveryJob, *, claimed: bool = False) -> None:
    assert queues.reserve(limits, 0.0) is Placement.LEASED
    queues.load(limits, job, 0.0, claimed=claimed)


def _fill(queues: EndpointQueues, limits: EndpointLimits, count: int, start: int = 0) -> EndpointQueue:
    for n in range(start, start + count):
        _load(queues, limits, _job(n))
    return queues.queue(limits)


def test_a_full_queue_parks() -> None:
    """A queue without a known latency holds two deliveries per concurrent call; the next delivery is parked."""
    queues = _queues()
    queue = _fill(queues, _limits(cap=3), 6)
    assert queues.reserve(_limits(cap=3), 0.0) is Placement.PARKED
    assert queue.parked


def test_a_fast_queue_holds_one_second_of_work() -> None:
    """With a latency of 10 ms and 2 concurrent calls, a queue holds 200 deliveries: what it sends in one second."""
    queue = _queues(max_held=10_000).queue(_limits(cap=2))
    queue.record_latency(0.01)
    assert queue.depth(0.0) == 200


def test_a_worker_without_a_share_parks() -> None:
    """A worker that has no share of an endpoint's cap parks its deliveries for the worker that has one."""
    both = frozenset({"me", "other"})
    placements = [_queues(live_workers=both).reserve(_limits(f"whe_{n}", cap=1), 0.0) for n in range(8)]
    assert set(placements) == {Placement.PARKED, Placement.LEASED}


def test_reservations_use_capacity() -> None:
    """Reserved, held and claimed deliveries reduce the capacity; cancelled reservations and released jobs free it."""
    queues = _queues(max_held=10)
    limits = _limits()
    queues.reserve_batch(3)
    assert queues.reserve(limits, 0.0) is Placement.LEASED
    assert queues.capacity(claimed=False) == 4
    queues.cancel_reservation(limits)
    queues.reserve_batch(-3)
    queue = _fill(queues, limits, 4)
    assert queues.capacity(claimed=False) == 4
    for job in list(queue.jobs):
        queues.release(job)
    assert queues.capacity(claimed=False) == 8


@pytest.mark.parametrize("claimed", [True, False])
def test_new_and_claimed_deliveries_leave_capacity_for_each_other(claimed: bool) -> None:
    """One kind gets at most three quarters of the capacity; a quarter is left for the other kind."""
    queues = _queues(max_held=40)
    for n in range(30):
        _load(queues, _limits(f"whe_{n}"), _job(n), claimed=claimed)
    assert (queues.capacity(claimed=claimed), queues.has_capacity(claimed=claimed)) == (0, False)
    assert (queues.capacity(claimed=not claimed), queues.has_capacity(claimed=not claimed)) == (10, True)


def test_the_body_of_a_fan_out_counts_once() -> None:
    """Deliveries of one event share one body, whose bytes count once, until the last delivery is released."""
    queues = _queues(max_held=1000, max_bytes=10_000)
    jobs = [_job(n, "evt_same", bytes(5000)) for n in range(3)]
    for job in jobs:
        _load(queues, _limits(), job)
    assert jobs[2].body is jobs[0].body
    assert queues.capacity(claimed=False) > 0
    for job in [*jobs, jobs[0]]:
        queues.release(job)
    assert queues.held == 0


def test_slow_queues_get_half_of_the_capacity() -> None:
    """All slow queues together hold at most half of what the process may hold; other queues still have capacity."""
    queues = _queues(max_held=40)
    slow, good = _limits("whe_slow"), _limits("whe_good")
    queue = _fill(queues, slow, 19)
    queues.set_slow(queue, True)
    assert queues.queue_capacity(queue, 0.0) == 1
    _fill(queues, slow, 1, start=19)
    assert queues.reserve(slow, 0.0) is Placement.PARKED
    assert queues.reserve(good, 0.0) is Placement.LEASED


def test_the_excess_of_slow_queues_is_removed() -> None:
    """If queues become slow while they hold more than their half, their waiting jobs are removed, the newest first."""
    queues = _queues(max_held=40)
    queue = _fill(queues, _limits(), 30)
    queues.set_slow(queue, True)
    assert [job.id for job in queues.remove_excess(queue, 0.0)][:2] == ["dlv_29", "dlv_28"]
    assert not queue.jobs


def test_a_half_empty_queue_can_be_refilled() -> None:
    """A queue with parked rows requests more once it has drained to half, not before."""
    queues = _queues()
    queue = _fill(queues, _limits(cap=5), 10)
    queue.parked = True
    assert queues.refillable(0.0) == []
    assert [queues.pop_oldest(queue).id for _ in range(5)] == [f"dlv_{n}" for n in range(5)]
    assert queues.refillable(0.0) == [(queue, 5)]


def test_requested_rows_get_their_place() -> None:
    """Rows that were requested within the capacity are leased, even if the capacity has shrunk in the meantime."""
    queues = _queues(max_held=10_000)
    limits = _limits(cap=2)
    queue = queues.queue(limits)
    queue.record_latency(0.01)
    _fill(queues, limits, 10)
    assert queues.with_backlog(0.0) == [(queue, 190)]
    queue.mean_latency_s = 1.0
    assert queues.reserve(limits, 0.0) is Placement.PARKED
    assert queues.reserve(limits, 0.0, requested=True) is Placement.LEASED


def test_the_backlog_limits_claims_of_busy_and_foreign_queues_only() -> None:
    """A queue where nothing waits does not limit a claim; a queue that other workers serve allows no rows."""
    own = _queues()
    own.queue(_limits())
    assert own.with_backlog(0.0) == []
    foreign = _queues(live_workers=frozenset({"other"}))
    queue = foreign.queue(_limits())
    assert (queue.share, foreign.with_backlog(0.0)) == (0, [(queue, 0)])


def test_a_newer_version_changes_the_limits() -> None:
    """Limits of a newer endpoint version are applied, those of an older version are ignored."""
    queues = _queues()
    queue = queues.queue(_limits(cap=5))
    queues.queue(_limits(cap=9, version=2))
    queues.queue(_limits(cap=5, version=1))
    assert queue.share == 9


def test_idle_queues_are_evicted() -> None:
    """A queue that was not used for ten minutes is dropped; a queue with jobs is kept."""
    queues = _queues()
    queues.queue(_limits("whe_idle"))
    _fill(queues, _limits("whe_busy"), 1)
    queues.evict_idle(1000.0)
    assert [queue.limits.id for queue in queues] == ["whe_busy"]
