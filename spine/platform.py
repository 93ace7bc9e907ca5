"""What one API process holds: pools, the vault, the bell. Built at the front door, passed down."""

from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from spine.bell import Bell
from spine.cursor import Cursors
from spine.egress import Egress
from spine.events import Catalogue
from spine.idempotency import Turns
from spine.ratelimit import RateLimiter
from spine.settings import HttpSettings
from spine.tenancy import Authenticator
from spine.vault import Vault
from spine.webhooks.accept import Accepting


@dataclass(frozen=True, slots=True)
class Platform:
    """The held resources of an API process."""

    http: HttpSettings
    egress: Egress
    pool: "asyncpg.Pool[asyncpg.Record]"
    engine: AsyncEngine
    vault: Vault
    redis: Redis
    bell: Bell
    cursors: Cursors
    authenticator: Authenticator
    limiter: RateLimiter
    catalogue: Catalogue
    accepting: Accepting
    turns: Turns
