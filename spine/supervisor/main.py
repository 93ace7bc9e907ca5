"""The front door: settings read, directory taken, house brought up, and down again on Ctrl-C."""

import asyncio
import contextlib
import os
import signal

from dotenv import load_dotenv
from pydantic import ValidationError

from spine.supervisor.command import StartError
from spine.supervisor.data_directory import hold, open_directory, remove_sockets
from spine.supervisor.installation import Installation
from spine.supervisor.output import Output
from spine.supervisor.plan import ROOT, Plan, Programs, UpSettings, make_plan


def up(programs: Programs | None = None) -> int:
    """Run Spine until SIGINT or SIGTERM; a second one hurries. Returns the exit code: 1 when it could not start."""
    load_dotenv(ROOT / ".env", override=False)
    output = Output()
    try:
        return _up(programs, output)
    finally:
        output.finish(timeout_s=1)


def _up(programs: Programs | None, output: Output) -> int:
    try:
        settings = UpSettings()
        directory = open_directory(settings.data_dir)
        with hold(directory):
            try:
                asyncio.run(_run(make_plan(settings, directory, programs), output))
            finally:
                remove_sockets(directory)
    except StartError as error:
        output.say(f"cannot start: {error}")
        return 1
    except ValidationError as error:
        output.say("cannot start: a setting is not as it must be")
        for fault in error.errors(include_input=False, include_url=False):
            output.say(f"  {error.title} {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}")
        return 1
    return 0


async def _run(plan: Plan, output: Output) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            output.say("hurrying")
            hurry.set()
        else:
            output.say("stopping; once more to hurry")
            stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's wish is kept
        loop.add_signal_handler(signal.SIGHUP, on_signal)
    installation = Installation(plan, output)
    coming_up = asyncio.create_task(installation.start())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({coming_up, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if coming_up.done():
            coming_up.result()
            await stopped
    finally:
        coming_up.cancel()
        with contextlib.suppress(asyncio.CancelledError, StartError):
            await coming_up
        stopped.cancel()
        await installation.stop(hurry)
    output.say("stopped")


def main() -> None:
    """`python -m spine.supervisor`."""
    code = up()
    # Threads that still read from an orphan of a killed process must not hold this one back.
    os._exit(code)
