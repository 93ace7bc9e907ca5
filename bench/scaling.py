"""Compute the size of a deployment: workers, API processes, Postgres nodes and Redis for a number of events a second.

    python -m bench.scaling [--events 100000] [--fan-out 1] [--latency-ms 100] [--results docs/measurements.json]

`plan` divides the demand by the measured capacity of one process, at a given utilisation. `simulate` runs the plan as
queues, second by second, with bursts and a lost node, and returns the backlog and its age. Every value that was not
measured is in `Assumptions`, with its reason.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from pathlib import Path

import orjson

from bench.process import ROOT

MEASURED = ROOT / "docs/measurements.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """The costs measured by one reference run, per core of its machine. CPU in microseconds."""

    api_us_per_event: float
    worker_us_per_delivery: float
    postgres_accept_us_per_event: float
    postgres_deliver_us_per_delivery: float
    redis_commands_per_delivery: float
    wal_bytes_per_event: float
    disk_bytes_per_event: float

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """Read a results.json of `python -m bench`. Raises KeyError if a needed measurement is missing."""
        found = orjson.loads(path.read_bytes())
        accept, deliver = (found["per_event"][name] for name in ("accepted in batches of 100", "delivered, one worker"))
        return cls(
            api_us_per_event=accept["cpu_us"]["api"],
            worker_us_per_delivery=deliver["cpu_us"]["worker"],
            postgres_accept_us_per_event=accept["cpu_us"]["postgres"],
            postgres_deliver_us_per_delivery=deliver["cpu_us"]["postgres"],
            redis_commands_per_delivery=deliver["redis_commands"],
            wal_bytes_per_event=accept["wal_bytes"] + deliver["wal_bytes"],
            disk_bytes_per_event=accept["disk_bytes"] + deliver["disk_bytes"],
        )


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Values that were not measured, chosen conservatively."""

    utilisation: float = 0.6
    """Mean utilisation of a core. The rest is for bursts and a lost node."""
    cores_per_postgres: int = 16
    wal_bytes_per_s_per_postgres: float = 150e6
    """What the log disk of one node can write, with group commits and replication."""
    redis_commands_per_s: float = 80_000
    """One Redis is a single thread. Pipelined commands are counted one by one."""
    calls_in_flight_per_worker: int = 512
    """The default of the worker."""
    distributed_overhead: float = 1.25
    """A statement that a coordinator routes to one shard costs more than a local one."""
    retention_days: int = 30


@dataclass(frozen=True, slots=True)
class Demand:
    """The required throughput."""

    events_per_s: float
    fan_out: float = 1.0
    latency_s: float = 0.1
    """The mean response time of receivers."""

    @property
    def deliveries_per_s(self) -> float:
        """First attempts per second."""
        return self.events_per_s * self.fan_out


@dataclass(frozen=True, slots=True)
class Plan:
    """The number of processes and nodes. One Postgres node is a plain server; more are Citus workers that share workspaces."""

    api_processes: int
    workers: int
    workers_for_cpu: int
    workers_for_calls: int
    postgres_nodes: int
    postgres_for_cpu: int
    postgres_for_wal: int
    redis: int
    disk_tb: float


def plan(demand: Demand, measured: Measured, assumptions: Assumptions) -> Plan:
    """Divide the demand by the capacity of one process or node. Raises ValueError if the demand is not positive."""
    if demand.events_per_s <= 0 or demand.fan_out <= 0:
        raise ValueError("demand must be positive")
    per_core = assumptions.utilisation * 1e6
    deliveries = demand.deliveries_per_s
    cpu = ceil(deliveries * measured.worker_us_per_delivery / per_core)
    calls = ceil(deliveries * demand.latency_s / (assumptions.calls_in_flight_per_worker * assumptions.utilisation))
    postgres_us = (
        demand.events_per_s * measured.postgres_accept_us_per_event
        + deliveries * measured.postgres_deliver_us_per_delivery
    )
    wal = demand.events_per_s * measured.wal_bytes_per_event * max(1.0, demand.fan_out)
    alone = postgres_us <= per_core * assumptions.cores_per_postgres and wal <= assumptions.wal_bytes_per_s_per_postgres
    overhead = 1.0 if alone else assumptions.distributed_overhead
    for_cpu = ceil(postgres_us * overhead / (per_core * assumptions.cores_per_postgres))
    for_wal = ceil(wal / (assumptions.wal_bytes_per_s_per_postgres * assumptions.utilisation))
    seconds_kept = assumptions.retention_days * 86_400
    return Plan(
        api_processes=ceil(demand.events_per_s * measured.api_us_per_event / per_core),
        workers=max(cpu, calls),
        workers_for_cpu=cpu,
        workers_for_calls=calls,
        postgres_nodes=max(for_cpu, for_wal),
        postgres_for_cpu=for_cpu,
        postgres_for_wal=for_wal,
        redis=ceil(
            deliveries
            * measured.redis_commands_per_delivery
            / (assumptions.redis_commands_per_s * assumptions.utilisation)
        ),
        disk_tb=demand.events_per_s * measured.disk_bytes_per_event * max(1.0, demand.fan_out) * seconds_kept / 1e12,
    )


