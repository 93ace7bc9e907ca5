"""The scrape endpoint for Prometheus: metrics of one process, or of all processes behind one port."""

import os
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from spine.kernel.metrics.registry import REGISTRY


def exposition() -> tuple[bytes, str]:
    """Return the metrics in the Prometheus text format, and its content type."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    _remove_dead_processes(Path(directory))
    merged = CollectorRegistry()
    MultiProcessCollector(merged, directory)  # type: ignore[no-untyped-call]
    return generate_latest(merged), CONTENT_TYPE_LATEST


def serve(port: int, host: str) -> tuple[int, Callable[[], None]]:
    """Start a thread that answers scrapes. Returns the port (a free one for port 0) and a function that stops it.

    Raises OSError if the port is in use.
    """
    server, thread = start_http_server(port, host, REGISTRY)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, close


def _remove_dead_processes(directory: Path) -> None:
    """Remove the gauges of dead processes. Their counters stay."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_live*_*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        except PermissionError:
            continue
