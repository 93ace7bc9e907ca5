"""Draw the results: distributions of latency, rates over time, CPU by part."""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt  # the backend must be chosen before pyplot is imported

from bench.results import PROMISES, Results


def _save(path: Path, title: str) -> None:
    plt.title(title)
    plt.grid(alpha=0.3)
    plt.savefig(path, dpi=110, bbox_inches="tight")
    plt.close()


def _distribution(path: Path, title: str, curves: dict[str, list[float]]) -> None:
    plt.figure(figsize=(8, 4.5))
    for name, values in curves.items():
        ordered = sorted(values)
        # The share above a value, on a logarithmic scale, shows the tail.
        share = [1 - n / len(ordered) for n in range(len(ordered))]
        plt.step(ordered, share, where="post", label=f"{name} ({len(ordered):,})")
    plt.yscale("log")
    plt.xlabel("milliseconds")
    plt.ylabel("share that takes longer")
    plt.legend()
    _save(path, title)


def _over_time(path: Path, title: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    plt.figure(figsize=(8, 4.5))
    for name, points in curves.items():
        plt.plot([at for at, _ in points], [value for _, value in points], label=name)
    plt.xlabel("seconds")
    plt.ylim(bottom=0)
    plt.legend()
    _save(path, title)


def _parts(path: Path, title: str, parts: dict[str, float]) -> None:
    """Draw a bar for each part, the longest at the top."""
    ordered = sorted(parts.items(), key=lambda part: part[1])
    plt.figure(figsize=(8, 0.28 * len(ordered) + 1.2))
    plt.barh([name for name, _ in ordered], [value for _, value in ordered])
    plt.xlabel("microseconds of CPU per delivery")
    _save(path, title)


def _promised(path: Path, results: Results) -> None:
    """Draw each promised figure divided by its bound, with the spread of its rounds."""
    names = [name for name in results.promised if PROMISES[name].bound]
    plt.figure(figsize=(8, 4.5))
    for n, name in enumerate(names):
        spread, promise = results.promised[name], PROMISES[name]
        middle = spread.median / promise.bound
        bars = [[middle - spread.low / promise.bound], [spread.high / promise.bound - middle]]
        colour = "tab:green" if promise.holds(spread.median) else "tab:red"
        plt.errorbar([middle], [n], xerr=bars, fmt="o", color=colour, capsize=4)
    plt.axvline(1.0, color="grey", linestyle="--")
    plt.yticks(range(len(names)), [f"{name} ({PROMISES[name].shown})" for name in names])
    plt.xlabel("measured / promised")
    _save(path, "promised figures")


def draw(results: Results, directory: Path) -> None:
    """Write all charts to the directory."""
    directory.mkdir(exist_ok=True)
    if results.promised:
        _promised(directory / "promised.png", results)
    for name, times in results.latencies_ms.items():
        _distribution(directory / f"latency-{name.replace(' ', '-')}.png", name, times)
    for name, parts in results.cpu_us.items():
        _parts(directory / f"cpu-{name}.png", name, parts)
    for name, points in results.over_time.items():
        _over_time(directory / f"{name.replace(' ', '-')}.png", name, points)
