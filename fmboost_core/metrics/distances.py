"""Distances between images or latents: texture, lines, coarse content and overshoot, as differentiable tensors.

Texture and lines are compared as distributions, wherever they lie. A network that is asked for each pixel alone gives
the mean of all that could be there, which is smooth. Coarse content is compared in place: the low-resolution image
determines it. Overshoot is compared in the neighbourhood: grain where the truth is flat, rims beside its edges.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.luma import luma

PATCH = 7  # pixels a side
STRIP = 25  # pixels long, one wide
_DIRECTIONS, _STRIDE = 32, 2  # of `texture_distance`
_REDUCTIONS = (2, 4, 8)
NEAR = 5  # pixels a side of the neighbourhood whose range is allowed
_UNSEEN = 0.1  # added to that range, of images in [-1,1]: what weighs ten times as much as the same beside an edge


# --- planes and patches


def colour_planes(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,3,H,W): luma, red minus luma, blue minus luma."""
    y = luma(image)
    return torch.cat([y, image[:, :1] - y, image[:, 2:] - y], dim=1)


def laplacian(y: Tensor) -> Tensor:
    """(B,1,H,W) minus its local mean over 5x5 pixels."""
    return y - F.avg_pool2d(y, 5, stride=1, padding=2, count_include_pad=False)


def laplacian_patches(y: Tensor, stride: int) -> Tensor:
    """All patches of `laplacian` of (B,1,H,W), one every `stride` pixels: (B,count,PATCH²)."""
    return F.unfold(laplacian(y), PATCH, stride=stride).transpose(1, 2)


@cache
@torch.inference_mode(False)  # kept for trainings too, whoever asks first
def directions(count: int, seed: int, device: torch.device | None = None) -> Tensor:
    """Random unit vectors (PATCH²,count); a seed always gives the same ones. They stay on the device."""
    drawn = torch.randn(PATCH**2, count, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=0).to(device)


# --- distances


def sliced_distance(a: Tensor, b: Tensor, along: Tensor) -> Tensor:
    """Sliced Wasserstein-1 distances (B,) of patches (B,count,PATCH²): the mean over the directions (PATCH²,n).

    Rabin et al. 2011, "Wasserstein barycenter and its application to texture mixing".
    """
    ordered = [(x @ along.to(x)).sort(dim=1).values for x in (a, b)]
    return (ordered[0] - ordered[1]).abs().mean((1, 2))


def texture_distance(a: Tensor, b: Tensor) -> Tensor:
    """Sliced Wasserstein-1 distances (B,) of the Laplacian patches of (B,1,H,W), at least `PATCH` a side."""
    patches = [laplacian_patches(x, _STRIDE) for x in (a, b)]
    return sliced_distance(patches[0], patches[1], directions(_DIRECTIONS, 1, a.device))


def line_distance(a: Tensor, b: Tensor) -> Tensor:
    """Wasserstein-1 distances (B,) of the line content of (B,1,H,W): the mean of rows and columns.

    The compared values are sums of `laplacian` over strips of `STRIP` pixels, divided by the root of their length. A
    faint line adds up along its strip; texture cancels.
    """
    distances = []
    for x, y in ((a, b), (a.mT, b.mT)):
        length = min(STRIP, x.shape[-1])
        sums = [F.avg_pool2d(laplacian(z), (1, length), stride=(1, 4)).flatten(1) * length**0.5 for z in (x, y)]
        distances.append((sums[0].sort(dim=1).values - sums[1].sort(dim=1).values).abs().mean(1))
    return (distances[0] + distances[1]) / 2


def coarse_error(a: Tensor, b: Tensor) -> Tensor:
    """Squared errors (B,) of (B,C,H,W) reduced 2, 4 and 8 times by area, summed.

    Each reduction is weighted by its area, so that white noise counts the same in all three.
    """
    difference, error = a - b, a.new_zeros(len(a))
    for k in _REDUCTIONS:
        error = error + k**2 * F.avg_pool2d(difference, k, ceil_mode=True).square().mean((1, 2, 3))
    return error


def overshoot(a: Tensor, b: Tensor) -> Tensor:
    """How far (B,C,H,W) a leaves the range of b in the `NEAR` pixels around, relative to that range: means (B,).

    Texture that b has is allowed anywhere near. Grain where b is flat and rims beside its edges are not, nor are
    contours that are drawn twice. Each plane's range is widened by a small number, so that what is invisible is not
    counted as infinitely wrong.
    """
    return _beyond(a, b).mean((1, 2, 3))


def _beyond(a: Tensor, b: Tensor) -> Tensor:
    """`overshoot` at each position (B,C,H,W)."""
    highest, lowest = _highest(b), -_highest(-b)
    return ((a - highest).relu() + (lowest - a).relu()) / (highest - lowest + _UNSEEN)


def _highest(x: Tensor) -> Tensor:
    """The maximum of each position's neighbourhood; a maximum over rows, then over columns, is one over squares."""
    return F.max_pool2d(F.max_pool2d(x, (NEAR, 1), 1, (NEAR // 2, 0)), (1, NEAR), 1, (0, NEAR // 2))
