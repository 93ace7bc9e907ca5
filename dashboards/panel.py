"""Boards as data, and their conversion to the JSON that Grafana imports: 24 columns, filled row by row."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "heatmap"]

_COLUMNS: Final = 24
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and the name of its series. Grafana replaces `{{label}}` in a legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is Grafana's name of the unit; values from `red` upwards are bad; `width` is in columns."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    red: float | None = None
    width: int = 8
    text: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A selection at the top of a board: the values of a label."""

    name: str
    metric: str


@dataclass(frozen=True, slots=True)
class Board:
    """One board. Its `uid` is part of its URL and must not change."""

    uid: str
    title: str
    text: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    def panels(self) -> Iterator[Panel]:
        """Yield every panel, row by row."""
        for row in self.rows:
            yield from row.panels


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return the rate of a counter, summed over all processes."""
    return f"sum{_by(by)}(rate({metric}{where}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """Return a quantile of a histogram, over all processes."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', labels, where)})"


def shared(metric: str, by: str = "", where: str = "") -> str:
    """Return a value that every worker reads from Postgres. It is the same in each, so it is never summed."""
    return f"max{_by(by)}({metric}{where})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


def render(board: Board) -> Json:
    """Return the JSON that Grafana imports."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.text,
        "tags": ["spine"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_data_source(), *(_variable(variable) for variable in board.variables)]},
        "panels": list(_layout(board)),
    }


def _layout(board: Board) -> Iterator[Json]:
    number, y = 0, 0
    for row in board.rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": _grid_position(0, y, 24, 1),
        }
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            height = 4 if panel.kind == "stat" else 8
            number += 1
            yield {"id": number, "gridPos": _grid_position(x, y, panel.width, height), **_panel(panel)}
            x += panel.width
        y += height


def _grid_position(x: int, y: int, w: int, h: int) -> Json:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.red is not None:
        steps.append({"color": "red", "value": panel.red})
    defaults: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        shown = "off" if panel.red is None else "dashed"
        defaults["custom"] = {"fillOpacity": 8, "showPoints": "never", "thresholdsStyle": {"mode": shown}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind, panel.unit),
        "targets": [_target(panel.kind, index, query) for index, query in enumerate(panel.queries)],
    }


def _options(kind: Kind, unit: str) -> Json:
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    if kind == "heatmap":
        return {"calculate": False, "yAxis": {"unit": unit}, "cellGap": 1, "legend": {"show": False}}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _target(kind: Kind, index: int, query: Query) -> Json:
    return {
        "refId": chr(ord("A") + index),
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": "heatmap" if kind == "heatmap" else "time_series",
        "range": True,
    }


def _data_source() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> Json:
    values = f"label_values({variable.metric}, {variable.name})"
    return {
        "name": variable.name,
        "label": variable.name.replace("_", " "),
        "type": "query",
        "datasource": _SOURCE,
        "definition": values,
        "query": {"query": values, "refId": "values"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
