"""Supervises one process: starts it, restarts it with backoff whenever it exits, and stops it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from spine.supervisor.command import Command
from spine.supervisor.output import Output

# Promised: a killed process is back within 20 s. So the longest delay leaves time for a slow start.
_RESTART_DELAYS_S = (0.2, 0.5, 1.0, 2.0, 4.0, 5.0)
_QUICK_EXIT_S = 10.0


def restart_delay_s(quick_exits: int) -> float:
    """The delay before the next start in seconds, after this many quick exits in a row."""
    return _RESTART_DELAYS_S[min(quick_exits, len(_RESTART_DELAYS_S) - 1)]


class SupervisedProcess:
    """One supervised process. `remove_stale` runs before each start, in a thread, so it may block."""

    def __init__(self, command: Command, output: Output, remove_stale: Callable[[], None] | None = None) -> None:
        self.name = command.name
        self.quick_exits = 0
        """Exits in a row that came within 10 s of their start."""
        self._command = command
        self._output = output
        self._remove_stale = remove_stale
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[int] | None = None

    def start(self) -> None:
        """Start the process and supervise it."""
        self._task = asyncio.create_task(self._with_output(self._supervise), name=f"supervise {self.name}")

    async def run_once(self) -> int:
        """Run the process once. Returns its exit code, negative if a signal ended it."""
        self._task = asyncio.create_task(self._with_output(self._run), name=f"run of {self.name}")
        # If the caller is cancelled, `stop` still ends the process.
        return await asyncio.shield(self._task)

    async def _with_output(self, run: Callable[[int], Awaitable[int]]) -> int:
        pipe = self._output.pipe(self.name)
        try:
            return await run(pipe)
        finally:
            os.close(pipe)

    async def _supervise(self, pipe: int) -> int:
        loop = asyncio.get_running_loop()
        code = 0
        while not self._stopping.is_set():
            start_s = loop.time()
            try:
                code = await self._run(pipe)
                ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            except OSError as error:
                ended = f"could not be started: {error}"
            if self._stopping.is_set():
                break
            if loop.time() - start_s > _QUICK_EXIT_S:
                self.quick_exits = 0
            delay_s = restart_delay_s(self.quick_exits)
            self.quick_exits += 1
            self._output.log(f"{self.name} {ended}; starting it again in {delay_s:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
        return code

    async def _run(self, pipe: int) -> int:
        if self._remove_stale is not None:
            await asyncio.to_thread(self._remove_stale)
        if self._stopping.is_set():
            return 0
        process = await asyncio.create_subprocess_exec(
            *self._command.argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, **self._command.popen()
        )
        self._process = process
        if self._stopping.is_set():
            # `stop` was called during the start and had no process to signal.
            self._signal(self._command.stop_signals[0][0])
        code = await process.wait()
        # Children of a killed process would keep its port.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return code

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, force: asyncio.Event) -> None:
        """Send the stop signals, each with its grace period; then, or once `force` is set, end the process by force."""
        self._stopping.set()
        task = self._task
        if task is None:
            return
        for number, grace_s in self._command.stop_signals:
            if task.done() or force.is_set():
                break
            self._signal(number)
            await _wait_for_either(task, force, grace_s)
        for number in (self._command.force_signal, signal.SIGKILL):
            if not task.done():
                self._signal(number)
                await asyncio.wait({task}, timeout=5)
        if not task.done():
            self._output.log(f"{self.name} could not be stopped")


async def _wait_for_either(task: asyncio.Task[int], event: asyncio.Event, timeout_s: float) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
