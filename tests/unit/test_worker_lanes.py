"""Lanes: room, promises and fairness, without a network or a database."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from workers.cargo import Cargo, EndpointFacts, Way
from workers.lanes import TRIAL, Lane, Lanes
from workers.roster import Roster

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def _lanes(max_held: int = 100, max_bytes: int = 10**9, alive: frozenset[str] = frozenset({"me"})) -> Lanes:
    roster = Roster(cast("Any", None), "me")
    roster.alive = alive
    return Lanes(roster, max_held, max_bytes)


def _facts(id: str = "whe_1", cap: int = 20, version: int = 1) -> EndpointFacts:
    return EndpointFacts("wsp", id, version, cap, None)


def _cargo(n: int, event: str | None = None, body: bytes = b"{}") -> Cargo:
    return Cargo("wsp", f"dlv_{n}", event or f"evt_{n}", "a.b", "whe_1", 0, 1, None, NOW, body, 1e9, None)


def _fill(lanes: Lanes, facts: EndpointFacts, count: int, start: int = 0) -> Lane:
    for n in range(start, start + count):
        assert lanes.reserve(facts, 0.0) is Way.LEASED
        lanes.load(facts, _cargo(n), 0.0, claimed=False)
    return lanes.lane(facts)


def test_a_full_lane_parks() -> None:
    """A lane takes twice its calls while nothing is known of it; what comes then is parked behind it."""
    lanes = _lanes()
    lane = _fill(lanes, _facts(cap=3), 6)
    assert lanes.reserve(_facts(cap=3), 0.0) is Way.PARKED
    assert lane.parked


def test_a_fast_lane_holds_a_second_of_work() -> None:
    """With 10 ms an answer and 2 calls at once, a lane holds about what a second takes."""
    lanes = _lanes(max_held=10_000)
    lane = lanes.lane(_facts(cap=2))
    lane.learn(0.01)
    assert lane.depth(0.0) == 200


def test_no_share_means_parking() -> None:
    """A worker without a part of an endpoint's cap parks its deliveries for the one that has it."""
    both = frozenset({"me", "other"})
    parts = [_lanes(alive=both).reserve(_facts(f"whe_{n}", cap=1), 0.0) for n in range(8)]
    assert set(parts) == {Way.PARKED, Way.LEASED}


def test_promises_count_as_room_taken() -> None:
    """What is reserved, held or being claimed is no room for others; what is given up or leaves is room again."""
    lanes = _lanes(max_held=10)
    facts = _facts()
    lanes.promise(3)
    assert lanes.reserve(facts, 0.0) is Way.LEASED
    assert lanes.room(claimed=False) == 4
    lanes.give_up(facts)
    lanes.promise(-3)
    lane = _fill(lanes, facts, 4)
    assert lanes.room(claimed=False) == 4
    for cargo in list(lane.queue):
        lanes.leave(cargo)
    assert lanes.room(claimed=False) == 8


@pytest.mark.parametrize("claimed", [True, False])
def test_neither_new_nor_claimed_deliveries_take_all_the_room(claimed: bool) -> None:
    """A quarter is left to the other kind: a backlog does not keep new events waiting, nor they the retries."""
    lanes = _lanes(max_held=40)
    for n in range(30):
        facts = _facts(f"whe_{n}")
        assert lanes.reserve(facts, 0.0) is Way.LEASED
        lanes.load(facts, _cargo(n), 0.0, claimed=claimed)
    assert (lanes.room(claimed=claimed), lanes.has_room(claimed=claimed)) == (0, False)
    assert (lanes.room(claimed=not claimed), lanes.has_room(claimed=not claimed)) == (10, True)


def test_a_fan_out_weighs_once() -> None:
    """Deliveries of one event share one body: it is kept once and weighs once, until the last of them leaves."""
    lanes = _lanes(max_held=1000, max_bytes=10_000)
    facts = _facts()
    bodies = [bytes(5000) for _ in range(3)]
    cargo = [_cargo(n, "evt_same", body) for n, body in enumerate(bodies)]
    for one in cargo:
        lanes.reserve(facts, 0.0)
        lanes.load(facts, one, 0.0, claimed=False)
    assert cargo[2].body is cargo[0].body
    assert lanes.room(claimed=False) > 0
    for one in cargo:
        lanes.leave(one)
    lanes.leave(cargo[0])
    assert lanes.held == 0


