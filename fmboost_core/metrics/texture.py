"""Texture and colour of an image against its reference image: detail, swd, spectrum, colour shift.

Errors of single pixels hardly show these. Images are (1,3,H,W) floats in [-1,1]; `image_metrics.measure` checks them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..imaging.luma import luma
from .distances import directions, laplacian_patches, sliced_distance

_FLAT = 1e-6  # gradient of an image without any
_ROUNDING = 1 / (12 * 127.5**2)  # variance of rounding to 8 bits


def detail(image: Tensor, reference: Tensor) -> float:
    """Standard deviation of the luma's gradient over the reference's: below 1 is smooth, above 1 is too sharp."""
    return (_contrast(image) + _FLAT) / (_contrast(reference) + _FLAT)


def _contrast(image: Tensor) -> float:
    y = luma(image)
    return math.sqrt((y.diff(dim=-1).var() + y.diff(dim=-2).var()).item())


def swd(image: Tensor, reference: Tensor) -> float:
    """Sliced Wasserstein distance of 7x7 patches of the luma's Laplacian, along 128 fixed directions.

    It compares the distribution of the fine texture, wherever the texture lies (as Karras et al. 2018).
    """
    patches = [laplacian_patches(luma(x), stride=3) for x in (image, reference)]
    return sliced_distance(patches[0], patches[1], directions(128, seed=0)).item()


def spectrum(image: Tensor, reference: Tensor) -> float:
    """Mean over rings of frequency of the distance of the luma's power from the reference's, in dB.

    Rings are one cycle per shorter side wide, up to half a cycle per pixel. Power below that of rounding to 8 bits
    counts as that.
    """
    ratio = ring_power(image) / ring_power(reference)
    return (10 * ratio.log10()).abs().mean().item()


def ring_power(image: Tensor) -> Tensor:
    """Mean power of the luma in each ring of frequency; white noise has its variance in every ring."""
    y = luma(image)[0, 0]
    height, width = y.shape
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=y.dtype, device=y.device) for n in y.shape))
    power = torch.fft.fft2((y - y.mean()) * window).abs().square() / window.square().sum()
    rows, columns = (torch.fft.fftfreq(n, device=y.device) for n in (height, width))
    side = min(height, width)
    ring = (torch.hypot(rows[:, None], columns[None]) * side - 1e-4).ceil().long()
    inside = (ring > 0) & (ring <= side // 2)  # ring 0 is the mean, which `colour_shift` compares
    sums = torch.bincount(ring[inside], power[inside], minlength=side // 2 + 1)
    return (sums / torch.bincount(ring[inside]))[1:] + _ROUNDING


def colour_shift(image: Tensor, reference: Tensor) -> tuple[float, float, float]:
    """Mean difference of red, green and blue from the reference, in 1/255; above 0 is brighter."""
    red, green, blue = ((image - reference).mean((0, 2, 3)) * 127.5).tolist()
    return red, green, blue


def colour(image: Tensor, reference: Tensor) -> float:
    """The largest magnitude in `colour_shift`."""
    return max(map(abs, colour_shift(image, reference)))
