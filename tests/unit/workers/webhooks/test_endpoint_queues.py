"""Endpoint queues: capacity, reservations and fairness, without a network or a database."""

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import fair_share
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement
from workers.webhooks.refill import Refill
from workers.webhooks.workspace_use import WorkspaceUses

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
    """Reserved and held deliveries reduce the capacity; cancelled reservations and released jobs free it."""
    queues = _queues(max_held=10)
    limits = _limits()
    assert queues.reserve(limits, 0.0) is Placement.LEASED
    assert queues.capacity(claimed=False) == 7
    queues.cancel_reservation(limits)
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
        _load(queues, _limits(f"whe_{n}", workspace=f"wsp_{n}"), _job(n), claimed=claimed)
    assert queues.capacity(claimed=claimed) == 0
    assert queues.capacity(claimed=not claimed) == 10


def test_the_body_of_a_fan_out_counts_once() -> None:
    """Deliveries of one event share one body, whose bytes count once, until the last delivery is released."""
    queues = _queues(max_held=1000, max_bytes=20_000)
    jobs = [_job(n, "evt_same", bytes(5000)) for n in range(3)]
    for job in jobs:
        _load(queues, _limits(), job)
    assert jobs[2].body is jobs[0].body
    assert queues.bodies.bytes == 5000
    for job in [*jobs, jobs[0]]:
        queues.release(job)
    assert (queues.held, queues.bodies.bytes, queues.bodies.free) == (0, 0, 20_000)


def test_slow_queues_get_half_of_the_share() -> None:
    """The slow queues of one workspace hold half of its share; its other queues, and those of others, have room."""
    queues = _queues(max_held=80)
    slow, good = _limits("whe_slow"), _limits("whe_good")
    queue = queues.queue(slow)
    queues.set_slow(queue, True)
    _fill(queues, slow, 20)
    assert queues.reserve(slow, 0.0) is Placement.PARKED
    assert queues.reserve(good, 0.0) is Placement.LEASED
    other = queues.queue(_limits("whe_other", workspace="other"))
    queues.set_slow(other, True)
    assert queues.queue_capacity(other, 0.0) == 10


def test_the_excess_of_slow_queues_is_removed() -> None:
    """If queues become slow while they hold more than may be slow, the excess of their waiting jobs goes, the newest first."""
    queues = _queues(max_held=80)
    queue = _fill(queues, _limits(), 30)
    queues.set_slow(queue, True)
    removed = [job.id for job in queues.remove_excess(queue, 0.0)]
    assert removed == [f"dlv_{n}" for n in range(29, 19, -1)]
    assert queues.remove_excess(queue, 0.0) == []


def test_a_half_empty_queue_can_be_refilled() -> None:
    """A queue with parked rows requests more once it has drained to half, not before."""
    queues = _queues()
    refill = Refill(queues)
    queue = _fill(queues, _limits(cap=5), 10)
    queue.parked = True
    refill.add(queue)
    assert refill.take(0.0, 100) == []
    jobs = [queues.pop_oldest(queue) for _ in range(5)]
    assert [job.id for job in jobs] == [f"dlv_{n}" for n in range(5)]
    refill.add(queue)
    assert refill.take(0.0, 100) == [(queue, 5)]
    assert not refill


def test_workspaces_are_refilled_in_turn() -> None:
    """A workspace with many queues to refill does not delay another's, and one without room keeps its turn."""
    queues = _queues(max_held=64)
    refill = Refill(queues)
    for name, count in (("busy", 50), ("quiet", 1)):
        for n in range(count):
            queue = queues.queue(_limits(f"whe_{name}_{n}", cap=2, workspace=name))
            queue.parked = True
            refill.add(queue)
    assert [queue.limits.workspace_id for queue, _ in refill.take(0.0, 8)] == ["busy", "quiet"]
    for n in range(32):
        _load(queues, _limits(f"whe_{n}", workspace="busy"), _job(n))
    assert refill.take(0.0, 8) == []
    assert refill


def test_one_workspace_leaves_room_for_the_others() -> None:
    """A workspace holds at most half, however many endpoints it has; its further deliveries stay due. Others get a place."""
    queues = _queues(max_held=100)
    placements = [queues.reserve(_limits(f"whe_{n}"), 0.0) for n in range(100)]
    assert placements.count(Placement.LEASED) == 50
    assert placements.count(Placement.DUE) == 50
    assert queues.full_workspaces(claimed=True) == ["wsp"]
    assert queues.reserve(_limits("whe_other", workspace="other"), 0.0) is Placement.LEASED


