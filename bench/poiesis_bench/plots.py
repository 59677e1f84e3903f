"""Draw SVG plots of the results in a folder. A plot whose result is missing is left out.

.venv/bin/python -m poiesis_bench.plots build/bench
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

Chart = Any  # pygal has no types

STYLE = Style(
    background="white",
    plot_background="white",
    font_family="sans-serif",
    title_font_size=18,
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=13,
    colors=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999", "#000000"),
)
_OPTIONS: Mapping[str, Any] = {
    "style": STYLE,
    "js": (),  # a page of the documentation loads nothing from elsewhere
    "width": 900,
    "height": 480,
    "show_legend": True,
    "legend_at_bottom": True,
    "legend_at_bottom_columns": 2,
    "truncate_legend": -1,
    "dots_size": 3,
}
_READS = (
    "get FULL",
    "list MINIMAL 256",
    "list BASIC 256",
    "list BASIC 256, common tag",
    "list BASIC 256, name_prefix without a match",
    "list MINIMAL 256, a page in the middle",
)


def draw(folder: Path) -> list[Path]:
    """Draw what the results in `folder` allow, next to them. Return the files."""
    made = []
    for name, (result, plot) in _PLOTS.items():
        source = folder / f"{result}.json"
        if source.exists():
            path = folder / f"{name}.svg"
            plot(json.loads(source.read_text(encoding="utf-8"))["data"]).render_to_file(str(path))
            made.append(path)
    return made


def latency(data: Sequence[Mapping[str, Any]]) -> Chart:
    """Return the distribution of the times from the request to the end, of tasks and of plain Jobs."""
    chart = pygal.Box(title="From the request to the end", y_title="seconds", **_OPTIONS)
    for shape in data:
        for name, kind in (("task", "tasks"), ("Job", "jobs")):
            chart.add(f"{shape['shape']}: {name}", [one["complete"] for one in shape[kind]])
    return chart


def requests(data: Mapping[str, Any]) -> Chart:
    """Return the best, median and 95th percentile of each get and list."""
    reads = data["reads"]
    chart = pygal.HorizontalBar(title="Gets and lists", x_title="milliseconds", **{**_OPTIONS, "height": 700})
    chart.x_labels = [one["name"] for one in reads]
    for name, key in (("best", "best_ms"), ("median", "median_ms"), ("95th percentile", "p95_ms")):
        chart.add(name, [one[key] for one in reads])
    return chart


def rows(data: Sequence[Mapping[str, Any]]) -> Chart:
    """Return the times of gets and lists as the number of tasks grows."""
    lines = {
        name: [read["best_ms"] for at in data for read in at["reads"] if read["name"] == name]
        for name in _READS
    }
    return _lines("Gets and lists: best of each", "tasks that have ended", [at["rows"] for at in data], lines)


def queue(data: Sequence[Mapping[str, Any]]) -> Chart:
    """Return the time of a lease as the queue grows."""
    lines = {"lease of 8 tasks": [at["lease_best_ms"] for at in data]}
    return _lines("Leases: best", "tasks in the queue", [at["queued"] for at in data], lines)


def memory(data: Mapping[str, Any]) -> Chart:
    """Return the memory of the services over time, while Pods start, run and end."""
    chart = pygal.XY(
        title=f"Memory with {data['pods']:,} Pods",
        x_title="seconds",
        y_title="MiB",
        include_x_axis=True,
        **{**_OPTIONS, "show_dots": False},
    )
    samples = data["memory"]
    for name in sorted({name for sample in samples for name in sample} - {"seconds"}):
        chart.add(name, [(sample["seconds"], sample[name]) for sample in samples if name in sample])
    return chart


def _lines(title: str, x_title: str, sizes: Sequence[int], lines: Mapping[str, Sequence[float]]) -> Chart:
    """Return a chart of milliseconds over sizes that grow tenfold: both axes are logarithmic."""
    chart = pygal.Line(title=title, x_title=x_title, y_title="milliseconds", logarithmic=True, **_OPTIONS)
    chart.x_labels = [f"{size:,}" for size in sizes]
    for name, values in lines.items():
        chart.add(name, values)
    return chart


_PLOTS: Mapping[str, tuple[str, Callable[[Any], Chart]]] = {
    "latency": ("latency", latency),
    "requests": ("requests", requests),
    "rows": ("rows", rows),
    "queue": ("queue", queue),
    "memory": ("pods", memory),
}


if __name__ == "__main__":
    print(*draw(Path(sys.argv[1])), sep="\n")
