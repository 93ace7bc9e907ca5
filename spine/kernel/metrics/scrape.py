"""What a Prometheus server reads: one process's figures, or those of all processes behind one port."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# The text format would carry a creation time beside every counter, half as much again to scrape.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves some of its own untyped

REGISTRY: Final = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)


def exposition() -> tuple[bytes, str]:
    """The figures in Prometheus's text format, and its content type."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    _bury(Path(directory))
    together = CollectorRegistry()
    MultiProcessCollector(together, directory)  # type: ignore[no-untyped-call]
    return generate_latest(together), CONTENT_TYPE_LATEST


def serve(port: int, host: str) -> tuple[int, Callable[[], None]]:
    """Answer scrapes from a thread of this process; gives the port (a free one for 0) and what closes it.

    Raises OSError when the port is taken.
    """
    server, thread = start_http_server(port, host, REGISTRY)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, close


def _bury(directory: Path) -> None:
    """Take out the gauges of processes that are gone; what they counted stays counted."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_live*_*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        except PermissionError:
            continue
