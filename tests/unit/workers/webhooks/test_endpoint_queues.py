"""Lanes: room, promises and fairness, without a network or a database."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_queues import PROBE_CALLS, EndpointQueue, EndpointQueues
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def _queues(
    max_held: int = 100, max_bytes: int = 10**9, live_workers: frozenset[str] = frozenset({"me"})
) -> EndpointQueues:
    heartbeat = Heartbeat(cast("Any", None), "me")
    heartbeat.live_workers = live_workers
    return EndpointQueues(heartbeat, max_held, max_bytes)


def _facts(id: str = "whe_1", cap: int = 20, version: int = 1) -> EndpointLimits:
    return EndpointLimits("wsp", id, version, cap, None)


def _cargo(n: int, event: str | None = None, body: bytes = b"{}") -> DeliveryJob:
    return DeliveryJob("wsp", f"dlv_{n}", event or f"evt_{n}", "a.b", "whe_1", 0, 1, None, NOW, body, 1e9, None)


def _fill(queues: EndpointQueues, limits: EndpointLimits, count: int, start: int = 0) -> EndpointQueue:
    for n in range(start, start + count):
        assert queues.reserve(limits, 0.0) is Placement.LEASED
        queues.load(limits, _cargo(n), 0.0, claimed=False)
    return queues.queue(limits)


def test_a_full_lane_parks() -> None:
    """A lane takes twice its calls while nothing is known of it; what comes then is parked behind it."""
    queues = _queues()
    queue = _fill(queues, _facts(cap=3), 6)
    assert queues.reserve(_facts(cap=3), 0.0) is Placement.PARKED
    assert queue.parked


def test_a_fast_lane_holds_a_second_of_work() -> None:
    """With 10 ms an answer and 2 calls at once, a lane holds about what a second takes."""
    queues = _queues(max_held=10_000)
    queue = queues.queue(_facts(cap=2))
    queue.learn(0.01)
    assert queue.depth(0.0) == 200


def test_no_share_means_parking() -> None:
    """A worker without a part of an endpoint's cap parks its deliveries for the one that has it."""
    both = frozenset({"me", "other"})
    parts = [_queues(live_workers=both).reserve(_facts(f"whe_{n}", cap=1), 0.0) for n in range(8)]
    assert set(parts) == {Placement.PARKED, Placement.LEASED}


def test_promises_count_as_room_taken() -> None:
    """What is reserved, held or being claimed is no room for others; what is given up or leaves is room again."""
    queues = _queues(max_held=10)
    limits = _facts()
    queues.reserve_room(3)
    assert queues.reserve(limits, 0.0) is Placement.LEASED
    assert queues.room(claimed=False) == 4
    queues.cancel_reservation(limits)
    queues.reserve_room(-3)
    queue = _fill(queues, limits, 4)
    assert queues.room(claimed=False) == 4
    for job in list(queue.jobs):
        queues.release(job)
    assert queues.room(claimed=False) == 8


@pytest.mark.parametrize("claimed", [True, False])
def test_neither_new_nor_claimed_deliveries_take_all_the_room(claimed: bool) -> None:
    """A quarter is left to the other kind: a backlog does not keep new events waiting, nor they the retries."""
    queues = _queues(max_held=40)
    for n in range(30):
        limits = _facts(f"whe_{n}")
        assert queues.reserve(limits, 0.0) is Placement.LEASED
        queues.load(limits, _cargo(n), 0.0, claimed=claimed)
    assert (queues.room(claimed=claimed), queues.has_room(claimed=claimed)) == (0, False)
    assert (queues.room(claimed=not claimed), queues.has_room(claimed=not claimed)) == (10, True)


