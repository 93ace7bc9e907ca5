"""The entry point of `make up`: reads settings, locks the data directory, and starts and stops the installation."""

import asyncio
import contextlib
import os
import signal

from dotenv import load_dotenv
from pydantic import ValidationError

from spine.supervisor.command import StartError
from spine.supervisor.data_directory import lock_directory, open_directory, remove_sockets
from spine.supervisor.installation import Installation
from spine.supervisor.output import Output
from spine.supervisor.plan import ROOT, Plan, Programs, UpSettings, make_plan


def up(programs: Programs | None = None) -> int:
    """Run Spine until SIGINT or SIGTERM; a second one stops by force. Returns the exit code: 1 if it could not start."""
    load_dotenv(ROOT / ".env", override=False)
    output = Output()
    try:
        return _up(programs, output)
    finally:
        output.join(timeout_s=1)


def _up(programs: Programs | None, output: Output) -> int:
    try:
        settings = UpSettings()
        directory = open_directory(settings.data_dir)
        with lock_directory(directory):
            try:
                asyncio.run(_run(make_plan(settings, directory, programs), output))
            finally:
                remove_sockets(directory)
    except StartError as error:
        output.log(f"cannot start: {error}")
        return 1
    except ValidationError as error:
        output.log("cannot start: a setting is not as it must be")
        for fault in error.errors(include_input=False, include_url=False):
            output.log(f"  {error.title} {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}")
        return 1
    return 0


async def _run(plan: Plan, output: Output) -> None:
    stop, force = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            output.log("hurrying")
            force.set()
        else:
            output.log("stopping; once more to hurry")
            stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        loop.add_signal_handler(signal.SIGHUP, on_signal)
    installation = Installation(plan, output)
    starting = asyncio.create_task(installation.start())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopped
    finally:
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, StartError):
            await starting
        stopped.cancel()
        await installation.stop(force)
    output.log("stopped")


def main() -> None:
    """`python -m spine.supervisor`."""
    code = up()
    # Threads that still read from an orphan of a killed process must not delay the exit.
    os._exit(code)
