"""Garbage collection in processes that must not stop."""

import gc


def freeze_startup_objects() -> None:
    """Leave all that is loaded by now out of every later collection. Once, at a front door, when everything is loaded.

    Modules, classes and validators are some hundred thousand objects that never go. Looking through them again and again
    stopped the process for 100 ms each time.
    """
    gc.collect()
    gc.freeze()
