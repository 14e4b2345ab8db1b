"""Results on paper: a table, a JSON file, plots, and crops laid beside one another.

Results are `Rows` for each method: photograph -> name of the figure -> value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ..errors import ConfigError, ImageError, MissingDependencyError, reason
from ..files.atomic import replacing
from ..imaging.compare import Panel, font_for
from ..imaging.picture_file import save_image
from ..metrics.image_metrics import MEANINGS, Meaning
from .statistics import Interval, bootstrap, paired_bootstrap

Rows = Mapping[str, Mapping[str, float]]
Summary = dict[str, dict[str, Interval]]

RATIOS = ("latent_mse", "mse", "gmsd", "swd", "spectrum", "lpips")

# Okabe and Ito's colours, which stay apart for colour-blind eyes, and marks that stay apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = "osD^vP*"
_STYLE: Any = {  # a dict, whose keys matplotlib's types would have spelt out
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "axes.axisbelow": True, "savefig.dpi": 150, "figure.constrained_layout.use": True,
}  # fmt: skip
_PLOT_SUFFIXES = (".png", ".svg")
_GAP, _TEXT = 8, 14  # pixels of a contact sheet


# --- numbers


def common_photos(results: Mapping[str, Rows]) -> list[str]:
    """The photographs that every method has, in the first one's order: only these compare."""
    tables = list(results.values())
    return [photo for photo in tables[0] if all(photo in rows for rows in tables)] if tables else []


def summarise(results: Mapping[str, Rows], *, level: float = 0.95, seed: int = 0) -> Summary:
    """Each method's means over the common photographs, with bootstrap intervals.

    A figure that a method lacks for some of them is left out for that method.
    """
    photos = common_photos(results)
    return {
        method: {
            name: bootstrap([rows[photo][name] for photo in photos], level=level, seed=seed)
            for name in _names(rows, photos)
        }
        for method, rows in results.items()
    }


def against(results: Mapping[str, Rows], baseline: str, *, level: float = 0.95, seed: int = 0) -> Summary:
    """Every other method photograph by photograph against the baseline, with paired bootstrap intervals.

    Errors (`RATIOS`) are divided by the baseline's, from figures of which higher is better it is subtracted; others
    are left out, and so is what the baseline lacks or has an error of 0 in.
    """
    if baseline not in results:
        raise ConfigError(f"There is no method {baseline!r} to compare with; there are {', '.join(results) or 'none'}.")
    photos, base = common_photos(results), results[baseline]
    known = _names(base, photos)
    summary: Summary = {method: {} for method in results if method != baseline}
    for method, figures in summary.items():
        for name in (name for name in _names(results[method], photos) if name in known):
            ours, theirs = ([rows[photo][name] for photo in photos] for rows in (results[method], base))
            if name in RATIOS and all(theirs):
                ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
                figures[name] = bootstrap(ratios, level=level, seed=seed)
            elif name in MEANINGS and MEANINGS[name].better == "higher":
                figures[name] = paired_bootstrap(ours, theirs, level=level, seed=seed)
    return summary


def _names(rows: Rows, photos: Sequence[str]) -> list[str]:
    """The figures that all photographs have, in order."""
    return [name for name in rows[photos[0]] if all(name in rows[photo] for photo in photos)] if photos else []


