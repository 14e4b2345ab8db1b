"""How near a picture is to the true one, without any network but `lpips`'s.

Pictures are (1,3,H,W) floats in [-1,1], clamped by the caller, at least `SMALLEST` pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, ImageError, LatentError
from ..evaluation.features import lpips, require_torchmetrics
from .likeness import directions, laplacian_patches, luma, sliced_distance

SMALLEST = 16  # pixels: HaarPSI's largest wavelet on the halved picture
BEST = ("higher", "lower", "one", "zero")

_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_GREATEST_PSNR = 120.0
_FLAT = 1e-6  # gradient that a picture without any counts as having
_ROUNDING = 1 / (12 * 127.5**2)  # variance of rounding to 8 bits


@dataclass(frozen=True)
class Meaning:
    """How to read a figure. better: one of `BEST`, what is best; unit: "" for none; words: what it is, for people."""

    better: str
    unit: str
    words: str

    def __post_init__(self) -> None:
        if self.better not in BEST:
            raise ConfigError(f"better must be one of {', '.join(BEST)}, but it is {self.better!r}.")

    def loss(self, value: float) -> float:
        """A number that is the lower the better the value is."""
        return {"higher": -value, "lower": value, "one": abs(value - 1), "zero": abs(value)}[self.better]


@dataclass(frozen=True)
class Metric(Meaning):
    """A figure of a picture and the true one."""

    function: Callable[[Tensor, Tensor], float]


def measure(picture: Tensor, truth: Tensor, names: Iterable[str]) -> dict[str, float]:
    """The named metrics of `METRICS`. Both pictures (1,3,H,W) in [-1,1].

    Raises ConfigError for an unknown name, ImageError for pictures of two sizes, too small ones, or NaN and infinity.
    """
    names = check_names(names)
    _check_pictures(picture, truth)
    with torch.no_grad():
        return {name: METRICS[name].function(picture, truth) for name in names}


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names without doubles; a `ConfigError` lists the valid ones where one is unknown or none is given."""
    found = tuple(dict.fromkeys(names))
    unknown = [name for name in found if name not in METRICS]
    if unknown or not found:
        raise ConfigError(f"There is no metric {', '.join(unknown) or 'given'}; choose of {', '.join(METRICS)}.")
    return found


def _check_pictures(picture: Tensor, truth: Tensor) -> None:
    for image in (picture, truth):
        if image.ndim != 4 or image.shape[:2] != (1, 3):
            raise ImageError(f"A picture to measure must be (1, 3, height, width), but it is {tuple(image.shape)}.")
    (height, width), (true_height, true_width) = picture.shape[-2:], truth.shape[-2:]
    if (height, width) != (true_height, true_width):
        raise ImageError(
            f"The picture is {width}x{height} and the true one {true_width}x{true_height}; only equal sizes compare."
        )
    if min(height, width) < SMALLEST:
        raise ImageError(f"{width}x{height} pixels are too few to measure: {SMALLEST} a side are needed.")
    if not bool(torch.isfinite(picture).all() and torch.isfinite(truth).all()):
        raise ImageError("A picture to measure holds NaN or infinity, so nothing can be said of it.")


def latent_mse(latent: Tensor, truth: Tensor) -> float:
    """Mean squared error of scaled latents (B,C,h,w), which have near unit variance."""
    if latent.shape != truth.shape:
        raise LatentError(
            f"The latent is {tuple(latent.shape)} and the true one {tuple(truth.shape)}; make them alike."
        )
    return F.mse_loss(latent.float(), truth.float()).item()


# --- fidelity


def mse(picture: Tensor, truth: Tensor) -> float:
    """Mean squared error on the range [-1,1], as the paper's Table 4."""
    return F.mse_loss(picture, truth).item()


