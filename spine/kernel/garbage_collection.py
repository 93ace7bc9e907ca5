"""Garbage collection for long-running processes."""

import gc


def freeze_startup_objects() -> None:
    """Exclude all objects that exist now from later collections. Call once in an entry point, after all imports.

    Modules, classes and validators are some hundred thousand objects that are never freed. Scanning them again and again
    stopped the process for 100 ms each time.
    """
    gc.collect()
    gc.freeze()
