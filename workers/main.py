"""The worker's front door: `python -m arq workers.main.WorkerSettings`.

arq brings the bells; the lines of work listed in `PIPELINES` do the work, resident in this process. Settings are read here.
"""

import asyncio
import contextlib
import resource
import signal
from typing import Any, ClassVar, Final

import arq.worker
import uvloop
from arq.connections import RedisSettings

from products.catalogue import CATALOGUE
from spine.kernel import garbage_collection
from spine.kernel.logs import configure_log
from spine.kernel.metrics import EVENT_TYPES
from spine.kernel.redis_client import redis_settings
from spine.kernel.settings import DatabaseSettings, EgressSettings, VaultSettings, WakeupSettings, WorkSettings
from spine.kernel.wakeups import WAKEUP_QUEUE, WakeupKind, deserialize, serialize
from workers.maintenance import Maintenance
from workers.notifications.dispatch import MessageDispatcher
from workers.notifications.receipts import ReceiptPipeline
from workers.pipeline import PipelineFactory, WakeupStatus
from workers.runtime import Runtime
from workers.wakeups import WakeupWorker
from workers.webhooks.dispatch import Dispatcher
from workers.webhooks.replay import ReplayRunner

PIPELINES: Final[tuple[PipelineFactory, ...]] = (
    Dispatcher,
    ReplayRunner,
    MessageDispatcher,
    ReceiptPipeline,
    Maintenance,
)
"""Every kind of work that a worker does. A new one is added here and nowhere else."""

_FILES: Final = 65_536

# `python -m arq` makes its worker by this name: it is the only way to hand it ours.
arq.worker.Worker = WakeupWorker  # type: ignore[misc]
uvloop.install()
configure_log()

_wakeup_settings: Final = WakeupSettings()


async def _on_job(ctx: dict[str, Any], kind: WakeupKind) -> None:
    runtime: Runtime = ctx["runtime"]
    await runtime.receive_job(kind)


async def relay(ctx: dict[str, Any]) -> None:
    """There are events in the outbox."""
    await _on_job(ctx, "relay")


async def deliver(ctx: dict[str, Any]) -> None:
    """There are deliveries due."""
    await _on_job(ctx, "deliver")


async def send(ctx: dict[str, Any]) -> None:
    """There are messages due."""
    await _on_job(ctx, "send")


async def startup(ctx: dict[str, Any]) -> None:
    """Build what the lines share and set them going; the database may come later."""
    runtime = Runtime(
        database=DatabaseSettings(),
        wakeup_settings=_wakeup_settings,
        work=WorkSettings(),
        http_client=EgressSettings(),
        vault=VaultSettings(),
        wakeup_status=ctx["hearing"],
        pipelines=PIPELINES,
    )
    ctx["runtime"] = runtime
    _lift_file_limit()
    EVENT_TYPES.declare(CATALOGUE.types)
    _keep_signals_for(asyncio.current_task())
    garbage_collection.freeze_startup_objects()
    await runtime.start()


async def shutdown(ctx: dict[str, Any]) -> None:
    """Drain the lines and let go of everything."""
    runtime: Runtime | None = ctx.get("runtime")
    if runtime is not None:
        await runtime.stop()


def _keep_signals_for(main: "asyncio.Task[Any] | None") -> None:
    """The first signal ends the main task, whose end runs `shutdown`; the second ends a drain that takes too long."""
    loop = asyncio.get_running_loop()

    def stop(signum: signal.Signals) -> None:
        loop.remove_signal_handler(signum)
        if main is not None:
            main.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(signum, stop, signum)


def _lift_file_limit() -> None:
    """Each call under way is a socket; the usual soft limit of 1,024 is meant for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _FILES) if hard != resource.RLIM_INFINITY else _FILES
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _redis() -> RedisSettings:
    settings = redis_settings(_wakeup_settings.redis_url, retries=1)
    settings.conn_retries = 0  # `BellWorker` tries again, and says meanwhile that it is deaf
    return settings


class WorkerSettings:
    """What arq reads. Attempts are counted in Postgres, results kept there; jobs are bells and end at once."""

    functions: ClassVar = [relay, deliver, send]
    queue_name = WAKEUP_QUEUE
    redis_settings: RedisSettings = _redis()
    job_serializer = serialize
    job_deserializer = deserialize
    poll_delay = _wakeup_settings.poll_delay_s
    on_startup = startup
    on_shutdown = shutdown
    keep_result = 0
    job_timeout = 60
    max_jobs = 1000
    max_tries = 1_000_000
    queue_read_limit = 10_000
    health_check_interval = 3600
    ctx: ClassVar[dict[str, Any]] = {"hearing": WakeupStatus()}
