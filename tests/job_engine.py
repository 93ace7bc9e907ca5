"""Jobs of products under test: the API in a thread, and the jobs in the test's loop."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from products.catalogue import JOBS
from spine.kernel.jobs import JobHandler
from spine.kernel.platform import Platform
from spine.kernel.settings import DatabaseSettings, HttpSettings, MailSettings, WakeupSettings
from tests.api import Api
from tests.message_engine import PIPELINES, sending
from workers.job_platform import open_job_platform
from workers.jobs import JobRunner
from workers.pipeline import PipelineFactory, WorkerContext
from workers.runtime import Runtime


def _open_platform(api: Api, context: WorkerContext) -> AbstractAsyncContextManager[Platform]:
    return open_job_platform(
        context,
        DatabaseSettings(DATABASE_URL=api.database_url),
        WakeupSettings(REDIS_URL=api.redis_url),
        HttpSettings(),
        MailSettings(mail_url=None, mail_from=None),
    )


def job_pipeline(api: Api, handlers: Mapping[str, JobHandler] = JOBS) -> PipelineFactory:
    """Return the pipeline that runs the jobs of the API's database."""
    return partial(JobRunner, handlers=handlers, open_platform=partial(_open_platform, api))


class _Idle(JobRunner):
    """Jobs that run only when the test says so."""

    created: "asyncio.Future[JobRunner]"

    async def run(self) -> None:
        """Hand this runner to the test, and wait until cancelled."""
        self.created.set_result(self)
        async with self._resources:
            await asyncio.Event().wait()


@asynccontextmanager
async def job_runner(api: Api, handlers: Mapping[str, JobHandler] = JOBS) -> AsyncIterator[JobRunner]:
    """A runner of jobs. The test calls `run_due`."""
    created: asyncio.Future[JobRunner] = asyncio.get_running_loop().create_future()

    def pipeline(context: WorkerContext) -> JobRunner:
        runner = _Idle(context, handlers, partial(_open_platform, api))
        runner.created = created
        return runner

    async with sending(api, (pipeline,)):
        yield await asyncio.wait_for(created, 20)


@asynccontextmanager
async def working(api: Api) -> AsyncIterator[Runtime]:
    """Run the messages and the jobs of products in this loop. They are woken every 30 ms."""
    async with sending(api, (*PIPELINES, job_pipeline(api))) as runtime:
        yield runtime