def test_a_test_workspace_gets_a_ninth() -> None:
    """Beside a live one a test workspace holds a ninth of the places, and still gets one while live ones hold all they may."""
    queues = _queues(max_held=91)
    queues.reserve(_limits("whe_live", workspace="one"), 0.0)
    test = [queues.reserve(_limits(f"whe_{n}", workspace="test", live=False), 0.0) for n in range(90)]
    assert test.count(Placement.LEASED) == 10
    for n in range(90):
        for name in ("one", "two", "three"):
            queues.reserve(_limits(f"whe_{name}_{n}", workspace=name), 0.0)
    assert queues.reserve(_limits("whe_late", workspace="late", live=False), 0.0) is Placement.LEASED


BODY = 262_144
"""Bytes of the largest permitted event."""


def test_room_follows_the_bytes_really_held() -> None:
    """Largest bodies fill a share of the bytes, and when they are gone everything is free again: sizes of the past do not count."""
    queues = _queues(max_held=4096, max_bytes=128 * 1024 * 1024)
    limits = [_limits(f"whe_{n}") for n in range(450)]
    jobs = []
    for n in range(450):
        if queues.reserve(limits[n], 0.0) is Placement.LEASED:
            jobs.append(_job(n, body=bytes(BODY)))
            queues.load(limits[n], jobs[-1], 0.0, claimed=False)
    assert len(jobs) == 256
    assert queues.bodies.bytes == 256 * BODY <= 128 * 1024 * 1024
    assert queues.capacity(claimed=False) > 0
    for job in jobs:
        queues.release(job)
    assert (queues.bodies.bytes, queues.bodies.free) == (0, 128 * 1024 * 1024)
    assert queues.reserve(limits[0], 0.0) is Placement.LEASED


def test_an_empty_process_holds_one_body_of_any_size() -> None:
    """No body is too large for an empty process, and nothing follows it until it is gone."""
    queues = _queues(max_bytes=1000)
    use = queues.queue(_limits()).workspace
    assert queues.bodies.admits(use, BODY)
    job = _job(1, body=bytes(BODY))
    _load(queues, _limits(), job)
    assert queues.capacity(claimed=True) == 0
    assert not queues.bodies.admits(queues.queue(_limits("whe_b", workspace="b")).workspace, 1)
    queues.release(job)
    assert queues.capacity(claimed=True) > 0


def test_running_batches_never_reserve_more_than_there_is() -> None:
    """The room of batches that run at once adds up to no more than the bytes of the process, and comes back."""
    bodies = _queues(max_bytes=1600).bodies
    with ExitStack() as batches:
        rooms = [batches.enter_context(bodies.reserved_batch()) for _ in range(8)]
        assert rooms == [200] * 8
        assert bodies.batch_room() == 0
    assert bodies.free == 1600


@given(data=st.data())
def test_the_counters_agree_with_what_is_held(data: st.DataObject) -> None:
    """Whatever happens to deliveries: places, bytes and slow places are those of the held deliveries, per workspace and in all."""
    queues = _queues(max_held=30, max_bytes=4000)
    endpoints = [_limits(f"whe_{n}", cap=3, workspace=f"wsp_{n % 3}", live=n % 3 != 2) for n in range(6)]
    reserved: list[EndpointLimits] = []
    held: dict[str, tuple[EndpointLimits, DeliveryJob]] = {}
    for n in range(data.draw(st.integers(1, 60))):
        action = data.draw(
            st.sampled_from(["reserve", "reserve", "load", "load", "cancel", "release", "slow", "excess"])
        )
        limits = data.draw(st.sampled_from(endpoints))
        queue = queues.queue(limits)
        if action == "reserve" and queues.reserve(limits, 0.0) is Placement.LEASED:
            reserved.append(limits)
        elif action == "load" and reserved:
            limits = reserved.pop()
            event = data.draw(st.integers(0, 5))
            job = _job(n, f"evt_{limits.workspace_id}_{event}", bytes(event * 100))
            queues.load(limits, job, 0.0, claimed=data.draw(st.booleans()))
            held[job.id] = limits, job
        elif action == "cancel" and reserved:
            queues.cancel_reservation(reserved.pop())
        elif action == "release" and queue.jobs:
            job = queues.pop_oldest(queue)
            queues.release(job)
            del held[job.id]
        elif action == "slow":
            queues.set_slow(queue, not queue.slow)
        elif action == "excess":
            for job in queues.remove_excess(queue, 0.0):
                queues.release(job)
                del held[job.id]
    for name in {limits.workspace_id for limits in endpoints}:
        mine = [job for limits, job in held.values() if limits.workspace_id == name]
        use = queues.queue(next(limits for limits in endpoints if limits.workspace_id == name)).workspace
        slow = [
            queues.queue(limits).held
            for limits in endpoints
            if limits.workspace_id == name and queues.queue(limits).slow
        ]
        assert use.held == len(mine) + sum(limits.workspace_id == name for limits in reserved)
        assert use.bytes == sum({job.event_id: len(job.body) for job in mine}.values())
        assert use.slow_held == sum(slow)
    assert queues.held == len(held)
    assert queues.bodies.bytes == sum({job.event_id: len(job.body) for _, job in held.values()}.values())
    assert set(queues) == {queues.queue(limits) for limits, _ in held.values()}


