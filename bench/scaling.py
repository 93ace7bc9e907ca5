"""The arithmetic of a deployment: so many events a second need so many workers, API processes, Postgres nodes and Redis.

    python -m bench.scaling [--events 100000] [--fan-out 1] [--latency-ms 100] [--results docs/measurements.json]

Two parts. `plan` divides demand by what one unit was measured to do, at a given utilisation. `simulate` then runs the
plan as queues, second by second, with bursts and a lost node, and tells whether the backlog drains and how old it gets.
Everything not measured here stands in `Assumptions`, with its reason.
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
    """What one reference run found, on one core of its machine. CPU in microseconds."""

    api_us_per_event: float
    worker_us_per_delivery: float
    postgres_accept_us_per_event: float
    postgres_deliver_us_per_delivery: float
    redis_commands_per_delivery: float
    wal_bytes_per_event: float
    disk_bytes_per_event: float

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """From a results.json of `python -m bench`; KeyError when the run left out what is needed."""
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
    """What was not measured, chosen on the careful side."""

    utilisation: float = 0.6
    """Of a core, in the mean: bursts and a lost node must fit into the rest."""
    cores_per_postgres: int = 16
    wal_bytes_per_s_per_postgres: float = 150e6
    """What one node's log disk keeps up with, group commits and replication included."""
    redis_commands_per_s: float = 80_000
    """One Redis, a single thread, pipelines counted by the command."""
    calls_in_flight_per_worker: int = 512
    """The worker's own default."""
    distributed_overhead: float = 1.25
    """A statement that a coordinator routes to one shard costs more than a local one."""
    retention_days: int = 30


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for."""

    events_per_s: float
    fan_out: float = 1.0
    latency_s: float = 0.1
    """How long receivers take to answer, in the mean."""

    @property
    def deliveries_per_s(self) -> float:
        """First attempts a second."""
        return self.events_per_s * self.fan_out


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of each. One Postgres node is a plain server; more are Citus workers that share the workspaces."""

    api_processes: int
    workers: int
    workers_for_cpu: int
    workers_for_calls: int
    postgres_nodes: int
    postgres_for_cpu: int
    postgres_for_wal: int
    redis: int
    disk_tb: float


def plan(demand: Demand, measured: Measured, assumed: Assumptions) -> Plan:
    """Demand over what one unit does. ValueError for a demand that is not positive."""
    if demand.events_per_s <= 0 or demand.fan_out <= 0:
        raise ValueError("demand must be positive")
    per_core = assumed.utilisation * 1e6
    deliveries = demand.deliveries_per_s
    cpu = ceil(deliveries * measured.worker_us_per_delivery / per_core)
    calls = ceil(deliveries * demand.latency_s / (assumed.calls_in_flight_per_worker * assumed.utilisation))
    postgres_us = (
        demand.events_per_s * measured.postgres_accept_us_per_event
        + deliveries * measured.postgres_deliver_us_per_delivery
    )
    wal = demand.events_per_s * measured.wal_bytes_per_event * max(1.0, demand.fan_out)
    alone = postgres_us <= per_core * assumed.cores_per_postgres and wal <= assumed.wal_bytes_per_s_per_postgres
    overhead = 1.0 if alone else assumed.distributed_overhead
    for_cpu = ceil(postgres_us * overhead / (per_core * assumed.cores_per_postgres))
    for_wal = ceil(wal / (assumed.wal_bytes_per_s_per_postgres * assumed.utilisation))
    seconds_kept = assumed.retention_days * 86_400
    return Plan(
        api_processes=ceil(demand.events_per_s * measured.api_us_per_event / per_core),
        workers=max(cpu, calls),
        workers_for_cpu=cpu,
        workers_for_calls=calls,
        postgres_nodes=max(for_cpu, for_wal),
        postgres_for_cpu=for_cpu,
        postgres_for_wal=for_wal,
        redis=ceil(
            deliveries * measured.redis_commands_per_delivery / (assumed.redis_commands_per_s * assumed.utilisation)
        ),
        disk_tb=demand.events_per_s * measured.disk_bytes_per_event * max(1.0, demand.fan_out) * seconds_kept / 1e12,
    )


@dataclass(frozen=True, slots=True)
class Hour:
    """How an hour went. `oldest_s` is the age of the oldest event waiting at the worst moment, over all shards."""

    accepted: float
    delivered: float
    waiting: float
    oldest_s: float
    busiest: float
    """Mean utilisation of the busiest shard."""