@dataclass(frozen=True, slots=True)
class Hour:
    """The result of a simulated hour. `oldest_s` is the maximum age of a waiting event, over all shards."""

    accepted: float
    delivered: float
    waiting: float
    oldest_s: float
    busiest: float
    """Mean utilisation of the busiest shard."""


def _loads(shards: int, workspaces: int, skew: float, rng: random.Random) -> list[float]:
    """Return each shard's part of the events. Workspaces have Zipf sizes and are hashed to shards."""
    parts = [0.0] * shards
    weights = [1 / (n + 1) ** skew for n in range(workspaces)]
    total = sum(weights)
    for weight in weights:
        parts[rng.randrange(shards)] += weight / total
    return parts


def simulate(
    demand: Demand,
    planned: Plan,
    measured: Measured,
    assumptions: Assumptions,
    *,
    seconds: int = 3600,
    burst: float = 2.0,
    lost_s: tuple[int, int] = (1800, 1860),
    workspaces: int = 20_000,
    skew: float = 0.6,
    seed: int = 1,
) -> Hour:
    """Simulate an hour in steps of one second. One minute of every ten has `burst` times the demand; one shard is lost
    during `lost_s`.

    The cores of a shard limit its throughput, and the workers limit the throughput of all shards together. The work of a
    lost shard waits. It is neither dropped nor repeated, as in Postgres.
    """
    rng = random.Random(seed)
    nodes = planned.postgres_nodes
    parts = _loads(nodes, workspaces, skew, rng)
    overhead = 1.0 if nodes == 1 else assumptions.distributed_overhead
    us_per_delivery = measured.postgres_deliver_us_per_delivery + measured.postgres_accept_us_per_event / demand.fan_out
    shard_capacity = min(
        assumptions.cores_per_postgres * 1e6 / (us_per_delivery * overhead),
        assumptions.wal_bytes_per_s_per_postgres / measured.wal_bytes_per_event,
    )
    fleet = min(
        planned.workers * 1e6 / measured.worker_us_per_delivery,
        planned.workers * assumptions.calls_in_flight_per_worker / max(demand.latency_s, 1e-3),
    )
    waiting = [0.0] * nodes
    accepted = delivered = oldest = 0.0
    used = [0.0] * nodes
    for second in range(seconds):
        rate = demand.deliveries_per_s * (burst if 240 <= second % 600 < 300 else 1.0) * rng.uniform(0.9, 1.1)
        down = lost_s[0] <= second < lost_s[1]
        for n, part in enumerate(parts):
            waiting[n] += rate * part
        accepted += rate
        possible = [0.0 if down and n == 0 else min(waiting[n], shard_capacity) for n in range(nodes)]
        share = min(1.0, fleet / max(sum(possible), 1e-9))
        for n, limit in enumerate(possible):
            waiting[n] -= limit * share
            delivered += limit * share
            used[n] += limit * share / shard_capacity
            arriving = demand.deliveries_per_s * parts[n]
            oldest = max(oldest, waiting[n] / arriving if arriving else 0.0)
    return Hour(accepted, delivered, sum(waiting), oldest, max(used) / seconds)


def render(demands: Sequence[Demand], measured: Measured, assumptions: Assumptions) -> str:
    """Return the inputs and one line for each demand as text."""
    lines = ["measured inputs:"]
    lines += [f"  {field.name:34} {getattr(measured, field.name):12,.3f}" for field in fields(measured)]
    lines += ["assumed:"]
    lines += [f"  {field.name:34} {getattr(assumptions, field.name):12,.2f}" for field in fields(assumptions)]
    head = f"\n{'events/s':>10} {'fan-out':>7} {'API':>5} {'workers':>8} {'(CPU, calls)':>13} {'Postgres':>8} {'(CPU, WAL)':>10}"
    lines.append(head + f" {'Redis':>5} {'TB kept':>8} {'oldest s':>9} {'left':>9} {'busiest':>7}")
    for demand in demands:
        planned = plan(demand, measured, assumptions)
        hour = simulate(demand, planned, measured, assumptions)
        lines.append(
            f"{demand.events_per_s:10,.0f} {demand.fan_out:7g} {planned.api_processes:5} {planned.workers:8}"
            f" {f'({planned.workers_for_cpu}, {planned.workers_for_calls})':>13} {planned.postgres_nodes:8}"
            f" {f'({planned.postgres_for_cpu}, {planned.postgres_for_wal})':>10} {planned.redis:5} {planned.disk_tb:8,.1f}"
            f" {hour.oldest_s:9.1f} {hour.waiting:9,.0f} {hour.busiest:7.0%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the plan and the result of a simulated hour for each demand."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--events", type=float, action="append", help="events a second; may be given several times")
    parser.add_argument("--fan-out", type=float, default=1.0)
    parser.add_argument("--latency-ms", type=float, default=100.0)
    parser.add_argument("--utilisation", type=float, default=Assumptions().utilisation)
    parser.add_argument("--results", type=Path, default=MEASURED)
    options = parser.parse_args()
    base = Demand(1, options.fan_out, options.latency_ms / 1000)
    rates = options.events or [1_000, 10_000, 100_000, 500_000]
    demands = [replace(base, events_per_s=events) for events in rates]
    assumptions = replace(Assumptions(), utilisation=options.utilisation)
    print(render(demands, Measured.read(options.results), assumptions))


if __name__ == "__main__":
    main()