def test_idle_queues_cost_nothing() -> None:
    """What runs a few times per second looks at active queues only, and shares follow the list of workers at the next use."""
    queues = _queues(live_workers=frozenset({"me", "other"}))
    idle = [queues.queue(_limits(f"whe_{n}", cap=4)) for n in range(1000)]
    busy = _fill(queues, _limits("whe_busy", cap=4), 1)
    assert list(queues) == [busy]
    queues._heartbeat.live_workers = frozenset({"me"})
    queues.rebalance()
    assert (busy.share, idle[0].share) == (4, 2)
    assert queues.queue(_limits("whe_0", cap=4)).share == 4


def test_a_newer_version_changes_the_limits() -> None:
    """Limits of a newer endpoint version are applied, those of an older version are ignored."""
    queues = _queues()
    queue = queues.queue(_limits(cap=5))
    queues.queue(_limits(cap=9, version=2))
    queues.queue(_limits(cap=5, version=1))
    assert queue.share == 9


def test_idle_queues_are_evicted() -> None:
    """A queue that was not used for ten minutes is dropped, with its workspace; queues with jobs or parked rows are kept."""
    queues = _queues()
    queues.queue(_limits("whe_idle", workspace="gone"))
    queues.queue(_limits("whe_parked")).parked = True
    _fill(queues, _limits("whe_busy"), 1)
    queues.evict_idle(1000.0)
    left = [name for name in ("idle", "parked", "busy") if queues.find(("wsp", f"whe_{name}"))]
    assert left == ["parked", "busy"]
    assert queues.find(("gone", "whe_idle")) is None
    assert queues.relay_room("gone") == queues.capacity(claimed=False)


@pytest.mark.parametrize(("live", "part"), [(True, 1600 // 2), (False, 1600 * 3 // 16)])
def test_a_workspace_is_relayed_what_may_be_reserved_for_it(live: bool, part: int) -> None:
    """The relay has room for a workspace as long as places can be reserved for it, however few the other kinds leave."""
    queues = _queues(max_held=1600)
    queues.queue(_limits("whe_1", live=live))
    assert queues.relay_room("wsp") == part


@given(held=st.lists(st.booleans(), max_size=6), mine=st.integers(0, 50), free=st.integers(0, 100))
def test_test_workspaces_share_a_part_while_no_live_one_holds_anything(held: list[bool], mine: int, free: int) -> None:
    """The smaller share of test workspaces is for the sake of live ones that hold something. 5/8 are always left for those."""
    uses = WorkspaceUses()
    test = uses.open_queue("wsp_test", live=False)
    others = [uses.open_queue(f"wsp_{n}", live=live) for n, live in enumerate(held)]
    for use in others:
        uses.hold(use, 2)
    small = fair_share.room(mine, free, live=False)
    if any(held):
        assert test.room(mine, free, 100) == small
    for use in others:
        uses.hold(use, -1)
        uses.hold(use, -1)
    room = test.room(mine, free, 100)
    assert room == (fair_share.room(mine, free - 62, live=True) or small)
    assert room <= max(free - 62, small)
    assert test.has_room(mine, free, 100) == (room > 0)
    if room > 1:
        assert not test.is_over(mine, free, 100)
