"""The garden: boards and rules speak of metrics that exist, find data in a real Prometheus, and alerts are tested."""

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
    without_stopgap,
)
from tests.prometheus import require_tools, scraping, still_empty

pytestmark = pytest.mark.timeout(400)  # the first to need Prometheus may have to fetch it

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def declared(*prefixes: str) -> dict[str, Metric]:
    """Every name that a query may use, and the metric it belongs to."""
    return {
        metric.name + suffix: metric
        for metric in REGISTRY.collect()
        if metric.name.startswith(prefixes)
        for suffix in _SUFFIXES[metric.type]
    }


@pytest.fixture(scope="module")
def busy_process() -> Iterator[str]:
    """The `host:port` of a process that uses every metric."""
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
def test_committed_boards_are_the_built_ones(board: object) -> None:
    """A board's JSON is what `python -m dashboards.build` writes."""
    [built] = [each for each in BOARDS if each is board]
    assert path(built).read_text() == text(built)


def test_boards_and_rules_name_only_metrics_that_exist() -> None:
    """Every metric in a panel or a rule is declared in spine.kernel.metrics, or recorded by a rule."""
    known = set(declared("spine_", "process_")) | {rule["record"] for rule in rules() if "record" in rule}
    used = set().union(*(metrics_in(expr) for expr in [*panel_queries().values(), *(rule["expr"] for rule in rules())]))
    assert used <= known


def test_every_metric_is_shown_somewhere() -> None:
    """No metric is declared that no panel and no rule reads."""
    used = set().union(*(metrics_in(expr) for expr in [*panel_queries().values(), *(rule["expr"] for rule in rules())]))
    shown = {metric.name for name, metric in declared("spine_").items() if name in used}
    assert {metric.name for metric in declared("spine_").values()} == shown


def test_figures_read_from_postgres_are_never_added_up() -> None:
    """What every worker reads alike is shown by its maximum; a sum would count it once per worker."""
    shared = [
        name for name in declared("spine_") if name.startswith(("spine_queue_", "spine_outbox_", "spine_endpoints_"))
    ]
    shared.append("spine_dead_letters")
    for expr in [*panel_queries().values(), *(rule["expr"] for rule in rules())]:
        for name in metrics_in(expr) & set(shared):
            before = expr.partition(name)[0]
            assert before.rstrip("(").rstrip().endswith(("max", ")")), expr
            assert "sum" not in before, expr


def test_every_panel_and_recording_rule_finds_data(busy_process: str, tmp_path: Path) -> None:
    """Each query gives at least one finite value in a Prometheus that scraped a process at work."""
    recorded = [rule["expr"] for rule in rules() if "record" in rule]
    queries = [without_stopgap(expr) for expr in [*panel_queries().values(), *recorded]]
    # The one process stands for both sorts; by two jobs each is scraped as it would be.
    with scraping({"spine-api": [busy_process], "spine-worker": [busy_process]}, tmp_path) as server:
        assert still_empty(server, queries, patience_s=40) == []


def test_prometheus_takes_the_rules_and_the_example() -> None:
    """promtool finds no fault with the rules, nor with the example configuration that loads them."""
    example = ROOT / "dashboards/prometheus/prometheus.yml"
    promtool = str(require_tools().promtool)
    for argv in (["rules", *map(str, RULES)], ["config", str(example)]):
        done = subprocess.run([promtool, "check", *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should(file: Path) -> None:
    """promtool runs the rules over made-up series: each alert fires where it should, and is silent where it should be."""
    argv = [str(require_tools().promtool), "test", "rules", file.name]
    done = subprocess.run(argv, cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(rule["alert"] for rule in rules() if "alert" in rule))
def test_every_alert_is_tested_both_ways_and_explained(alert: str) -> None:
    """Each alert has a case in which it fires, one in which it does not, and a chapter in docs/alerts.md."""
    expected = [bool(each.get("exp_alerts")) for each in rule_tests() if each["alertname"] == alert]
    assert set(expected) == {True, False}
    [rule] = [rule for rule in rules() if rule.get("alert") == alert]
    assert rule["annotations"]["runbook"] == f"docs/alerts.md#{alert.lower()}"
    assert f"\n## {alert}\n" in (ROOT / "docs/alerts.md").read_text()
