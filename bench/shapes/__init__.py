"""More shapes than the easy one, for the long run: fan-out, sizes, TLS, failures, slow receivers, large tables."""

from collections.abc import Awaitable, Callable

from bench.rig import Rig

SHAPES: dict[str, Callable[[Rig], Awaitable[None]]] = {}
