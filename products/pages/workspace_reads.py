"""Reads of a page: in its workspace, and with room left for the workspace's own reads."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from fastapi import Request

from spine.kernel.authentication import internal_caller
from spine.kernel.events import SYSTEM
from spine.kernel.keys import Env
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

T = TypeVar("T")


class InWorkspace(Protocol):
    """What says in which workspace it is: a page, a link, what a slug leads to."""

    @property
    def workspace_id(self) -> str: ...
    @property
    def organisation_id(self) -> str: ...
    @property
    def env(self) -> Env: ...


async def read_in(request: Request, of: InWorkspace, work: Callable[[UnitOfWork], Awaitable[T]]) -> T:
    """Run a read in the workspace of a page or a link. Raises TooManyRequests `too_many_reads`."""
    platform: Platform = request.app.state.platform
    caller = internal_caller(of.workspace_id, of.organisation_id, of.env, SYSTEM)
    unit = UnitOfWork(platform, caller, request.scope["spine.request_id"], request.url.path, None)
    async with platform.page_reads.hold(of.workspace_id):
        found: T = await unit.read(lambda: work(unit))
        return found