def markdown(
    summary: Mapping[str, Mapping[str, Interval | float]],
    meanings: Mapping[str, Meaning] = MEANINGS,
    *,
    legend: bool = True,
) -> str:
    """A table of methods by figures: means with half the interval's width, the best in bold; and what they mean.

    Plain numbers, such as FID, have no interval. Figures that `meanings` lacks have no best. legend: say what each is.
    """
    names = list(dict.fromkeys(name for figures in summary.values() for name in figures))
    best = {name: _best(name, summary, meanings) for name in names}
    lines = ["| method | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for method, figures in summary.items():
        cells = [_cell(figures.get(name), bold=method in best[name]) for name in names]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    if legend:
        lines += ["", *(f"- {name}: {_in_words(meanings[name])}" for name in names if name in meanings)]
    return "\n".join(lines) + "\n"


def _mean(figure: Interval | float) -> float:
    return figure.mean if isinstance(figure, Interval) else figure


def _best(
    name: str, summary: Mapping[str, Mapping[str, Interval | float]], meanings: Mapping[str, Meaning]
) -> set[str]:
    """The methods whose mean is best; none where there is nothing to choose from."""
    if name not in meanings:
        return set()
    losses = {m: meanings[name].loss(_mean(figures[name])) for m, figures in summary.items() if name in figures}
    return {m for m, loss in losses.items() if loss == min(losses.values())} if len(losses) > 1 else set()


def _cell(figure: Interval | float | None, *, bold: bool) -> str:
    if figure is None:
        return ""
    text = f"**{_number(_mean(figure))}**" if bold else _number(_mean(figure))
    return f"{text} ± {_number(figure.half_width, _mean(figure))}" if isinstance(figure, Interval) else text


def _number(value: float, like: float | None = None) -> str:
    """Two decimals from 10, three from 0.1, two digits that count below; as many decimals as `like` would have."""
    size = abs(value if like is None else like)
    decimals = 2 if size >= 10 else 3 if size >= 0.1 or not size else 1 - math.floor(math.log10(size))
    return f"{value:.{decimals}f}"


def _in_words(meaning: Meaning) -> str:
    unit = f", {meaning.unit}" if meaning.unit else ""
    best = {"one": "1 is best", "zero": "0 is best"}.get(meaning.better, f"{meaning.better} is better")
    return f"{meaning.words}{unit}; {best}"


def make_folder(folder: Path) -> None:
    """Make a folder for results; a `ConfigError` says why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be made ({error.strerror}).") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; `ImageError` says why not."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, whole or not at all; NaN and infinity, which JSON lacks, are refused."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


# --- plots


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
    """Lines of means over x with their intervals shaded, to a .png or .svg.

    series: name -> an interval for each x; log_x: doublings of x are equally far apart; levels: name -> a value that
    is drawn as a horizontal line, such as a baseline's; ticks: the labelled places (default: all of x). Raises
    MissingDependencyError without matplotlib.
    """
    for name, values in series.items():
        if len(values) != len(x):
            raise ConfigError(f"The curve {name} has {len(values)} values for {len(x)} places.")
    figure, axes = _figure(4.8, 3.2)
    for i, (name, values) in enumerate(series.items()):
        colour, mark = _COLOURS[i % len(_COLOURS)], _MARKS[i % len(_MARKS)]
        size = 5 if ticks is None else 0  # marks are for the places that are labelled
        axes.plot(x, [v.mean for v in values], color=colour, marker=mark, markersize=size, label=name)
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
    path: Path, values: Mapping[str, Interval], *, x_label: str, title: str = "", mark: float | None = None
) -> None:
    """Horizontal bars of means with their intervals as whiskers, first on top, to a .png or .svg.

    mark: a value that is drawn as a line across, such as a ratio's 1. Raises MissingDependencyError without matplotlib.
    """
    figure, axes = _figure(4.8, 0.8 + 0.34 * len(values))
    means = [v.mean for v in values.values()]
    errors = [[v.mean - v.low for v in values.values()], [v.high - v.mean for v in values.values()]]
    axes.barh(
        list(values), means, xerr=errors, color=_COLOURS[0], height=0.66, error_kw={"elinewidth": 1, "capsize": 3}
    )
    for row, (mean, high) in enumerate(zip(means, (v.high for v in values.values()), strict=True)):
        axes.annotate(
            _number(mean), (max(high, mean, 0), row), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
    if mark is not None:
        axes.axvline(mark, color="0.35", linestyle="--", linewidth=1.2)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=x_label, title=title)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches that no window belongs to."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(f"Plots need matplotlib ({reason(error)}): pip install matplotlib.") from None
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    suffix = path.suffix.lower()
    if suffix not in _PLOT_SUFFIXES:
        raise ImageError(f"{path} has {suffix or 'no suffix'}, but plots are written as {' or '.join(_PLOT_SUFFIXES)}.")
    with rc_context(_STYLE), replacing(path) as temporary:
        # Without the date, equal plots are equal files.
        figure.savefig(temporary, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)


# --- pictures


def contact_sheet(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    """Lay pictures beside one another, pixel for pixel, each below its title and caption where it has them.

    Rows may be of different lengths; an empty title takes no room in a row that has none.
    """
    if not any(rows):
        raise ConfigError("A contact sheet needs at least one picture.")
    columns = max(map(len, rows))
    widths = [max(row[c].image.width for row in rows if c < len(row)) for c in range(columns)]
    labels = [max(_label_height(panel) for panel in row) if row else 0 for row in rows]
    heights = [label + max((p.image.height for p in row), default=0) for row, label in zip(rows, labels, strict=True)]
    sheet = Image.new("RGB", (sum(widths) + _GAP * (columns + 1), sum(heights) + _GAP * (len(rows) + 1)), "white")
    draw, top = ImageDraw.Draw(sheet), _GAP
    for row, label, height in zip(rows, labels, heights, strict=True):
        left = _GAP
        for panel, width in zip(row, widths, strict=False):
            _label(draw, panel, (left, top), width)
            sheet.paste(panel.image, (left, top + label))
            left += width + _GAP
        top += height + _GAP
    save_image(path, sheet, quality=92)  # for JPEG; PNG has none


def _label_height(panel: Panel) -> int:
    return sum(_TEXT + 6 for text in (panel.title, panel.caption) if text)


def _label(draw: ImageDraw.ImageDraw, panel: Panel, place: tuple[int, int], width: int) -> None:
    left, top = place
    for text, colour in ((panel.title, "black"), (panel.caption, "#555555")):
        if text:
            font = font_for([text], _TEXT, width)
            while font.getlength(text) > width and len(text) > 4:
                text = text.rstrip(".")[:-1] + "..."
            draw.text((left, top), text, colour, font)
            top += _TEXT + 6
