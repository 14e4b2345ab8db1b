"""Degradation of images by blur, resizing, noise and JPEG in random order (paper appendix A.1).

After BSRGAN (Zhang et al. 2021, "Designing a practical degradation model") with changes of Real-ESRGAN (Wang et al.
2021). `plan` draws everything from a seed, `degrade` draws nothing: the plan's JSON beside a latent gives the same
low-resolution image again, bit for bit with the same versions of numpy, SciPy and Pillow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from ...errors import ConfigError, ImageError, reason
from .degradation_steps import (
    FILTERS,
    LARGEST_SEED,
    STEPS,
    Blur,
    GaussianNoise,
    Jpeg,
    PoissonNoise,
    Resize,
    Step,
    require_whole,
)

LEAST_SIGMA = 0.1  # of an isotropic blur, in pixels; at most 2 + 0.2 scale (BSRGAN)
LEAST_VARIANCE = 0.5  # of an anisotropic blur's axes, in square pixels; at most 4 + scale (BSRGAN)
NOISE_SIGMA = (1.0, 25.0)  # in 255ths (BSRGAN)
PHOTONS = (1e2, 1e4)  # at white, log-uniform (BSRGAN)
JPEG_QUALITY = (30, 95)  # (both)
GREY_SHARE = 0.4  # of the noises (both)
POISSON_SHARE = 0.5  # of the noises (Real-ESRGAN)
LAST_JPEG_SHARE = 0.5  # of the plans end with a JPEG of the low-resolution image; all of BSRGAN's do

_NAMES = {kind: name for name, kind in STEPS.items()}


@dataclass(frozen=True)
class Degradation:
    """A sequence of steps."""

    steps: tuple[Step, ...]

    def as_json(self) -> str:
        """One line that `from_json` reads: the list of steps, each with its name and parameters."""
        return json.dumps([{"step": _NAMES[type(step)], **asdict(step)} for step in self.steps])

    @classmethod
    def from_json(cls, text: str) -> Degradation:
        """Read `as_json`'s text. Raises `ConfigError` for anything else."""
        try:
            return cls(tuple(_step(fields) for fields in json.loads(text)))
        except ConfigError:
            raise
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"This is no list of degradation steps ({reason(error)}).") from None


def _step(fields: Mapping[str, Any]) -> Step:
    values = dict(fields)
    name = values.pop("step", None)
    if name not in STEPS:
        raise ConfigError(f"There is no degradation step {name!r}; the steps are {', '.join(STEPS)}.")
    return STEPS[name](**values)


def plan(seed: int, scale: int) -> Degradation:
    """A degradation that reduces by scale. The seed decides everything: parameters, order and the noise's own seed.

    The order of six steps is random: an isotropic and an anisotropic blur, noise (Gaussian or Poisson), JPEG, and two
    resizings, the first to a size between and the second to the final size. A last JPEG may follow. Blur and noise
    after a resizing are weaker by the root of the reduction, as a smaller image has less detail to lose: after 4x a
    blur has at most sigma 1.4, and Real-ESRGAN's second blur has 1.5.
    """
    require_whole("A degradation's seed", seed, 0, LARGEST_SEED)
    _require_scale(scale)
    rng = np.random.default_rng(seed)
    between = Resize(_number(rng, 1, scale, log=True), _filter(rng))
    resizings = [between, Resize(float(scale), _filter(rng))]
    draws: list[Callable[[float], Step]] = [
        lambda by: _isotropic(rng, scale, by),
        lambda by: _anisotropic(rng, scale, by),
        lambda by: resizings.pop(0),
        lambda by: resizings.pop(0),
        lambda by: _noise(rng, by),
        lambda by: _jpeg(rng),
    ]
    steps: list[Step] = []
    by = 1.0
    for i in rng.permutation(len(draws)):
        step = draws[i](by)
        by = step.by if isinstance(step, Resize) else by
        steps.append(step)
    return Degradation((*steps, _jpeg(rng)) if rng.random() < LAST_JPEG_SHARE else tuple(steps))


def degrade(photo: Image.Image, scale: int, degradation: Degradation) -> Image.Image:
    """The degraded RGB image of a photograph (W,H), exactly (W//scale, H//scale). Draws no random numbers.

    If the steps lead to another size, a bicubic resizing follows. Raises `ImageError` for a photograph of fewer than
    scale pixels a side.
    """
    _require_scale(scale)
    size = (photo.width // scale, photo.height // scale)
    if not min(size):
        raise ImageError(
            f"An image of {photo.width}x{photo.height} is too small to be reduced by {scale}; take a larger one."
        )
    image = photo.convert("RGB")
    for step in degradation.steps:
        image = step.apply(image, photo.size) if isinstance(step, Resize) else step.apply(image)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _isotropic(rng: np.random.Generator, scale: int, by: float) -> Blur:
    sigma = _number(rng, LEAST_SIGMA, (2 + 0.2 * scale) / math.sqrt(by))
    return Blur(sigma, sigma)


def _anisotropic(rng: np.random.Generator, scale: int, by: float) -> Blur:
    along, across = (round(math.sqrt(_number(rng, LEAST_VARIANCE, (4 + scale) / by)), 3) for _ in range(2))
    return Blur(along, across, _number(rng, 0, math.pi))


def _noise(rng: np.random.Generator, by: float) -> Step:
    grey, seed = bool(rng.random() < GREY_SHARE), int(rng.integers(2**32))
    if rng.random() < POISSON_SHARE:
        low, high = PHOTONS
        return PoissonNoise(_number(rng, low * by, high * by, log=True), grey, seed)
    low, high = NOISE_SIGMA
    return GaussianNoise(_number(rng, low, high / math.sqrt(by)), grey, seed)


def _jpeg(rng: np.random.Generator) -> Jpeg:
    return Jpeg(int(rng.integers(*JPEG_QUALITY, endpoint=True)))


def _number(rng: np.random.Generator, low: float, high: float, log: bool = False) -> float:
    """A uniform or log-uniform number, rounded as it is stored."""
    value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
    return round(value, 3)


def _filter(rng: np.random.Generator) -> str:
    return FILTERS[rng.integers(len(FILTERS))]


def _require_scale(scale: int) -> None:
    require_whole("The scale of a degradation", scale, 1, 64)
