"""The size of a deployment and its simulation: more demand never needs less, and no event is lost."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scaling import Assumptions, Demand, Measured, plan, simulate

MEASURED = Measured(
    api_us_per_event=60,
    worker_us_per_delivery=200,
    postgres_accept_us_per_event=40,
    postgres_deliver_us_per_delivery=80,
    redis_commands_per_delivery=0.05,
    wal_bytes_per_event=4_000,
    disk_bytes_per_event=3_500,
)
ASSUMED = Assumptions()


def test_plan_is_demand_over_capacity() -> None:
    """Each count is the demand divided by the capacity at the assumed utilisation, rounded up."""
    planned = plan(Demand(100_000, latency_s=0.05), MEASURED, ASSUMED)
    assert planned.api_processes == 10
    assert planned.workers_for_cpu == 34  # 100,000 x 200 us / 0.6 s
    assert planned.workers_for_calls == 17  # 5,000 calls under way / (512 x 0.6)
    assert planned.workers == 34
    assert planned.postgres_for_cpu == 2  # 12 s of CPU a second x 1.25 / (16 x 0.6)
    assert planned.postgres_nodes == max(planned.postgres_for_cpu, planned.postgres_for_wal)


def test_slow_receivers_need_calls_not_cpu() -> None:
    """With receivers that take two seconds, concurrent calls determine the number of workers (Little's law)."""
    planned = plan(Demand(10_000, latency_s=2.0), MEASURED, ASSUMED)
    assert planned.workers == planned.workers_for_calls > planned.workers_for_cpu


@given(st.floats(1, 1e6), st.floats(1, 3), st.floats(1, 50))
def test_more_demand_never_needs_less(events: float, times: float, fan_out: float) -> None:
    """No count of a plan decreases when the demand increases."""
    few = plan(Demand(events, fan_out), MEASURED, ASSUMED)
    many = plan(Demand(events * times, fan_out), MEASURED, ASSUMED)
    for name in ("api_processes", "workers", "postgres_nodes", "redis", "disk_tb"):
        assert getattr(many, name) >= getattr(few, name)


def test_demand_must_be_positive() -> None:
    """A demand of zero is an error."""
    with pytest.raises(ValueError, match="positive"):
        plan(Demand(0), MEASURED, ASSUMED)


@settings(max_examples=10)
@given(st.integers(1, 1000))
def test_simulated_hour_loses_nothing(seed: int) -> None:
    """Every accepted event is delivered or waits, also after the loss of a shard."""
    demand = Demand(50_000)
    hour = simulate(
        demand, plan(demand, MEASURED, ASSUMED), MEASURED, ASSUMED, seconds=900, lost_s=(300, 400), seed=seed
    )
    assert hour.accepted == pytest.approx(hour.delivered + hour.waiting)


def test_planned_deployment_drains_its_bursts() -> None:
    """A planned deployment drains the backlog of bursts and a lost node before the hour ends."""
    demand = Demand(100_000)
    hour = simulate(demand, plan(demand, MEASURED, ASSUMED), MEASURED, ASSUMED, burst=1.4)
    assert hour.waiting < demand.deliveries_per_s


def test_third_of_the_workers_falls_behind() -> None:
    """With a third of the workers the backlog grows, so the simulation can fail."""
    demand = Demand(100_000)
    planned = plan(demand, MEASURED, ASSUMED)
    hour = simulate(demand, replace(planned, workers=planned.workers // 3), MEASURED, ASSUMED)
    assert hour.waiting > 60 * demand.deliveries_per_s
