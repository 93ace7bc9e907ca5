"""The resources that one API process holds: pools, vault, wakeups. The entry point opens them and passes them down."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from spine.kernel.authentication import Authenticator
from spine.kernel.backpressure import Backpressure
from spine.kernel.cursors import Cursors
from spine.kernel.database_clock import DatabaseClock
from spine.kernel.events import Catalogue
from spine.kernel.http_client import HttpClient
from spine.kernel.idempotency import KeyLocks
from spine.kernel.keys import Env
from spine.kernel.platform_mail import PlatformMail
from spine.kernel.rate_limits import ActionLimiter, RateLimiter
from spine.kernel.read_limits import ReadLimits
from spine.kernel.resource import TenantRow
from spine.kernel.settings import HttpSettings
from spine.kernel.vault import Vault
from spine.kernel.wakeups import Wakeups

WorkspaceSeed = Callable[[str, Env], Iterable[TenantRow]]
"""Returns the rows that a new workspace starts with, from its id and environment. The entry point lists those of the products."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The resources that are shared by all requests of an API process."""

    http: HttpSettings
    http_client: HttpClient
    pool: "asyncpg.Pool[asyncpg.Record]"
    engine: AsyncEngine
    vault: Vault
    redis: Redis
    wakeups: Wakeups
    clock: DatabaseClock
    cursors: Cursors
    authenticator: Authenticator
    limiter: RateLimiter
    signups: ActionLimiter
    confirmation_mails: ActionLimiter
    account_tests: ActionLimiter
    page_views: ActionLimiter
    page_submissions: ActionLimiter
    page_slugs: ActionLimiter
    page_reads: ReadLimits
    """The reads of hosted pages: half of a workspace's, so that visitors of its pages leave room for its own."""
    mail: PlatformMail
    catalogue: Catalogue
    backpressure: Backpressure
    key_locks: KeyLocks
    read_limits: ReadLimits
    workspace_seeds: Sequence[WorkspaceSeed]
