"""Confidence intervals of means over photographs, by the percentile bootstrap (Efron 1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

_BLOCK = 2**22  # values drawn at once: 32 MiB


@dataclass(frozen=True)
class Interval:
    """A mean over count values, and its confidence interval from low to high."""

    mean: float
    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.mean, self.low, self.high))) or self.low > self.high:
            raise ConfigError(f"An interval goes from a finite low to a high, but it is {self.low!r} to {self.high!r}.")
        if self.count < 1:
            raise ConfigError(f"count must be a whole number above 0, but it is {self.count!r}.")

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def bootstrap(values: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of values with its confidence interval: the middle `level` of the means of resampled values."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ConfigError("An interval needs at least one value, and all of them finite numbers.")
    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1, but it is {level!r}.")
    if resamples < 1:
        raise ConfigError(f"resamples must be a whole number above 0, but it is {resamples!r}.")
    low, high = np.quantile(_resampled_means(array, resamples, seed), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high), array.size)


def _resampled_means(array: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // array.size)
    counts = [min(block, resamples - start) for start in range(0, resamples, block)]
    return np.concatenate([array[rng.integers(array.size, size=(n, array.size))].mean(1) for n in counts])


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of a - b with its interval; a[i] and b[i] belong to one photograph, whose difficulty cancels out."""
    if len(a) != len(b):
        raise ConfigError(f"Only values of the same photographs pair, but there are {len(a)} and {len(b)}.")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return bootstrap(difference.tolist(), level=level, resamples=resamples, seed=seed)
