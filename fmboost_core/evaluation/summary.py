"""Means and intervals of figures over photographs, for each method and against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import ConfigError
from ..metrics.meanings import MEANINGS
from .statistics import Interval, bootstrap, paired_bootstrap

PhotoFigures = Mapping[str, Mapping[str, float]]  # photograph -> figure's name -> value
Summary = dict[str, dict[str, Interval]]  # method -> figure's name -> mean and interval

RATIOS = ("latent_mse", "mse", "gmsd", "swd", "spectrum", "lpips")


def common_photos(results: Mapping[str, PhotoFigures]) -> list[str]:
    """The photographs that every method has, in the first method's order; only these compare."""
    tables = list(results.values())
    return [photo for photo in tables[0] if all(photo in figures for figures in tables)] if tables else []


def summarise(results: Mapping[str, PhotoFigures], *, level: float = 0.95, seed: int = 0) -> Summary:
    """Each method's means over the common photographs, with bootstrap intervals.

    A method's figure that some of them lack is left out.
    """
    photos = common_photos(results)
    return {
        method: {
            name: bootstrap([figures[photo][name] for photo in photos], level=level, seed=seed)
            for name in _names(figures, photos)
        }
        for method, figures in results.items()
    }


def against(results: Mapping[str, PhotoFigures], baseline: str, *, level: float = 0.95, seed: int = 0) -> Summary:
    """Every other method against the baseline, paired by photograph, with bootstrap intervals.

    Errors (`RATIOS`) are divided by the baseline's; figures of which higher is better are differences. Left out are
    all others, those that the baseline lacks, and errors that are 0 for the baseline.
    """
    if baseline not in results:
        raise ConfigError(f"There is no method {baseline!r} to compare with; there are {', '.join(results) or 'none'}.")
    photos, base = common_photos(results), results[baseline]
    known = _names(base, photos)
    summary: Summary = {method: {} for method in results if method != baseline}
    for method, figures in summary.items():
        for name in (name for name in _names(results[method], photos) if name in known):
            ours, theirs = ([table[photo][name] for photo in photos] for table in (results[method], base))
            if name in RATIOS and all(theirs):
                ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
                figures[name] = bootstrap(ratios, level=level, seed=seed)
            elif name in MEANINGS and MEANINGS[name].better == "higher":
                figures[name] = paired_bootstrap(ours, theirs, level=level, seed=seed)
    return summary


def _names(figures: PhotoFigures, photos: Sequence[str]) -> list[str]:
    """The figures that all photographs have, in order."""
    return [name for name in figures[photos[0]] if all(name in figures[p] for p in photos)] if photos else []
