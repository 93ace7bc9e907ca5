"""The estimate of Postgres' clock: never ahead of it, close to it, and untouched by this machine's clock."""

import random
import time

import pytest

from spine.kernel.database_clock import DatabaseClock


class World:
    """A database whose clock is ahead by `ahead_s`, behind a network with these delays."""

    def __init__(self, clock: DatabaseClock, ahead_s: float, seed: int) -> None:
        self.clock = clock
        self.base_s = 1_800_000_000.0 + ahead_s
        self.random = random.Random(seed)  # no secret

    def measure(self, fastest_s: float, slowest_s: float) -> None:
        """Read the database's clock over the network."""
        there_s, back_s = self.random.uniform(fastest_s, slowest_s), self.random.uniform(fastest_s, slowest_s)
        read_s = time.monotonic()
        self.clock.observe(read_s - there_s, read_s + self.base_s, read_s + back_s)

    def error_s(self) -> float:
        """How far the estimate is behind the database's clock."""
        return self.base_s + time.monotonic() - self.clock.now_s()


@pytest.mark.parametrize("ahead_s", [-2.0, 0.0, 2.0])
def test_the_estimate_is_late_by_a_network_delay_at_most(ahead_s: float) -> None:
    """Whatever the delays of the way there and back: never ahead, and behind by no more than the quickest way back."""
    for seed in range(50):
        world = World(DatabaseClock(), ahead_s, seed)
        world.measure(0.0002, 0.1)
        for _ in range(20):
            world.measure(0.0002, 0.02)
        assert -1e-4 <= world.error_s() <= 0.0202


def test_a_step_of_the_databases_clock_is_followed() -> None:
    """The best estimate so far is given up when a measurement contradicts it."""
    for step_s in (-5.0, 5.0):
        world = World(DatabaseClock(), 0.0, 1)
        world.measure(0.0002, 0.001)
        world.base_s += step_s
        world.measure(0.0002, 0.001)
        assert -1e-4 <= world.error_s() <= 0.003


def test_a_step_of_this_machines_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a measurement only the monotonic clock counts; the offset shows the step."""
    world = World(DatabaseClock(), 0.0, 1)
    world.measure(0.0002, 0.001)
    before_s = world.clock.offset_s
    machine = time.time
    monkeypatch.setattr(time, "time", lambda: machine() + 3600)
    assert -1e-4 <= world.error_s() <= 0.003
    assert world.clock.offset_s == pytest.approx(before_s - 3600, abs=1)