def test_a_fan_out_weighs_once() -> None:
    """Deliveries of one event share one body: it is kept once and weighs once, until the last of them leaves."""
    queues = _queues(max_held=1000, max_bytes=10_000)
    limits = _facts()
    bodies = [bytes(5000) for _ in range(3)]
    job = [_cargo(n, "evt_same", body) for n, body in enumerate(bodies)]
    for one in job:
        queues.reserve(limits, 0.0)
        queues.load(limits, one, 0.0, claimed=False)
    assert job[2].body is job[0].body
    assert queues.room(claimed=False) > 0
    for one in job:
        queues.release(one)
    queues.release(job[0])
    assert queues.held == 0


def test_slow_lanes_get_half_the_room() -> None:
    """Lanes that are slow together hold at most half of what the process may hold; others still have room."""
    queues = _queues(max_held=40)
    slow, good = _facts("whe_slow"), _facts("whe_good")
    queue = _fill(queues, slow, 19)
    queues.set_slow(queue, True)
    assert queues.queue_room(queue, 0.0) == 1
    _fill(queues, slow, 1, start=19)
    assert queues.reserve(slow, 0.0) is Placement.PARKED
    assert queues.reserve(good, 0.0) is Placement.LEASED


def test_excess_of_slow_lanes_is_given_back() -> None:
    """When lanes turn slow while holding more than their half, what only waits in them is given back, newest first."""
    queues = _queues(max_held=40)
    queue = _fill(queues, _facts(), 30)
    queues.set_slow(queue, True)
    assert [job.id for job in queues.excess(queue, 0.0)][:2] == ["dlv_29", "dlv_28"]
    assert not queue.jobs


def test_an_endpoint_that_never_answered_gets_a_trial() -> None:
    """Until its first answer a lane makes a few calls at once; then its whole share."""
    queue = _queues().queue(_facts(cap=20))
    assert queue.places == PROBE_CALLS
    queue.learn(0.01)
    assert queue.places == 20


def test_a_drained_lane_wants_more() -> None:
    """A lane with parked rows behind it asks for more once it has drained to half, not before."""
    queues = _queues()
    limits = _facts(cap=5)
    queue = _fill(queues, limits, 10)
    queue.parked = True
    assert queues.refillable(0.0) == []
    queues.take(queue, list(queue.jobs)[:5])
    assert queues.refillable(0.0) == [(queue, 5)]


def test_what_was_asked_for_gets_its_place() -> None:
    """A place that a lane had when its rows were claimed is theirs, though it has learnt meanwhile that it is slower."""
    queues = _queues(max_held=10_000)
    limits = _facts(cap=2)
    queue = queues.queue(limits)
    queue.learn(0.01)
    _fill(queues, limits, 10)
    assert queues.with_backlog(0.0) == [(queue, 190)]
    queue.mean_latency_s = 1.0
    assert queues.reserve(limits, 0.0) is Placement.PARKED
    assert queues.reserve(limits, 0.0, asked=True) is Placement.LEASED


def test_only_lanes_where_something_waits_are_backlogged() -> None:
    """A lane that waits for nothing is claimed for without bounds; one that others serve has room for nothing."""
    queues = _queues(live_workers=frozenset({"other"}))
    assert _queues().with_backlog(0.0) == []
    assert queues.with_backlog(0.0) == []
    queue = queues.queue(_facts())
    assert (queue.share, queues.with_backlog(0.0)) == (0, [(queue, 0)])
    mine = _queues()
    mine.queue(_facts())
    assert mine.with_backlog(0.0) == []


def test_a_newer_version_changes_the_cap() -> None:
    """Facts of a newer version are taken up, older ones are not."""
    queues = _queues()
    queue = queues.queue(_facts(cap=5))
    queues.queue(_facts(cap=9, version=2))
    queues.queue(_facts(cap=5, version=1))
    assert queue.share == 9


def test_idle_lanes_are_forgotten() -> None:
    """A lane that nothing went through for ten minutes is dropped; one with work is kept."""
    queues = _queues()
    queues.queue(_facts("whe_idle"))
    _fill(queues, _facts("whe_busy"), 1)
    queues.evict_idle(1000.0)
    assert [queue.limits.id for queue in queues] == ["whe_busy"]
