"""The platform that the jobs of products run on, over the connections of the worker process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from products.platform import Connections, new_platform
from spine.kernel.database import open_engine
from spine.kernel.platform import Platform
from spine.kernel.platform_mail import PlatformMail
from spine.kernel.redis_client import open_redis
from spine.kernel.settings import DatabaseSettings, HttpSettings, MailSettings, WakeupSettings
from workers.pipeline import WorkerContext

_CONNECTIONS: Final = 4
"""Transactions of jobs at the same time, as many as `workers.jobs` runs."""


@asynccontextmanager
async def open_job_platform(
    context: WorkerContext, database: DatabaseSettings, wakeups: WakeupSettings, http: HttpSettings, mail: MailSettings
) -> AsyncIterator[Platform]:
    """Open a platform whose transactions have the worker's role."""
    engine = open_engine(database.database_url, "spine_worker", "spine worker", _CONNECTIONS)
    redis = open_redis(wakeups.redis_url)
    platform_mail = PlatformMail(mail)
    try:
        yield await new_platform(
            Connections(
                context.pool,
                engine,
                redis,
                context.http_client,
                context.wakeups,
                context.wakeup_status.clock,
                platform_mail,
            ),
            http,
            context.vault,
        )
    finally:
        await platform_mail.close()
        await redis.aclose()
        await engine.dispose()
