"""Tables of figures in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..metrics.meanings import MEANINGS, Meaning
from .statistics import Interval


def markdown(
    summary: Mapping[str, Mapping[str, Interval | float]],
    meanings: Mapping[str, Meaning] = MEANINGS,
    *,
    legend: bool = True,
) -> str:
    """A table of methods by figures: each mean ± half its interval's width, the best in bold, and a legend.

    Plain numbers, such as FID, have no interval. Figures that `meanings` lacks have no best. legend: add a line with
    the meaning of each figure.
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


def number(value: float, like: float | None = None) -> str:
    """Two decimals from 10, three from 0.1, else two significant digits; like: use this value's decimals."""
    size = abs(value if like is None else like)
    decimals = 2 if size >= 10 else 3 if size >= 0.1 or not size else 1 - math.floor(math.log10(size))
    return f"{value:.{decimals}f}"


def _mean(figure: Interval | float) -> float:
    return figure.mean if isinstance(figure, Interval) else figure


def _best(
    name: str, summary: Mapping[str, Mapping[str, Interval | float]], meanings: Mapping[str, Meaning]
) -> set[str]:
    """The methods with the best mean; none where there is one method or no meaning."""
    if name not in meanings:
        return set()
    losses = {m: meanings[name].loss(_mean(figures[name])) for m, figures in summary.items() if name in figures}
    return {m for m, loss in losses.items() if loss == min(losses.values())} if len(losses) > 1 else set()


def _cell(figure: Interval | float | None, *, bold: bool) -> str:
    if figure is None:
        return ""
    text = f"**{number(_mean(figure))}**" if bold else number(_mean(figure))
    return f"{text} ± {number(figure.half_width, _mean(figure))}" if isinstance(figure, Interval) else text


def _in_words(meaning: Meaning) -> str:
    unit = f", {meaning.unit}" if meaning.unit else ""
    return f"{meaning.words}{unit}; {meaning.best_in_words}"
