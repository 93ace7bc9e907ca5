"""The queries of the committed boards and rules, prepared for a test Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # no stubs are installed

ROOT: Final = Path(__file__).parent.parent
BOARDS: Final = sorted((ROOT / "dashboards/boards").glob("*.json"))
RULES: Final = sorted((ROOT / "dashboards/prometheus/rules").glob("*.yml"))
RULE_TESTS: Final = sorted((ROOT / "dashboards/prometheus/tests").glob("*.yml"))

_METRIC: Final = re.compile(r"\b(?:spine|process)_[a-z_]+\b")
_RECORDED: Final = re.compile(r"\bspine:[a-z0-9_:]+")
_IN_QUOTES: Final = re.compile(r'"[^"]*"')


def panel_queries(window: str = "30s") -> dict[str, str]:
    """Return every panel's queries by `board / panel / letter`, with Grafana's variables replaced."""
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
    """Yield every rule of every file."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def rule_tests() -> Iterator[dict[str, Any]]:
    """Yield every expected alert of the rules' tests."""
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            yield from test.get("alert_rule_test", ())


def metrics_in(expr: str) -> set[str]:
    """Return the names of metrics in an expression, including recorded ones."""
    bare = _IN_QUOTES.sub('""', expr)
    return set(_METRIC.findall(bare)) | set(_RECORDED.findall(bare))


def without_default(expr: str) -> str:
    """Return the expression without its default of zero, so that it returns nothing if there is no data."""
    return expr.replace(" or vector(0)", "")
