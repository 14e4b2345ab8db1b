"""The report of a run: results.md with its tables, a plot for each figure, and a contact sheet of crops."""

from __future__ import annotations

from collections.abc import Sequence

from .artifacts import Artifacts
from .contact_sheet import contact_sheet
from .markdown import markdown
from .output import write_text
from .plots import plot_figure
from .results import Results
from .statistics import Interval
from .summary import Summary, against, summarise


def write_report(results: Results, artifacts: Artifacts, shown: Sequence[str]) -> str:
    """Write results.json, results.md, the plots and crops.png into the results' folder; returns the text of results.md.

    shown: the photographs that the contact sheet may have.
    """
    photos = results.photos()
    results.sets = {m: found for m in results.methods if (found := artifacts.distances(m, photos))}
    results.save()
    summary = summarise(results.methods)
    text = _text(results, summary, len(photos))
    folder = results.path.parent
    write_text(folder / "results.md", text)
    for name in dict.fromkeys(name for figures in summary.values() for name in figures):
        values = {method: figures[name] for method, figures in summary.items() if name in figures}
        plot_figure(folder / f"{name}.png", name, values)
    rows = artifacts.panels(list(results.methods), shown)
    if rows:
        contact_sheet(folder / "crops.png", rows)
    return text


def _text(results: Results, summary: Summary, count: int) -> str:
    rows: dict[str, dict[str, Interval | float]] = {
        method: {**figures, **results.sets.get(method, {})} for method, figures in summary.items()
    }
    known = ", ".join(f"{k} {v}" for k, v in results.settings.items() if k != "metrics" and v is not None)
    text = f"Means over {count} photographs ± half of their 95% intervals. Settings: {known}.\n\n{markdown(rows)}"
    if "guide" in results.methods and len(results.methods) > 1:
        text += "\nAgainst the guide: ratios of figures that are better lower, differences of those better higher.\n\n"
        text += markdown(against(results.methods, "guide"), legend=False)
    if results.skipped:
        text += "\nSkipped:\n\n" + "".join(f"- {name}: {why}\n" for name, why in results.skipped.items())
    return text