def test_slow_lanes_get_half_the_room() -> None:
    """Lanes that are slow together hold at most half of what the process may hold; others still have room."""
    lanes = _lanes(max_held=40)
    slow, good = _facts("whe_slow"), _facts("whe_good")
    lane = _fill(lanes, slow, 19)
    lanes.set_slow(lane, True)
    assert lanes.lane_room(lane, 0.0) == 1
    _fill(lanes, slow, 1, start=19)
    assert lanes.reserve(slow, 0.0) is Way.PARKED
    assert lanes.reserve(good, 0.0) is Way.LEASED


def test_excess_of_slow_lanes_is_given_back() -> None:
    """When lanes turn slow while holding more than their half, what only waits in them is given back, newest first."""
    lanes = _lanes(max_held=40)
    lane = _fill(lanes, _facts(), 30)
    lanes.set_slow(lane, True)
    assert [cargo.id for cargo in lanes.excess(lane, 0.0)][:2] == ["dlv_29", "dlv_28"]
    assert not lane.queue


def test_an_endpoint_that_never_answered_gets_a_trial() -> None:
    """Until its first answer a lane makes a few calls at once; then its whole share."""
    lane = _lanes().lane(_facts(cap=20))
    assert lane.places == TRIAL
    lane.learn(0.01)
    assert lane.places == 20


def test_a_drained_lane_wants_more() -> None:
    """A lane with parked rows behind it asks for more once it has drained to half, not before."""
    lanes = _lanes()
    facts = _facts(cap=5)
    lane = _fill(lanes, facts, 10)
    lane.parked = True
    assert lanes.wanting(0.0) == []
    lanes.take(lane, list(lane.queue)[:5])
    assert lanes.wanting(0.0) == [(lane, 5)]


def test_what_was_asked_for_gets_its_place() -> None:
    """A place that a lane had when its rows were claimed is theirs, though it has learnt meanwhile that it is slower."""
    lanes = _lanes(max_held=10_000)
    facts = _facts(cap=2)
    lane = lanes.lane(facts)
    lane.learn(0.01)
    _fill(lanes, facts, 10)
    assert lanes.backlogged(0.0) == [(lane, 190)]
    lane.mean_latency_s = 1.0
    assert lanes.reserve(facts, 0.0) is Way.PARKED
    assert lanes.reserve(facts, 0.0, asked=True) is Way.LEASED


def test_only_lanes_where_something_waits_are_backlogged() -> None:
    """A lane that waits for nothing is claimed for without bounds; one that others serve has room for nothing."""
    lanes = _lanes(alive=frozenset({"other"}))
    assert _lanes().backlogged(0.0) == []
    assert lanes.backlogged(0.0) == []
    lane = lanes.lane(_facts())
    assert (lane.share, lanes.backlogged(0.0)) == (0, [(lane, 0)])
    mine = _lanes()
    mine.lane(_facts())
    assert mine.backlogged(0.0) == []


def test_a_newer_version_changes_the_cap() -> None:
    """Facts of a newer version are taken up, older ones are not."""
    lanes = _lanes()
    lane = lanes.lane(_facts(cap=5))
    lanes.lane(_facts(cap=9, version=2))
    lanes.lane(_facts(cap=5, version=1))
    assert lane.share == 9


def test_idle_lanes_are_forgotten() -> None:
    """A lane that nothing went through for ten minutes is dropped; one with work is kept."""
    lanes = _lanes()
    lanes.lane(_facts("whe_idle"))
    _fill(lanes, _facts("whe_busy"), 1)
    lanes.forget_idle(1000.0)
    assert [lane.facts.id for lane in lanes] == ["whe_busy"]
