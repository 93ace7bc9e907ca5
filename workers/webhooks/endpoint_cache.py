"""What a call needs to know of its endpoint, read in batches and believed for two seconds."""

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
from spine.webhooks.signing import Signer

TTL_S: Final = 2.0
"""How long after a change of an endpoint the old one may still be called."""
REFRESH_S: Final = 1.0
_KEPT_S: Final = 600.0

EndpointKey = tuple[str, str]
"""(workspace id, endpoint id)."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint ready to be called. `signer` is None where its secrets cannot be read."""

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
    def may_be_called(self) -> bool:
        """Whether deliveries go out to it; where not, those that wait are turned another way."""
        return not (self.disabled or self.deleted or self.signer is None)


class EndpointCache:
    """Loads endpoints on demand, many in one query, and tells who asked."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", vault: Vault, on_loaded: Callable[[Endpoint], None]
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._on_loaded = on_loaded
        self._known: dict[EndpointKey, Endpoint] = {}
        self._sealed: dict[EndpointKey, tuple[tuple[bytes, ...], bytes | None]] = {}
        self._wanted: set[EndpointKey] = set()
        self._asked = asyncio.Event()

    def find(self, key: EndpointKey, now_s: float) -> Endpoint | None:
        """The endpoint as it was at most `TTL_S` ago; None when it must be waited for, and then it is on its way."""
        endpoint = self._known.get(key)
        if endpoint is None:
            self._want(key)
            return None
        age_s = now_s - endpoint.loaded_s
        # One that may not be called is always read anew: what waits for it goes on from the reading, or not at all.
        if age_s > REFRESH_S or not endpoint.may_be_called:
            self._want(key)
        return endpoint if age_s <= TTL_S else None

    def invalidate(self, key: EndpointKey) -> None:
        """Read this endpoint anew before its next call: it has just been disabled."""
        if self._known.pop(key, None) is not None:
            self._want(key)

    def _want(self, key: EndpointKey) -> None:
        if key not in self._wanted:
            self._wanted.add(key)
            self._asked.set()

    async def step(self) -> None:
        """Wait until somebody asks, load what is asked for, and tell of each."""
        await self._asked.wait()
        self._asked.clear()
        keys = sorted(self._wanted)
        now_s = time.monotonic()
        try:
            rows = await self._pool.fetch(queries.ENDPOINTS_LOAD, [key[0] for key in keys], [key[1] for key in keys])
        except BaseException:
            self._asked.set()
            raise
        self._wanted.difference_update(keys)
        for row in rows:
            endpoint = self._read(row, now_s)
            self._known[endpoint.key] = endpoint
            self._on_loaded(endpoint)

    def evict_old(self, now_s: float) -> None:
        """Drop what was not asked for in ten minutes."""
        for key in [key for key, endpoint in self._known.items() if now_s - endpoint.loaded_s > _KEPT_S]:
            del self._known[key]
            self._sealed.pop(key, None)

    def _read(self, row: Any, now_s: float) -> Endpoint:
        key = (row["workspace_id"], row["id"])
        sealed = (tuple(row["secrets"]), row["headers"])
        known = self._known.get(key)
        if known is not None and known.signer is not None and self._sealed.get(key) == sealed:
            open_account: tuple[dict[str, str], Signer | None] = known.headers, known.signer
        else:
            open_account = self._open(key, *sealed)
        self._sealed[key] = sealed
        return Endpoint(
            key,
            row["url"],
            *open_account,
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
        ours = {"Content-Type": "application/json", "User-Agent": f"Spine/{__version__}"}
        try:
            custom = orjson.loads(self._vault.open(headers)) if headers is not None else {}
            signer = Signer(self._vault.open(secret).decode() for secret in secrets)
        except (Unsealable, ValueError) as error:
            _log.error("endpoint cannot be signed for", workspace_id=key[0], endpoint_id=key[1], error=repr(error))
            return ours, None
        return custom | ours, signer
