"""Degradation steps: blur, resizing, Gaussian and Poisson noise, JPEG. A step's parameters decide its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import ConfigError, MissingDependencyError

FILTERS = ("box", "bilinear", "bicubic", "lanczos")  # antialiased in Pillow; nearest shifts what it reduces
KERNEL_SIGMAS = 3.5  # reach of a blur's kernel in standard deviations
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Blur:
    """Gaussian blur. along, across: standard deviations of its axes in pixels; angle: of the first axis, in radians."""

    along: float
    across: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        _require("The blur's along", self.along, 0.01, 100)
        _require("The blur's across", self.across, 0.01, 100)
        _require("The blur's angle", self.angle, -2 * math.pi, 2 * math.pi)

    def apply(self, image: Image.Image) -> Image.Image:
        convolve = _convolve()
        kernel = self.kernel()
        reach = kernel.shape[0] // 2
        padded = np.pad(_values(image), ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
        return _image(convolve(padded, kernel[..., None], mode="valid", axes=(0, 1)))

    def kernel(self) -> NDArray[np.float64]:
        """The weights on an odd square grid, with sum 1; x to the right, y down."""
        reach = math.ceil(KERNEL_SIGMAS * max(self.along, self.across))
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        first = (x * math.cos(self.angle) + y * math.sin(self.angle)) / self.along
        second = (y * math.cos(self.angle) - x * math.sin(self.angle)) / self.across
        weights: NDArray[np.float64] = np.exp(-(first**2 + second**2) / 2)
        return weights / weights.sum()


@dataclass(frozen=True)
class Resize:
    """Resizing to the photograph's sides divided by `by`, rounded down, whatever the image's size.

    filter: one of `FILTERS`.
    """

    by: float
    filter: str

    def __post_init__(self) -> None:
        _require("The resizing's by", self.by, 0.25, 64)
        if self.filter not in FILTERS:
            known = f"{', '.join(FILTERS[:-1])} or {FILTERS[-1]}"
            raise ConfigError(f"The resizing's filter must be {known}, but it is {self.filter!r}.")

    def apply(self, image: Image.Image, photo: tuple[int, int]) -> Image.Image:
        """photo: the photograph's (width, height)."""
        width, height = (max(1, int(side / self.by)) for side in photo)
        return image.resize((width, height), Image.Resampling[self.filter.upper()])


@dataclass(frozen=True)
class GaussianNoise:
    """Gaussian noise. sigma: standard deviation in 255ths; grey: the same in all channels, otherwise independent."""

    sigma: float
    grey: bool
    seed: int

    def __post_init__(self) -> None:
        _require("The noise's sigma", self.sigma, 0, 255)
        _require_draw(self.grey, self.seed)

    def apply(self, image: Image.Image) -> Image.Image:
        values = _values(image)
        shape = (*values.shape[:2], 1 if self.grey else values.shape[2])
        return _image(values + self.sigma * np.random.default_rng(self.seed).standard_normal(shape))


@dataclass(frozen=True)
class PoissonNoise:
    """Shot noise. photons: the count that white stands for; grey: the luma's noise in all channels."""

    photons: float
    grey: bool
    seed: int

    def __post_init__(self) -> None:
        _require("The noise's photons", self.photons, 1, 1e9)
        _require_draw(self.grey, self.seed)

    def apply(self, image: Image.Image) -> Image.Image:
        values, gain = _values(image), self.photons / 255
        seen = _values(image.convert("L")) if self.grey else values
        return _image(values + np.random.default_rng(self.seed).poisson(seen * gain) / gain - seen)


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression with 4:2:0 chroma subsampling. quality: 1 to 100."""

    quality: int

    def __post_init__(self) -> None:
        require_whole("The JPEG's quality", self.quality, 1, 100)

    def apply(self, image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
        with Image.open(file) as saved:
            return saved.convert("RGB")


Step = Blur | Resize | GaussianNoise | PoissonNoise | Jpeg
STEPS: Mapping[str, type[Step]] = {
    "blur": Blur, "resize": Resize, "gaussian": GaussianNoise, "poisson": PoissonNoise, "jpeg": Jpeg,
}  # fmt: skip


# --- checks and conversions


def _require(what: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{what} must be a number from {low:g} to {high:g}, but it is {value!r}.")


def require_whole(what: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{what} must be a whole number from {low} to {high}, but it is {value!r}.")


def _require_draw(grey: bool, seed: int) -> None:
    if not isinstance(grey, bool):
        raise ConfigError(f"The noise's grey must be true or false, but it is {grey!r}.")
    require_whole("The noise's seed", seed, 0, LARGEST_SEED)


def _convolve() -> Callable[..., NDArray[np.float64]]:
    try:
        from scipy.signal import oaconvolve
    except ImportError:
        raise MissingDependencyError("Degraded images need SciPy: pip install scipy.") from None
    return oaconvolve


def _values(image: Image.Image) -> NDArray[np.float64]:
    """The values (H,W,C) in 0..255."""
    values = np.asarray(image, dtype=np.float64)
    return values if values.ndim == 3 else values[..., None]


def _image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))
