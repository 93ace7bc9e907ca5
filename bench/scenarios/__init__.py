"""Scenarios of the long run: fan-out, sizes, TLS, failures, slow receivers, large tables."""

from collections.abc import Awaitable, Callable
from typing import Final

from bench.environment import Environment
from bench.scenarios import choices, growth, overload, profile, receivers, traffic

SCENARIOS: Final[dict[str, Callable[[Environment], Awaitable[None]]]] = {
    "fan-out": traffic.fan_out,
    "many-endpoints": traffic.many_endpoints,
    "sizes": traffic.sizes,
    "failing": receivers.failing,
    "slow": receivers.slow,
    "tls": receivers.tls,
    "profile": profile.profile,
    "choices": choices.measure,
    "overload": overload.overload,
    "draining": growth.draining,
    "hour": growth.hour,
    "history": growth.history,
}
"""In the order in which they run. Scenarios that fill the tables are last."""
