"""A cache of the endpoints that are called, loaded in batches and valid for two seconds."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson
import structlog

from spine import __version__
from spine.kernel.vault import Unsealable, Vault
from spine.webhooks import queries
from spine.webhooks.endpoint_store import headers_place, secret_place
from spine.webhooks.signing import Signer
from workers.webhooks.jobs import EndpointLimits

TTL_S: Final = 2.0
"""How long a cached endpoint is used: the maximum delay of a change."""
REFRESH_S: Final = 1.0
"""Age at which a used endpoint is loaded again."""
_KEPT_S: Final = 600.0
"""How long an endpoint that is not called stays in the cache."""

EndpointKey = tuple[str, str]
"""(workspace id, endpoint id)."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as loaded at `loaded_s`. `signer` is None if its secrets cannot be decrypted."""

    key: EndpointKey
    url: str
    headers: dict[str, str]
    signer: Signer | None
    version: int
    max_in_flight: int
    rate_per_s: float | None
    live: bool
    disabled: bool
    deleted: bool
    loaded_s: float

    @property
    def limits(self) -> EndpointLimits:
        """Its limits, as claims return them."""
        return EndpointLimits(*self.key, self.version, self.max_in_flight, self.rate_per_s, self.live)

    @property
    def is_callable(self) -> bool:
        """Whether deliveries may be sent to it. If not, the waiting ones are released or discarded."""
        return not (self.disabled or self.deleted or self.signer is None)


class EndpointCache:
    """Loads endpoints on demand, many in one query, and calls `on_loaded` with each."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", vault: Vault, on_loaded: Callable[[Endpoint], None]
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._on_loaded = on_loaded
        self._known: dict[EndpointKey, Endpoint] = {}
        self._sealed: dict[EndpointKey, tuple[tuple[bytes, ...], bytes | None]] = {}
        self._requested: set[EndpointKey] = set()
        self._wake = asyncio.Event()

    def find(self, key: EndpointKey, now_s: float) -> Endpoint | None:
        """Return the endpoint if it was loaded at most `TTL_S` ago, otherwise None. Requests a load after `REFRESH_S`."""
        endpoint = self._known.get(key)
        if endpoint is None:
            self._request(key)
            return None
        age_s = now_s - endpoint.loaded_s
        # An endpoint that must not be called is always loaded again: only `on_loaded` moves the jobs that wait for it.
        if age_s > REFRESH_S or not endpoint.is_callable:
            self._request(key)
        return endpoint if age_s <= TTL_S else None

    def invalidate(self, key: EndpointKey) -> None:
        """Drop an endpoint that has just been disabled and load it again."""
        if self._known.pop(key, None) is not None:
            self._request(key)

    def _request(self, key: EndpointKey) -> None:
        if key not in self._requested:
            self._requested.add(key)
            self._wake.set()

    async def step(self) -> None:
        """Wait until an endpoint is requested, load all requested ones, and call `on_loaded` with each."""
        await self._wake.wait()
        self._wake.clear()
        keys = sorted(self._requested)
        now_s = time.monotonic()
        try:
            rows = await self._pool.fetch(queries.ENDPOINTS_LOAD, [key[0] for key in keys], [key[1] for key in keys])
        except BaseException:
            self._wake.set()
            raise
        self._requested.difference_update(keys)
        for row in rows:
            endpoint = self._to_endpoint(row, now_s)
            self._known[endpoint.key] = endpoint
            self._on_loaded(endpoint)

    def evict_old(self, now_s: float) -> None:
        """Drop endpoints that were not loaded in the last ten minutes."""
        for key in [key for key, endpoint in self._known.items() if now_s - endpoint.loaded_s > _KEPT_S]:
            del self._known[key]
            self._sealed.pop(key, None)

    def _to_endpoint(self, row: Any, now_s: float) -> Endpoint:
        key = (row["workspace_id"], row["id"])
        sealed = (tuple(row["secrets"]), row["headers"])
        known = self._known.get(key)
        if known is not None and known.signer is not None and self._sealed.get(key) == sealed:
            opened: tuple[dict[str, str], Signer | None] = known.headers, known.signer
        else:
            opened = self._open(key, *sealed)
        self._sealed[key] = sealed
        return Endpoint(
            key,
            row["url"],
            *opened,
            row["version"],
            row["max_in_flight"],
            row["rate_per_s"],
            row["env"] == "live",
            row["disabled"],
            row["deleted"],
            now_s,
        )

    def _open(
        self, key: EndpointKey, secrets: tuple[bytes, ...], headers: bytes | None
    ) -> tuple[dict[str, str], Signer | None]:
        fixed = {"Content-Type": "application/json", "User-Agent": f"Spine/{__version__}"}
        try:
            custom = orjson.loads(self._vault.open(headers, headers_place(*key))) if headers is not None else {}
            signer = Signer(self._vault.open(secret, secret_place(*key)).decode() for secret in secrets)
        except (Unsealable, ValueError) as error:
            _log.error(
                "endpoint secrets cannot be decrypted", workspace_id=key[0], endpoint_id=key[1], error=repr(error)
            )
            return fixed, None
        return custom | fixed, signer
