"""How like a picture or a latent is to the true one, as a loss: each value, coarse content, texture, lines, the mean.

Texture and lines are compared as distributions, wherever they lie: a network that is asked for each pixel alone gives
the mean of all that could be there, which is smooth. What is coarser than that the small picture tells, so it can be
asked for exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7  # pixels a side
STRIP = 25  # pixels long, one wide
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601
_DIRECTIONS, _STRIDE = 32, 2
_REDUCTIONS = (2, 4, 8)


def luma(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W), Rec. 601."""
    return (image * torch.tensor(_LUMA, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def colour_planes(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,3,H,W): the luma, and what red and blue have above it."""
    y = luma(image)
    return torch.cat([y, image[:, :1] - y, image[:, 2:] - y], dim=1)


def laplacian(y: Tensor) -> Tensor:
    """(B,1,H,W) less its mean over 5x5 pixels."""
    return y - F.avg_pool2d(y, 5, stride=1, padding=2, count_include_pad=False)


def laplacian_patches(y: Tensor, stride: int) -> Tensor:
    """Of (B,1,H,W) less its mean over 5x5 pixels, all patches every `stride` pixels: (B,count,PATCH²)."""
    return F.unfold(laplacian(y), PATCH, stride=stride).transpose(1, 2)


def directions(count: int, seed: int) -> Tensor:
    """Unit vectors (PATCH²,count), always the same of a seed."""
    return F.normalize(torch.randn(PATCH**2, count, generator=torch.Generator().manual_seed(seed)), dim=0)


def sliced_distance(a: Tensor, b: Tensor, along: Tensor) -> Tensor:
    """Wasserstein-1 distances (B,) of patches (B,count,PATCH²), the mean over the directions (Rabin et al. 2011)."""
    ordered = [(x @ along.to(x)).sort(dim=1).values for x in (a, b)]
    return (ordered[0] - ordered[1]).abs().mean((1, 2))


def line_distance(a: Tensor, b: Tensor) -> Tensor:
    """Wasserstein-1 distances (B,) of (B,1,H,W) along rows and columns, the mean of both.

    What is compared are the sums of the fine part over strips of `STRIP` pixels, scaled to unit vectors as
    `directions` are: in them even faint lines stand out from texture, which cancels.
    """
    distances = []
    for x, y in ((a, b), (a.mT, b.mT)):
        length = min(STRIP, x.shape[-1])
        sums = [F.avg_pool2d(laplacian(z), (1, length), stride=(1, 4)).flatten(1) * length**0.5 for z in (x, y)]
        distances.append((sums[0].sort(dim=1).values - sums[1].sort(dim=1).values).abs().mean(1))
    return (distances[0] + distances[1]) / 2


def coarse_error(a: Tensor, b: Tensor) -> Tensor:
    """Squared errors (B,) of (B,C,H,W) reduced 2, 4 and 8 times, each by its area, so that white noise counts alike."""
    difference, error = a - b, a.new_zeros(len(a))
    for k in _REDUCTIONS:
        error = error + k**2 * F.avg_pool2d(difference, k, ceil_mode=True).square().mean((1, 2, 3))
    return error


@dataclass(frozen=True)
class Likeness:
    """Weights of the squared error, the same of reduced copies (`coarse_error`), the texture (`sliced_distance` of
    Laplacian patches), the lines and the mean's error.

    More texture gives more detail and less PSNR. Texture and lines are those of a picture's `colour_planes` (C = 3), or
    of each channel of a latent, the mean over them.
    """

    error: float = 0.0
    coarse: float = 0.0
    texture: float = 0.0
    lines: float = 0.0
    mean: float = 0.0

    def __call__(self, made: Tensor, truth: Tensor, texture: Tensor | float = 1.0) -> Tensor:
        """The loss (B,) of each item of (B,C,H,W), at least `PATCH` a side where texture counts.

        texture: a factor of texture and lines, of all or (B,).
        """
        error, mean = (made - truth).square().mean((1, 2, 3)), (made - truth).mean((2, 3)).square().mean(1)
        loss = self.error * error + self.mean * mean
        if self.coarse:
            loss = loss + self.coarse * coarse_error(made, truth)
        planes = [(colour_planes(x) if x.shape[1] == 3 else x).flatten(0, 1)[:, None] for x in (made, truth)]
        if self.texture:
            loss = loss + texture * self.texture * _texture_distance(*planes).view(len(made), -1).mean(1)
        if self.lines:
            loss = loss + texture * self.lines * line_distance(*planes).view(len(made), -1).mean(1)
        return loss


def _texture_distance(a: Tensor, b: Tensor) -> Tensor:
    patches = [laplacian_patches(x, _STRIDE) for x in (a, b)]
    return sliced_distance(patches[0], patches[1], directions(_DIRECTIONS, seed=1))
