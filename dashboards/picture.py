"""Draw a board from a Prometheus server: `python -m dashboards.picture overview http://127.0.0.1:9090 board.png`.

It reads the JSON that Grafana imports and asks the server the panels' own queries, for documents and for reviews of a
board where no Grafana runs.
"""

import argparse
import json
import math
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt  # the backend is chosen before the first picture
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from dashboards.build import DIRECTORY

Json = dict[str, Any]
Series = tuple[str, list[float], list[float]]
"""Its name, times in minutes before now, values."""

_STEP_S: Final = 5
_RATE_INTERVAL: Final = "30s"
_BACKGROUND, _PANEL, _TEXT, _GRID = "#111217", "#181b1f", "#ccccdc", "#2c3235"
_COLOURS: Final = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9", "#5794f2", "#ffb357")
_ROW_INCHES: Final = 0.38
_COLUMN_INCHES: Final = 0.62


def _series(http: httpx.Client, panel: Json, minutes: float) -> list[Series]:
    end_s = time.time()
    found: list[Series] = []
    for target in panel["targets"]:
        expr = target["expr"].replace("$__rate_interval", _RATE_INTERVAL)
        expr = re.sub(r"\$(product|event_type)", ".*", expr)
        values: dict[str, str | float] = {"query": expr, "start": end_s - minutes * 60, "end": end_s, "step": _STEP_S}
        answer = http.get("/api/v1/query_range", params=values).raise_for_status().json()
        for one in answer["data"]["result"]:
            points = [((float(at) - end_s) / 60, float(value)) for at, value in one["values"]]
            points = [(at, value) for at, value in points if math.isfinite(value)]
            found.append((_legend(target["legendFormat"], one["metric"]), *_columns(points)))
    return found


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [at for at, _ in points], [value for _, value in points]


def _legend(pattern: str, labels: dict[str, str]) -> str:
    if pattern == "__auto":
        return ", ".join(labels.values())
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern)


def _formatted(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    suffix = {"ops": "/s", "reqps": "/s"}.get(unit, "")
    return f"{value:,.3g}{suffix}" if value < 1000 else f"{value:,.0f}{suffix}"


def _draw_series(axes: Axes, series: list[Series], unit: str, minutes: float) -> None:
    for n, (name, times, values) in enumerate(series):
        colour = _COLOURS[n % len(_COLOURS)]
        axes.plot(times, values, color=colour, linewidth=1.1, label=name)
        axes.fill_between(times, values, color=colour, alpha=0.08)
    highest = max((value for _, _, values in series for value in values), default=0)
    axes.set_ylim(0, highest * 1.35 or 1)  # room for the legend
    axes.set_xlim(-minutes, 0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _formatted(value, unit)))
    axes.grid(color=_GRID, linewidth=0.6)
    if any(name for name, _, _ in series):
        axes.legend(fontsize=6, frameon=False, labelcolor=_TEXT, loc="upper left", ncols=2)


def _draw_stat(axes: Axes, series: list[Series], panel: Json) -> None:
    value = series[0][2][-1] if series and series[0][2] else math.nan
    defaults = panel["fieldConfig"]["defaults"]
    bad = any(step["value"] is not None and value >= step["value"] for step in defaults["thresholds"]["steps"])
    text = "no data" if math.isnan(value) else _formatted(value, defaults["unit"])
    axes.text(0.5, 0.45, text, color=_COLOURS[4] if bad else _COLOURS[0], fontsize=17, ha="center", va="center",
              transform=axes.transAxes)  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_heatmap(axes: Axes, series: list[Series]) -> None:
    buckets = sorted(((float(name), times, values) for name, times, values in series), key=lambda bucket: bucket[0])
    width = min((len(values) for _, _, values in buckets), default=0)
    rows = [values[-width:] for _, _, values in buckets]
    counts = [rows[0], *([max(0.0, a - b) for a, b in zip(row, below, strict=True)] for below, row in pairwise(rows))]
    axes.imshow(counts, aspect="auto", origin="lower", cmap="viridis", interpolation="nearest")
    axes.set_yticks(range(len(buckets)), [_formatted(le, "s") if math.isfinite(le) else "+Inf" for le, _, _ in buckets])
    axes.set_xticks([])


def draw(board: Json, http: httpx.Client, path: Path, minutes: float) -> None:
    """Draw every panel of the board at its place, over the last `minutes`. Raises httpx.HTTPError."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = plt.figure(figsize=(24 * _COLUMN_INCHES, height * _ROW_INCHES + 0.5), facecolor=_BACKGROUND)
    figure.text(0.012, 1 - 0.3 / figure.get_figheight(), board["title"], color="white", fontsize=13, va="center")
    for panel in board["panels"]:
        at = panel["gridPos"]
        top = 1 - 0.5 / figure.get_figheight()
        left, upper = at["x"] / 24, top - at["y"] / height * top
        if panel["type"] == "row":
            figure.text(left + 0.012, upper - 0.5 / height, panel["title"], color=_TEXT, fontsize=10, va="center")
            continue
        box = (
            left + 0.036,
            upper - (at["h"] - 0.9) / height * top,
            at["w"] / 24 - 0.045,
            (at["h"] - 2.1) / height * top,
        )
        axes = figure.add_axes(box, facecolor=_PANEL)
        axes.set_title(panel["title"], color=_TEXT, fontsize=8, loc="left")
        axes.tick_params(colors=_TEXT, labelsize=6, length=0)
        for spine in axes.spines.values():
            spine.set_color(_GRID)
        series = _series(http, panel, minutes)
        if panel["type"] == "stat":
            _draw_stat(axes, series, panel)
        elif panel["type"] == "heatmap":
            _draw_heatmap(axes, series)
        else:
            _draw_series(axes, series, panel["fieldConfig"]["defaults"]["unit"], minutes)
    figure.savefig(path, dpi=90, facecolor=_BACKGROUND)
    plt.close(figure)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description="Draw a board from a Prometheus server.")
    parser.add_argument("board", help="the name of a file in dashboards/boards, without .json")
    parser.add_argument("prometheus", help="the server's address")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--minutes", type=float, default=5, help="how far back to look")
    given = parser.parse_args()
    board = json.loads((DIRECTORY / f"{given.board}.json").read_text())
    with httpx.Client(base_url=given.prometheus, trust_env=False, timeout=10) as http:
        draw(board, http, given.picture, given.minutes)


if __name__ == "__main__":
    main()
