"""The platform of a process: what requests, and jobs of products, are served with. The entry points open it."""

from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from products.catalogue import CATALOGUE, WORKSPACE_SEEDS
from spine.kernel.authentication import Authenticator
from spine.kernel.backpressure import Backpressure
from spine.kernel.cursors import Cursors
from spine.kernel.database import cluster_epoch
from spine.kernel.database_clock import DatabaseClock
from spine.kernel.http_client import HttpClient
from spine.kernel.idempotency import KeyLocks
from spine.kernel.platform import Platform
from spine.kernel.platform_mail import PlatformMail
from spine.kernel.rate_limits import ActionLimiter, RateLimiter
from spine.kernel.read_limits import ReadLimits
from spine.kernel.settings import HttpSettings
from spine.kernel.vault import Vault
from spine.kernel.wakeups import Wakeups

_HOUR_S = 3600
_MAILS_PER_DAY = 3
"""Confirmations that are mailed to one address in a day, whoever signs up with it."""


@dataclass(frozen=True, slots=True)
class Connections:
    """The open connections of a process."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    engine: AsyncEngine
    redis: Redis
    http_client: HttpClient
    wakeups: Wakeups
    clock: DatabaseClock
    mail: PlatformMail


async def new_platform(connections: Connections, http: HttpSettings, vault: Vault) -> Platform:
    """Return a platform over these connections, with the catalogue of all products."""
    pool, redis, clock = connections.pool, connections.redis, connections.clock
    return Platform(
        http=http,
        http_client=connections.http_client,
        pool=pool,
        engine=connections.engine,
        vault=vault,
        redis=redis,
        wakeups=connections.wakeups,
        clock=clock,
        cursors=Cursors(vault.derive(b"cursor"), await cluster_epoch(pool)),
        authenticator=Authenticator(pool, clock),
        limiter=RateLimiter(redis, http.rate_limit_requests),
        signups=ActionLimiter(redis, "signup", http.signup_per_hour, _HOUR_S),
        confirmation_mails=ActionLimiter(redis, "confirmation_mail", _MAILS_PER_DAY, 24 * _HOUR_S),
        account_tests=ActionLimiter(redis, "account_test", http.account_tests_per_hour, _HOUR_S),
        page_views=ActionLimiter(redis, "page_view", http.page_views_per_minute, 60),
        page_submissions=ActionLimiter(redis, "page_submission", http.page_submissions_per_hour, _HOUR_S),
        page_slugs=ActionLimiter(redis, "page", http.page_submissions_per_slug, _HOUR_S),
        page_reads=ReadLimits(max(1, http.max_reads // 2), http.read_timeout_s),
        mail=connections.mail,
        catalogue=CATALOGUE,
        backpressure=Backpressure(pool, http),
        key_locks=KeyLocks(),
        read_limits=ReadLimits(http.max_reads, http.read_timeout_s),
        workspace_seeds=WORKSPACE_SEEDS,
    )
