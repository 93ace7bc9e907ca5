"""Metrics of several processes, and over HTTP."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from spine.kernel.metrics import serve
from tests.dashboard_queries import ROOT

_COUNT = """
import sys
from spine.kernel import metrics
metrics.events_accepted("order.paid").inc(int(sys.argv[1]))
metrics.observe_pool("database", metrics.PoolStats(size=int(sys.argv[1]), in_use=0, limit=0))
"""
_SHOW = _COUNT + "sys.stdout.buffer.write(metrics.exposition()[0])"


def test_a_process_exports_the_metrics_of_all(tmp_path: Path) -> None:
    """Counters of ended processes stay, their gauges are removed, and a live process exports all of them."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", _COUNT, "3"], env=environment, check=True)
    shown = subprocess.run([sys.executable, "-c", _SHOW, "4"], env=environment, check=True, capture_output=True).stdout
    lines = shown.decode().splitlines()
    assert 'spine_events_accepted_total{event_type="order.paid",product="custom"} 7.0' in lines
    assert 'spine_pool_connections{pool="database"} 4.0' in lines


def test_scrapes_are_answered_until_close() -> None:
    """`serve` answers GET /metrics on its port, raises for a port in use, and stops on close."""
    port, close = serve(0, "127.0.0.1")
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"spine_outbox_rows" in answer.read()
        with pytest.raises(OSError, match="in use"):
            serve(port, "127.0.0.1")
    finally:
        close()
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
