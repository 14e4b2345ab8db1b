"""Small pictures as they are found: blur, resizing, noise and JPEG in random order (paper appendix A.1).

In the manner of BSRGAN (Zhang et al. 2021, "Designing a practical degradation model") with what Real-ESRGAN (Wang et
al. 2021) changed. `plan` draws everything from a seed, `degrade` draws nothing: a plan's JSON beside a latent makes the
same small picture again, to the bit with the same versions of numpy, scipy and Pillow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import ConfigError, ImageError, MissingDependencyError, reason

FILTERS = ("box", "bilinear", "bicubic", "lanczos")  # antialiased in Pillow; nearest moves what it reduces
LEAST_SIGMA = 0.1  # of an isotropic blur, in pixels; at most 2 + 0.2 scale (BSRGAN)
LEAST_VARIANCE = 0.5  # of an anisotropic blur's axes, in square pixels; at most 4 + scale (BSRGAN)
NOISE_SIGMA = (1.0, 25.0)  # in 255ths (BSRGAN)
PHOTONS = (1e2, 1e4)  # at white, log-uniform (BSRGAN)
JPEG_QUALITY = (30, 95)  # (both)
GREY_SHARE = 0.4  # of the noises (both)
POISSON_SHARE = 0.5  # of the noises (Real-ESRGAN)
LAST_JPEG_SHARE = 0.5  # of the plans end with a JPEG of the small picture; all of BSRGAN's do
KERNEL_SIGMAS = 3.5  # how far a kernel reaches
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Blur:
    """Gaussian blur. along, across: standard deviations of its two axes in pixels; angle: of the first, in radians."""

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
        """Its weights on an odd square grid, of sum 1; x to the right, y down."""
        reach = math.ceil(KERNEL_SIGMAS * max(self.along, self.across))
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        first = (x * math.cos(self.angle) + y * math.sin(self.angle)) / self.along
        second = (y * math.cos(self.angle) - x * math.sin(self.angle)) / self.across
        weights: NDArray[np.float64] = np.exp(-(first**2 + second**2) / 2)
        return weights / weights.sum()


@dataclass(frozen=True)
class Resize:
    """To the photograph's sides divided by a number, rounded down, whatever size the picture has; see `FILTERS`."""

    by: float
    filter: str

    def __post_init__(self) -> None:
        _require("The resizing's by", self.by, 0.25, 64)
        if self.filter not in FILTERS:
            known = f"{', '.join(FILTERS[:-1])} or {FILTERS[-1]}"
            raise ConfigError(f"The resizing's filter must be {known}, but it is {self.filter!r}.")

    def apply(self, image: Image.Image, photo: tuple[int, int]) -> Image.Image:
        """photo: (width, height) of what is divided."""
        width, height = (max(1, int(side / self.by)) for side in photo)
        return image.resize((width, height), Image.Resampling[self.filter.upper()])


@dataclass(frozen=True)
class GaussianNoise:
    """Gaussian noise of a standard deviation in 255ths, the same in all channels (grey) or independent in each."""

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
    """Shot noise: each value counts photons, of which white has so many; grey: the luma's noise in all channels."""

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
    """Saved as JPEG, with colours at half the resolution, and read again. quality: 1 to 100."""

    quality: int

    def __post_init__(self) -> None:
        _require_whole("The JPEG's quality", self.quality, 1, 100)

    def apply(self, image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
        with Image.open(file) as saved:
            return saved.convert("RGB")


Step = Blur | Resize | GaussianNoise | PoissonNoise | Jpeg
STEPS: Mapping[str, type[Step]] = {
    "blur": Blur, "resize": Resize, "gaussian": GaussianNoise, "poisson": PoissonNoise, "jpeg": Jpeg,
}  # fmt: skip
_NAMES = {kind: name for name, kind in STEPS.items()}


@dataclass(frozen=True)
class Degradation:
    """What is done to a picture, in this order."""

    steps: tuple[Step, ...]

    def as_json(self) -> str:
        """One line that `from_json` reads: a list of the steps, each its name and its parameters."""
        return json.dumps([{"step": _NAMES[type(step)], **asdict(step)} for step in self.steps])

    @classmethod
    def from_json(cls, text: str) -> Degradation:
        """What `as_json` wrote; `ConfigError` says what is wrong with anything else."""
        try:
            return cls(tuple(_step(fields) for fields in json.loads(text)))
        except ConfigError:
            raise
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"This is no list of degrading steps ({reason(error)}).") from None


def _step(fields: Mapping[str, Any]) -> Step:
    values = dict(fields)
    name = values.pop("step", None)
    if name not in STEPS:
        raise ConfigError(f"There is no degrading step {name!r}; the steps are {', '.join(STEPS)}.")
    return STEPS[name](**values)


def plan(seed: int, scale: int) -> Degradation:
    """A degradation for reducing by scale, all of it drawn from the seed: parameters, order and the noise's own seed.

    Shuffled are an isotropic and an anisotropic blur, a noise (Gaussian or Poisson), a JPEG and two resizings, of which
    the first stops on the way and the second reaches the size; a last JPEG may follow. The ranges are this file's. What
    blurs or is noise after a resizing is weaker by the root of the reduction, for a smaller picture has less to lose:
    after 4x a blur has at most sigma 1.4, where Real-ESRGAN's second one has 1.5.
    """
    _require_whole("A degradation's seed", seed, 0, LARGEST_SEED)
    _require_scale(scale)
    rng = np.random.default_rng(seed)
    on_the_way = Resize(_number(rng, 1, scale, log=True), _filter(rng))
    resizings = [on_the_way, Resize(float(scale), _filter(rng))]
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
    """The degraded RGB picture of a photograph (W,H), exactly (W//scale, H//scale); draws nothing by itself.

    Steps of another scale are brought to that size at the end, bicubic. Raises `ImageError` for a photograph of fewer
    than scale pixels a side.
    """
    _require_scale(scale)
    size = (photo.width // scale, photo.height // scale)
    if not min(size):
        raise ImageError(f"A picture of {photo.width}x{photo.height} is too small to be reduced by {scale}.")
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
    """Uniform, or of uniform logarithm; as short as it stays in the metadata."""
    value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
    return round(value, 3)


def _filter(rng: np.random.Generator) -> str:
    return FILTERS[rng.integers(len(FILTERS))]


def _require(what: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{what} must be a number from {low:g} to {high:g}, but it is {value!r}.")


def _require_whole(what: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{what} must be a whole number from {low} to {high}, but it is {value!r}.")


def _require_draw(grey: bool, seed: int) -> None:
    if not isinstance(grey, bool):
        raise ConfigError(f"The noise's grey must be true or false, but it is {grey!r}.")
    _require_whole("The noise's seed", seed, 0, LARGEST_SEED)


def _require_scale(scale: int) -> None:
    _require_whole("The scale of a degradation", scale, 1, 64)


def _convolve() -> Callable[..., NDArray[np.float64]]:
    try:
        from scipy.signal import oaconvolve
    except ImportError:
        raise MissingDependencyError("Degraded pictures need SciPy: pip install scipy.") from None
    return oaconvolve


def _values(image: Image.Image) -> NDArray[np.float64]:
    """(H,W,C) in 0..255."""
    values = np.asarray(image, dtype=np.float64)
    return values if values.ndim == 3 else values[..., None]


def _image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))
