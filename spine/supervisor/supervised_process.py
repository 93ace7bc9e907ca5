"""Keeps one process running: starts it, starts it again whenever it ends, stops it when told."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from spine.supervisor.command import Command
from spine.supervisor.output import Output

# The promise is to be back within 20 s, so the longest wait leaves room for a slow start.
_RESTART_DELAYS_S = (0.2, 0.5, 1.0, 2.0, 4.0, 5.0)
_QUICK_S = 10.0


def restart_delay_s(quick_deaths: int) -> float:
    """Seconds to wait before the next start, after so many ends in a row that came soon after their start."""
    return _RESTART_DELAYS_S[min(quick_deaths, len(_RESTART_DELAYS_S) - 1)]


class SupervisedProcess:
    """One kept process. `remove_stale` runs before each start and may take its time: it has a thread of its own."""

    def __init__(self, command: Command, output: Output, remove_stale: Callable[[], None] | None = None) -> None:
        self.name = command.name
        self.quick_deaths = 0
        """Ends in a row that came within seconds of their start."""
        self._command = command
        self._output = output
        self._remove_stale = remove_stale
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[int] | None = None

    def start(self) -> None:
        """Start the process and keep it from now on."""
        self._task = asyncio.create_task(self._with_output(self._keep), name=f"keeper of {self.name}")

    async def run_once(self) -> int:
        """Run the process to its end and give its exit code, negative when a signal ended it."""
        self._task = asyncio.create_task(self._with_output(self._live), name=f"run of {self.name}")
        # A caller that gives up leaves the end of the process to `stop`.
        return await asyncio.shield(self._task)

    async def _with_output(self, run: Callable[[int], Awaitable[int]]) -> int:
        pipe = self._output.pipe(self.name)
        try:
            return await run(pipe)
        finally:
            os.close(pipe)

    async def _keep(self, pipe: int) -> int:
        loop = asyncio.get_running_loop()
        code = 0
        while not self._stopping.is_set():
            started = loop.time()
            try:
                code = await self._live(pipe)
                ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            except OSError as error:
                ended = f"could not be started: {error}"
            if self._stopping.is_set():
                break
            if loop.time() - started > _QUICK_S:
                self.quick_deaths = 0
            delay_s = restart_delay_s(self.quick_deaths)
            self.quick_deaths += 1
            self._output.say(f"{self.name} {ended}; starting it again in {delay_s:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
        return code

    async def _live(self, pipe: int) -> int:
        if self._remove_stale is not None:
            await asyncio.to_thread(self._remove_stale)
        if self._stopping.is_set():
            return 0
        process = await asyncio.create_subprocess_exec(
            *self._command.argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, **self._command.popen()
        )
        self._process = process
        if self._stopping.is_set():
            # Told to stop while it was being started: the signal had nobody to go to.
            self._signal(self._command.stops[0][0])
        code = await process.wait()
        # Children of a killed process would go on holding its port.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return code

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, hurry: asyncio.Event) -> None:
        """End the process by its own signals, each with its time; by force once `hurry` is set or they were in vain."""
        self._stopping.set()
        task = self._task
        if task is None:
            return
        for number, grace_s in self._command.stops:
            if task.done() or hurry.is_set():
                break
            self._signal(number)
            await _first_of(task, hurry, grace_s)
        for number in (self._command.hurry, signal.SIGKILL):
            if not task.done():
                self._signal(number)
                await asyncio.wait({task}, timeout=5)
        if not task.done():
            self._output.say(f"{self.name} could not be stopped")


async def _first_of(task: asyncio.Task[int], event: asyncio.Event, timeout_s: float) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
