"""The entry point of the worker: `python -m arq workers.main.WorkerSettings`.

arq receives wakeups; the pipelines listed in `PIPELINES` do the work in this process. Settings are read here.
"""

import asyncio
import contextlib
import functools
import resource
import signal
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final

import arq.worker
import uvloop
from arq.connections import RedisSettings

from products.catalogue import CATALOGUE, JOBS
from spine.kernel import garbage_collection
from spine.kernel.logs import configure_log
from spine.kernel.metrics import EVENT_TYPES
from spine.kernel.platform import Platform
from spine.kernel.redis_client import redis_settings
from spine.kernel.settings import (
    DatabaseSettings,
    EgressSettings,
    HttpSettings,
    MailSettings,
    VaultSettings,
    WakeupSettings,
    WorkSettings,
)
from spine.kernel.wakeups import WAKEUP_QUEUE, WakeupKind, deserialize, serialize
from workers.job_platform import open_job_platform
from workers.jobs import JobRunner
from workers.maintenance import Maintenance
from workers.notifications.dispatch import MessageDispatcher
from workers.notifications.receipts import ReceiptPipeline
from workers.pipeline import PipelineFactory, WakeupStatus, WorkerContext
from workers.runtime import Runtime
from workers.wakeups import WakeupWorker
from workers.webhooks.dispatch import Dispatcher
from workers.webhooks.endpoint_transitions import EndpointTransitions
from workers.webhooks.replay import ReplayRunner


def _job_platform(context: WorkerContext) -> AbstractAsyncContextManager[Platform]:
    return open_job_platform(context, DatabaseSettings(), WakeupSettings(), HttpSettings(), MailSettings())


PIPELINES: Final[tuple[PipelineFactory, ...]] = (
    Dispatcher,
    EndpointTransitions,
    ReplayRunner,
    MessageDispatcher,
    ReceiptPipeline,
    functools.partial(JobRunner, handlers=JOBS, open_platform=_job_platform),
    Maintenance,
)
"""Every kind of work of a worker. A new pipeline is added here and nowhere else."""

_OPEN_FILES: Final = 65_536

# `python -m arq` creates its worker by this name, and has no other way to replace the class.
arq.worker.Worker = WakeupWorker  # type: ignore[misc]
uvloop.install()
configure_log()

_wakeup_settings: Final = WakeupSettings()


async def _receive_job(ctx: dict[str, Any], kind: WakeupKind) -> None:
    runtime: Runtime = ctx["runtime"]
    await runtime.receive_job(kind)


async def relay(ctx: dict[str, Any]) -> None:
    """Job: there may be events in the outbox."""
    await _receive_job(ctx, "relay")


async def deliver(ctx: dict[str, Any]) -> None:
    """Job: deliveries may be due."""
    await _receive_job(ctx, "deliver")


async def send(ctx: dict[str, Any]) -> None:
    """Job: messages may be due."""
    await _receive_job(ctx, "send")


async def job(ctx: dict[str, Any]) -> None:
    """Job: jobs of products may be due."""
    await _receive_job(ctx, "job")


async def startup(ctx: dict[str, Any]) -> None:
    """Create the runtime and start it. The database need not be reachable yet."""
    runtime = Runtime(
        database=DatabaseSettings(),
        wakeup_settings=_wakeup_settings,
        work=WorkSettings(),
        egress=EgressSettings(),
        vault=VaultSettings(),
        public_url=HttpSettings().url,
        wakeup_status=ctx["wakeup_status"],
        pipelines=PIPELINES,
    )
    ctx["runtime"] = runtime
    _raise_file_limit()
    EVENT_TYPES.declare(CATALOGUE.types)
    _cancel_on_signal(asyncio.current_task())
    garbage_collection.freeze_startup_objects()
    await runtime.start()


async def shutdown(ctx: dict[str, Any]) -> None:
    """Drain the pipelines and close everything."""
    runtime: Runtime | None = ctx.get("runtime")
    if runtime is not None:
        await runtime.stop()


def _cancel_on_signal(main: "asyncio.Task[Any] | None") -> None:
    """Cancel the main task at the first signal, which runs `shutdown`. A second signal ends the process at once."""
    loop = asyncio.get_running_loop()

    def stop(signum: signal.Signals) -> None:
        loop.remove_signal_handler(signum)
        if main is not None:
            main.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(signum, stop, signum)


def _raise_file_limit() -> None:
    """Raise the soft limit of open files, since each call is a socket. The usual 1,024 is for programs with select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, _OPEN_FILES) if hard != resource.RLIM_INFINITY else _OPEN_FILES
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _redis() -> RedisSettings:
    settings = redis_settings(_wakeup_settings.redis_url, retries=1)
    settings.conn_retries = 0  # `WakeupWorker` tries again, and is offline meanwhile
    return settings


class WorkerSettings:
    """The settings that arq reads. Jobs are wakeups and end at once; attempts and results are in Postgres."""

    functions: ClassVar = [relay, deliver, send, job]
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
    ctx: ClassVar[dict[str, Any]] = {"wakeup_status": WakeupStatus()}