def _loads(shards: int, workspaces: int, skew: float, rng: random.Random) -> list[float]:
    """Each shard's part of the events: workspaces of Zipf sizes, thrown onto shards as hashing throws them."""
    parts = [0.0] * shards
    weights = [1 / (n + 1) ** skew for n in range(workspaces)]
    total = sum(weights)
    for weight in weights:
        parts[rng.randrange(shards)] += weight / total
    return parts


def simulate(
    demand: Demand,
    made: Plan,
    measured: Measured,
    assumed: Assumptions,
    *,
    seconds: int = 3600,
    burst: float = 2.0,
    lost_s: tuple[int, int] = (1800, 1860),
    workspaces: int = 20_000,
    skew: float = 0.6,
    seed: int = 1,
) -> Hour:
    """An hour in steps of a second: every ten minutes a minute of `burst` times the demand; one shard gone in between.

    A shard takes what its own cores allow, and all shards together what the workers allow. Lost work waits: it is
    neither dropped nor done twice here, as it is in Postgres.
    """
    rng = random.Random(seed)
    nodes = made.postgres_nodes
    parts = _loads(nodes, workspaces, skew, rng)
    overhead = 1.0 if nodes == 1 else assumed.distributed_overhead
    us_per_delivery = measured.postgres_deliver_us_per_delivery + measured.postgres_accept_us_per_event / demand.fan_out
    shard_capacity = min(
        assumed.cores_per_postgres * 1e6 / (us_per_delivery * overhead),
        assumed.wal_bytes_per_s_per_postgres / measured.wal_bytes_per_event,
    )
    fleet = min(
        made.workers * 1e6 / measured.worker_us_per_delivery,
        made.workers * assumed.calls_in_flight_per_worker / max(demand.latency_s, 1e-3),
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
        able = [0.0 if down and n == 0 else min(waiting[n], shard_capacity) for n in range(nodes)]
        share = min(1.0, fleet / max(sum(able), 1e-9))
        for n, most in enumerate(able):
            waiting[n] -= most * share
            delivered += most * share
            used[n] += most * share / shard_capacity
            arriving = demand.deliveries_per_s * parts[n]
            oldest = max(oldest, waiting[n] / arriving if arriving else 0.0)
    return Hour(accepted, delivered, sum(waiting), oldest, max(used) / seconds)


def render(demands: Sequence[Demand], measured: Measured, assumed: Assumptions) -> str:
    """Inputs, then a line for each demand."""
    lines = ["measured inputs:"]
    lines += [f"  {field.name:34} {getattr(measured, field.name):12,.3f}" for field in fields(measured)]
    lines += ["assumed:"]
    lines += [f"  {field.name:34} {getattr(assumed, field.name):12,.2f}" for field in fields(assumed)]
    head = f"\n{'events/s':>10} {'fan-out':>7} {'API':>5} {'workers':>8} {'(CPU, calls)':>13} {'Postgres':>8} {'(CPU, WAL)':>10}"
    lines.append(head + f" {'Redis':>5} {'TB kept':>8} {'oldest s':>9} {'left':>9} {'busiest':>7}")
    for demand in demands:
        made = plan(demand, measured, assumed)
        hour = simulate(demand, made, measured, assumed)
        lines.append(
            f"{demand.events_per_s:10,.0f} {demand.fan_out:7g} {made.api_processes:5} {made.workers:8}"
            f" {f'({made.workers_for_cpu}, {made.workers_for_calls})':>13} {made.postgres_nodes:8}"
            f" {f'({made.postgres_for_cpu}, {made.postgres_for_wal})':>10} {made.redis:5} {made.disk_tb:8,.1f}"
            f" {hour.oldest_s:9.1f} {hour.waiting:9,.0f} {hour.busiest:7.0%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the plan and what an hour with it would be like."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--events", type=float, action="append", help="events a second; may be given several times")
    parser.add_argument("--fan-out", type=float, default=1.0)
    parser.add_argument("--latency-ms", type=float, default=100.0)
    parser.add_argument("--utilisation", type=float, default=Assumptions().utilisation)
    parser.add_argument("--results", type=Path, default=MEASURED)
    chosen = parser.parse_args()
    base = Demand(1, chosen.fan_out, chosen.latency_ms / 1000)
    wanted = chosen.events or [1_000, 10_000, 100_000, 500_000]
    demands = [replace(base, events_per_s=events) for events in wanted]
    assumed = replace(Assumptions(), utilisation=chosen.utilisation)
    print(render(demands, Measured.read(chosen.results), assumed))


if __name__ == "__main__":
    main()
