"""Boards and rules use existing metrics and find data in a real Prometheus, and alerts are tested."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from dashboards.build import BOARDS, path, text
from spine.kernel.metrics.registry import REGISTRY
from tests.dashboard_queries import (
    ROOT,
    RULE_TESTS,
    RULES,
    metrics_in,
    panel_queries,
    rule_tests,
    rules,
    without_default,
)
from tests.prometheus import require_tools, scraping, wait_for_data

pytestmark = pytest.mark.timeout(400)  # the first test may have to download Prometheus

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def declared(*prefixes: str) -> dict[str, Metric]:
    """Return every name that a query may use, and its metric."""
    return {
        metric.name + suffix: metric
        for metric in REGISTRY.collect()
        if metric.name.startswith(prefixes)
        for suffix in _SUFFIXES[metric.type]
    }


def expressions() -> list[str]:
    """Return the expressions of all panels and rules."""
    return [*panel_queries().values(), *(rule["expr"] for rule in rules())]


def used_metrics() -> set[str]:
    """Return the metrics that panels and rules use."""
    return set().union(*(metrics_in(expr) for expr in expressions()))


@pytest.fixture(scope="module")
def busy_process() -> Iterator[str]:
    """Start a process that uses every metric. Yields its `host:port`."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).parent.parent / "fakes/every_metric.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_committed_boards_are_current(board: object) -> None:
    """A board's JSON is what `python -m dashboards.build` writes."""
    [built] = [each for each in BOARDS if each is board]
    assert path(built).read_text() == text(built)


def test_boards_and_rules_use_existing_metrics() -> None:
    """Every metric in a panel or a rule is declared in spine.kernel.metrics, or recorded by a rule."""
    known = set(declared("spine_", "process_")) | {rule["record"] for rule in rules() if "record" in rule}
    assert used_metrics() <= known


def test_every_metric_is_used() -> None:
    """Every declared metric is used by a panel or a rule."""
    used = used_metrics()
    shown = {metric.name for name, metric in declared("spine_").items() if name in used}
    assert {metric.name for metric in declared("spine_").values()} == shown


def test_shared_values_are_never_summed() -> None:
    """A value that every worker reads from Postgres is shown as its maximum. A sum would count it once per worker."""
    shared = [
        name for name in declared("spine_") if name.startswith(("spine_queue_", "spine_outbox_", "spine_endpoints_"))
    ]
    shared += ["spine_dead_letters", "spine_default_partition_rows"]
    for expr in expressions():
        for name in metrics_in(expr) & set(shared):
            before = expr.partition(name)[0]
            assert before.rstrip("(").rstrip().endswith(("max", ")")), expr
            assert "sum" not in before, expr


def test_every_panel_and_recording_rule_has_data(busy_process: str, tmp_path: Path) -> None:
    """Each query returns at least one finite value from a Prometheus that scraped a busy process."""
    recorded = [rule["expr"] for rule in rules() if "record" in rule]
    queries = [without_default(expr) for expr in [*panel_queries().values(), *recorded]]
    # One process serves as API and worker, so it is scraped under both job names.
    with scraping({"spine-api": [busy_process], "spine-worker": [busy_process]}, tmp_path) as server:
        assert wait_for_data(server, queries, within_s=40) == []


def test_promtool_accepts_rules_and_example() -> None:
    """promtool accepts the rules and the example configuration that loads them."""
    example = ROOT / "dashboards/prometheus/prometheus.yml"
    promtool = str(require_tools().promtool)
    for argv in (["rules", *map(str, RULES)], ["config", str(example)]):
        done = subprocess.run([promtool, "check", *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alert_rules(file: Path) -> None:
    """promtool runs the rules with test series: each alert fires exactly where it is expected."""
    argv = [str(require_tools().promtool), "test", "rules", file.name]
    done = subprocess.run(argv, cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(rule["alert"] for rule in rules() if "alert" in rule))
def test_every_alert_has_tests_and_a_runbook(alert: str) -> None:
    """Each alert has a test in which it fires, one in which it does not, and a section in docs/alerts.md."""
    expected = [bool(each.get("exp_alerts")) for each in rule_tests() if each["alertname"] == alert]
    assert set(expected) == {True, False}
    [rule] = [rule for rule in rules() if rule.get("alert") == alert]
    assert rule["annotations"]["runbook"] == f"docs/alerts.md#{alert.lower()}"
    assert f"\n## {alert}\n" in (ROOT / "docs/alerts.md").read_text()
