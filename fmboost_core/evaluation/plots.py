"""Plots of figures with their intervals, by matplotlib: curves over NFE, and bars."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ImageError
from ..files.atomic import replacing
from ..metrics.meanings import MEANINGS
from ..metrics.optional import needs
from .markdown import number
from .statistics import Interval

# Okabe and Ito's colours, which colour-blind people tell apart, and markers that differ in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"
_STYLE: Any = {  # Any: matplotlib's types would want every key spelt out
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "axes.axisbelow": True, "savefig.dpi": 150, "figure.constrained_layout.use": True,
}  # fmt: skip
_SUFFIXES = (".png", ".svg")


def plot_figure(path: Path, name: str, values: Mapping[str, Interval]) -> None:
    """A figure of all methods: curves over NFE where all models have the same several NFE, else bars."""
    nfes, series, levels = series_over_nfe(values)
    if len(nfes) > 1 and series:
        curve(path, nfes, series, x_label="NFE", y_label=figure_label(name), log_x=True, levels=levels)
    else:
        bar_plot(path, name, values)


def bar_plot(path: Path, name: str, values: Mapping[str, Interval]) -> None:
    """Bars of a figure, with a line at 1 where 1 is best."""
    bars(path, values, x_label=figure_label(name), line_at=1.0 if MEANINGS[name].better == "one" else None)


def figure_label(name: str) -> str:
    """The figure's name with its unit."""
    return f"{name}, {MEANINGS[name].unit}" if MEANINGS[name].unit else name


def series_over_nfe(
    values: Mapping[str, Interval],
) -> tuple[list[int], dict[str, list[Interval]], dict[str, float]]:
    """The NFEs, each model's figures at them, and the other methods' means (`methods.method_name`).

    There are no series where models have different NFEs.
    """
    found: dict[str, dict[int, Interval]] = {}
    levels: dict[str, float] = {}
    for method, value in values.items():
        match = re.fullmatch(r"(.+), nfe (\d+)", method)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = value
        else:
            levels[method] = value.mean
    nfes = sorted(next(iter(found.values()), {}))
    if any(sorted(points) != nfes for points in found.values()):
        return [], {}, levels
    return nfes, {model: [points[n] for n in nfes] for model, points in found.items()}, levels


def curve(
    path: Path,
    x: Sequence[float],
    series: Mapping[str, Sequence[Interval]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log_x: bool = False,
    levels: Mapping[str, float] | None = None,
    ticks: Sequence[float] | None = None,
) -> None:
    """Draw lines of means over x with their intervals shaded, to a .png or .svg.

    series: name -> an interval for each x; log_x: a base-2 axis; levels: name -> value of a horizontal line, such as
    a baseline's; ticks: the labelled places (default: all of x). Raises MissingDependencyError without matplotlib.
    """
    for name, values in series.items():
        if len(values) != len(x):
            raise ConfigError(f"The curve {name} has {len(values)} values for {len(x)} places.")
    figure, axes = _figure(4.8, 3.2)
    for i, (name, values) in enumerate(series.items()):
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        size = 5 if ticks is None else 0  # markers only where every place has a label
        axes.plot(x, [v.mean for v in values], color=colour, marker=marker, markersize=size, label=name)
        axes.fill_between(x, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.18, linewidth=0)
    for (name, value), dashes in zip((levels or {}).items(), ("--", ":", "-.") * 9, strict=False):
        axes.axhline(value, color="0.35", linestyle=dashes, linewidth=1.2, label=name)
    if log_x:
        axes.set_xscale("log", base=2)
    places = x if ticks is None else ticks
    axes.set_xticks(places, [f"{value:g}" for value in places], minor=False)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    if len(series) + len(levels or {}) > 1:
        axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def bars(
    path: Path, values: Mapping[str, Interval], *, x_label: str, title: str = "", line_at: float | None = None
) -> None:
    """Draw horizontal bars of means with their intervals as whiskers, the first on top, to a .png or .svg.

    line_at: the value of a line across the bars. Raises MissingDependencyError without matplotlib.
    """
    figure, axes = _figure(4.8, 0.8 + 0.34 * len(values))
    means = [v.mean for v in values.values()]
    errors = [[v.mean - v.low for v in values.values()], [v.high - v.mean for v in values.values()]]
    axes.barh(
        list(values), means, xerr=errors, color=_COLOURS[0], height=0.66, error_kw={"elinewidth": 1, "capsize": 3}
    )
    for row, (mean, high) in enumerate(zip(means, (v.high for v in values.values()), strict=True)):
        axes.annotate(
            number(mean), (max(high, mean, 0), row), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
    if line_at is not None:
        axes.axvline(line_at, color="0.35", linestyle="--", linewidth=1.2)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=x_label, title=title)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of this many inches without a window, and its axes."""
    with needs("A plot", "matplotlib"):
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ImageError(f"{path} has {suffix or 'no suffix'}, but plots are written as {' or '.join(_SUFFIXES)}.")
    with rc_context(_STYLE), replacing(path) as temporary:
        # Without the date, equal plots are equal files.
        figure.savefig(temporary, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)