def psnr(picture: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB; 120 for equal pictures, so that means stay finite."""
    functions = require_torchmetrics("functional.image")
    value = functions.peak_signal_noise_ratio(picture, truth, data_range=2.0).item()
    return min(_GREATEST_PSNR, value)


def ssim(picture: Tensor, truth: Tensor) -> float:
    """Structural similarity of the three channels, Gaussian window of 11 (Wang et al. 2004); 1 for equal pictures."""
    functions = require_torchmetrics("functional.image")
    return functions.structural_similarity_index_measure(picture, truth, data_range=2.0).item()


def gmsd(picture: Tensor, truth: Tensor) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2013), 0 for equal pictures, up to about 0.35."""
    a, b = (_gradient(_halved(luma(_to_bytes(x)))) for x in (picture, truth))
    return _similarity(a, b, 170.0).std().item()


def haarpsi(picture: Tensor, truth: Tensor) -> float:
    """Haar wavelet-based perceptual similarity index in colour (Reisenhofer et al. 2018), 0 to 1 for equal pictures."""
    a, b = (_channels(_halved(_to_bytes(x.double())), _YIQ) for x in (picture, truth))
    (y, true_y), (tint, true_tint) = ((x[:, :1] for x in (a, b)), (_haar_mean(x[:, 1:]) for x in (a, b)))
    fine, middle = (_similarity(_haar(y, size), _haar(true_y, size), 30.0) for size in (2, 4))
    tints = _similarity(tint, true_tint, 30.0).mean(1, keepdim=True)
    weights = torch.maximum(_haar(y, 8), _haar(true_y, 8))
    weights = torch.cat([weights, weights.mean(1, keepdim=True)], dim=1)
    if not weights.any():
        return 1.0  # two black pictures
    mean = (torch.sigmoid(4.2 * torch.cat([(fine + middle) / 2, tints], dim=1)) * weights).sum() / weights.sum()
    return (torch.logit(mean) / 4.2).square().item()


def _similarity(a: Tensor, b: Tensor, constant: float) -> Tensor:
    return (2 * a * b + constant) / (a * a + b * b + constant)


def _to_bytes(image: Tensor) -> Tensor:
    """[-1,1] -> [0,255], the range that both papers' constants are for."""
    return (image + 1) * 127.5


def _channels(image: Tensor, weights: tuple[tuple[float, ...], ...]) -> Tensor:
    """(B,3,H,W) to one channel for each row of weights."""
    matrix = torch.tensor(weights, dtype=image.dtype, device=image.device)
    return F.conv2d(image, matrix[..., None, None])


def _halved(image: Tensor) -> Tensor:
    """Means of 2x2 pixels, with zeros beyond an odd edge as in both papers' code."""
    return F.avg_pool2d(F.pad(image, (0, image.shape[-1] % 2, 0, image.shape[-2] % 2)), 2)


def _gradient(y: Tensor) -> Tensor:
    """Prewitt's gradient magnitude of (B,1,H,W)."""
    ramp = torch.tensor([1.0, 0.0, -1.0], dtype=y.dtype, device=y.device).expand(3, 3) / 3
    return F.conv2d(y, torch.stack([ramp, ramp.T])[:, None], padding=1).square().sum(1, keepdim=True).sqrt()


def _haar(y: Tensor, size: int) -> Tensor:
    """Magnitudes (B,2,H,W) of the vertical and the horizontal Haar wavelet of a size on (B,1,H,W)."""
    step = torch.ones(size, size, dtype=y.dtype, device=y.device) / size
    step[: size // 2] *= -1
    before, after = size // 2 - 1, size // 2
    return F.conv2d(F.pad(y, (before, after, before, after)), torch.stack([step, step.T])[:, None]).abs()


def _haar_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1).abs()


# --- texture and colour, which fidelity hardly sees


def detail(picture: Tensor, truth: Tensor) -> float:
    """Standard deviation of the luma's gradient over the true picture's: below 1 is smooth, above 1 is too sharp."""
    return (_contrast(picture) + _FLAT) / (_contrast(truth) + _FLAT)


def _contrast(image: Tensor) -> float:
    y = luma(image)
    return math.sqrt((y.diff(dim=-1).var() + y.diff(dim=-2).var()).item())


def swd(picture: Tensor, truth: Tensor) -> float:
    """Sliced Wasserstein distance of 7x7 patches of the luma's Laplacian, along 128 fixed directions (as Karras et al.
    2018): whether the fine texture is as the truth's, wherever it is."""
    patches = [laplacian_patches(luma(x), stride=3) for x in (picture, truth)]
    return sliced_distance(patches[0], patches[1], directions(128, seed=0)).item()


def spectrum(picture: Tensor, truth: Tensor) -> float:
    """Mean over rings of frequency of the distance of the luma's power from the truth's, in dB.

    Rings are one cycle per shorter side wide, up to half a cycle per pixel. Power below that of rounding to 8 bits
    counts as that.
    """
    ratio = ring_power(picture) / ring_power(truth)
    return (10 * ratio.log10()).abs().mean().item()


def ring_power(image: Tensor) -> Tensor:
    """Mean power of each ring, so scaled that white noise has its variance in all."""
    y = luma(image)[0, 0]
    height, width = y.shape
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=y.dtype, device=y.device) for n in y.shape))
    power = torch.fft.fft2((y - y.mean()) * window).abs().square() / window.square().sum()
    rows, columns = (torch.fft.fftfreq(n, device=y.device) for n in (height, width))
    side = min(height, width)
    ring = (torch.hypot(rows[:, None], columns[None]) * side - 1e-4).ceil().long()
    inside = (ring > 0) & (ring <= side // 2)  # ring 0 is the mean, which is colour's
    sums = torch.bincount(ring[inside], power[inside], minlength=side // 2 + 1)
    return (sums / torch.bincount(ring[inside]))[1:] + _ROUNDING


def colour_shift(picture: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """How much brighter red, green and blue are on average than the truth's, in 1/255."""
    red, green, blue = ((picture - truth).mean((0, 2, 3)) * 127.5).tolist()
    return red, green, blue


def colour(picture: Tensor, truth: Tensor) -> float:
    """The size of the worst channel's `colour_shift`."""
    return max(map(abs, colour_shift(picture, truth)))


def _channel_shift(index: int) -> Callable[[Tensor, Tensor], float]:
    return lambda picture, truth: colour_shift(picture, truth)[index]


def _metrics() -> dict[str, Metric]:
    rows: dict[str, tuple[Any, str, str, str]] = {
        "psnr": (psnr, "higher", "dB", "peak signal-to-noise ratio"),
        "ssim": (ssim, "higher", "", "structural similarity"),
        "mse": (mse, "lower", "", "mean squared error on [-1,1]"),
        "gmsd": (gmsd, "lower", "", "gradient magnitude similarity deviation"),
        "haarpsi": (haarpsi, "higher", "", "Haar wavelet-based perceptual similarity"),
        "swd": (swd, "lower", "", "sliced Wasserstein distance of Laplacian patches"),
        "spectrum": (spectrum, "lower", "dB", "distance of the power spectrum, mean over frequencies"),
        "detail": (detail, "one", "", "local contrast of the truth's"),
        "colour": (colour, "lower", "1/255", "shift of the worst channel's mean"),
        "red": (_channel_shift(0), "zero", "1/255", "shift of red's mean"),
        "green": (_channel_shift(1), "zero", "1/255", "shift of green's mean"),
        "blue": (_channel_shift(2), "zero", "1/255", "shift of blue's mean"),
        "lpips": (lpips, "lower", "", "learned perceptual distance, AlexNet"),
    }
    return {name: Metric(better, unit, words, function) for name, (function, better, unit, words) in rows.items()}


METRICS = _metrics()
DEFAULT_METRICS = tuple(name for name in METRICS if name != "lpips")
# What else a result can hold; these are not made from two pictures alone.
OTHERS = {
    "latent_mse": Meaning("lower", "", "mean squared error of the latent"),
    "fid": Meaning("lower", "", "Frechet distance of the pictures' features"),
    "p_fid": Meaning("lower", "", "Frechet distance of the crops' features"),
    "clip": Meaning("higher", "", "100 times the cosine of picture and caption in CLIP"),
    "clip_iqa": Meaning("higher", "", "CLIP's preference of Good photo to Bad photo, 0 to 1"),
}
MEANINGS: dict[str, Meaning] = {**METRICS, **OTHERS}
