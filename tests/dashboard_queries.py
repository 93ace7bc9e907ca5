"""What the committed boards and rules ask of Prometheus, as tests put it to one."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # its stubs are not worth a dependency

ROOT: Final = Path(__file__).parent.parent
BOARDS: Final = sorted((ROOT / "dashboards/boards").glob("*.json"))
RULES: Final = sorted((ROOT / "dashboards/prometheus/rules").glob("*.yml"))
RULE_TESTS: Final = sorted((ROOT / "dashboards/prometheus/tests").glob("*.yml"))

_METRIC: Final = re.compile(r"\b(?:spine|process)_[a-z_]+\b")
_RECORDED: Final = re.compile(r"\bspine:[a-z0-9_:]+")
_IN_QUOTES: Final = re.compile(r'"[^"]*"')


def panel_queries(window: str = "30s") -> dict[str, str]:
    """Every panel's queries by `board / panel / letter`, with Grafana's variables filled in as it would."""
    return {
        f"{board['title']} / {panel['title']} / {target['refId']}": target["expr"]
        .replace("$__rate_interval", window)
        .replace("$product", ".*")
        .replace("$event_type", ".*")
        for board in (json.loads(path.read_text()) for path in BOARDS)
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def rule_tests() -> Iterator[dict[str, Any]]:
    """Every expectation about an alert in the rules' tests."""
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            yield from test.get("alert_rule_test", ())


def metrics_in(expr: str) -> set[str]:
    """The names of metrics in an expression, recorded ones included."""
    bare = _IN_QUOTES.sub('""', expr)
    return set(_METRIC.findall(bare)) | set(_RECORDED.findall(bare))


def without_stopgap(expr: str) -> str:
    """The expression without the zero that stands in for no data, so that a query finds data or does not."""
    return expr.replace(" or vector(0)", "")
