"""Runs a Python process with a clock that is SHIFTED_CLOCK_S seconds ahead. Its directory goes into PYTHONPATH."""

import os
import time

import time_machine

_clock = time_machine.travel(time.time(), tick=True).start()
_clock.move_to(time_machine.escape_hatch.time.time() + float(os.environ["SHIFTED_CLOCK_S"]))
time.time()  # the clock ticks from its first reading on
