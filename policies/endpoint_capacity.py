"""How many calls one worker process may have under way to one endpoint.

The cap of an endpoint is one number for all workers together. Every worker computes its part from the same list of
live workers by rendezvous hashing, so the parts add up to the cap without a word between them. While two workers see
different lists the sum may be off by a few calls for as long as that lasts: a cap on load, not a lock.
"""

from collections.abc import Collection
from hashlib import blake2b
from math import ceil
from typing import Final

DEPTH_MAX: Final = 2000
"""The most deliveries that one worker holds for one endpoint: what a crash makes wait for a lease to end."""

_HORIZON_S: Final = 1.0


def share(cap: int, workers: Collection[str], me: str, endpoint_id: str, rate_per_s: float | None = None) -> int:
    """My part of `cap` calls in flight to the endpoint; the parts of all `workers` add up to `cap` exactly.

    0 when `me` is not among the workers, or when the cap or the rate is too small to be split so far.
    """
    place = _place(cap, workers, me, endpoint_id, rate_per_s)
    if place is None:
        return 0
    rank, servers = place
    return cap // servers + (rank < cap % servers)


def rate_share(rate_per_s: float, cap: int, workers: Collection[str], me: str, endpoint_id: str) -> float:
    """My part of the endpoint's calls per second: positive for the workers with a part of the cap, for others 0."""
    place = _place(cap, workers, me, endpoint_id, rate_per_s)
    return 0.0 if place is None else rate_per_s / place[1]


def depth(share: int, mean_latency_s: float | None, rate_per_s: float | None = None) -> int:
    """How many deliveries one worker may hold for an endpoint, queued and in flight, with `share` calls at once.

    Little's law over one second: what it can finish in that time, at least two for each call, `DEPTH_MAX` at most;
    under a rate no more than that rate can use. Without a latency yet, the least.
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
    """My rank among the workers that serve the endpoint, and how many those are; None when I am not one of them.

    A rate is not split below one call per second: eight workers sharing one call a second could not keep its pace.
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
    # The name breaks a tie, so that two workers never hold the same rank.
    return blake2b(f"{endpoint_id}\0{worker}".encode(), digest_size=8).digest(), worker
