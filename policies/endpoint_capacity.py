"""Computes how many concurrent calls one worker process may make to one endpoint.

The cap of an endpoint holds for all workers together. Every worker computes its share from the same list of live
workers by rendezvous hashing, so the shares add up to the cap without communication. While two workers see different
lists, the sum may be wrong by a few calls: the cap limits load, it is not a lock.
"""

from collections.abc import Collection
from hashlib import blake2b
from math import ceil
from typing import Final

DEPTH_MAX: Final = 2000
"""The maximum number of deliveries that one worker holds for one endpoint. After a crash they wait for lease expiry."""

_HORIZON_S: Final = 1.0


def share(cap: int, workers: Collection[str], me: str, endpoint_id: str, rate_per_s: float | None = None) -> int:
    """Return this worker's share of `cap` concurrent calls. The shares of all `workers` add up to `cap` exactly.

    Returns 0 if `me` is not in `workers`, or if the cap or the rate is too small to be split over all workers.
    """
    place = _place(cap, workers, me, endpoint_id, rate_per_s)
    if place is None:
        return 0
    rank, servers = place
    return cap // servers + (rank < cap % servers)


def rate_share(rate_per_s: float, cap: int, workers: Collection[str], me: str, endpoint_id: str) -> float:
    """Return this worker's share of the calls per second: positive if it has a share of the cap, otherwise 0."""
    place = _place(cap, workers, me, endpoint_id, rate_per_s)
    return 0.0 if place is None else rate_per_s / place[1]


def depth(share: int, mean_latency_s: float | None, rate_per_s: float | None = None) -> int:
    """Return how many deliveries one worker may hold for an endpoint, queued and in flight, with `share` concurrent calls.

    Little's law over one second: as many as it can finish in that time, at least two per call, at most `DEPTH_MAX`.
    With a rate limit, no more than the rate allows in one second. Before a latency is known, the minimum.
    """
    if share <= 0:
        return 0
    held = 2 * share
    if mean_latency_s is not None and mean_latency_s > 0:
        held = max(held, ceil(min(share * _HORIZON_S / mean_latency_s, DEPTH_MAX)))
    if rate_per_s is not None:
        held = min(held, max(1, ceil(rate_per_s * _HORIZON_S)))
    return min(held, DEPTH_MAX)


def _place(
    cap: int, workers: Collection[str], me: str, endpoint_id: str, rate_per_s: float | None
) -> tuple[int, int] | None:
    """Return (rank of this worker, number of workers that serve the endpoint); None if this worker does not serve it.

    A rate is not split below one call per second: eight workers that share one call per second cannot keep that rate.
    """
    alive = set(workers)
    if cap < 1 or me not in alive:
        return None
    servers = min(len(alive), cap)
    if rate_per_s is not None:
        if rate_per_s <= 0:
            return None
        servers = min(servers, max(1, int(rate_per_s)))
    mine = _score(endpoint_id, me)
    rank = sum(_score(endpoint_id, other) > mine for other in alive if other != me)
    return (rank, servers) if rank < servers else None


def _score(endpoint_id: str, worker: str) -> tuple[bytes, str]:
    # The worker name breaks a tie, so that two workers never have the same rank.
    return blake2b(f"{endpoint_id}\0{worker}".encode(), digest_size=8).digest(), worker
