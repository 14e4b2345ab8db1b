"""How far a decoded picture is from the true one, as a loss: fidelity, fine texture, colour.

The texture is compared as a distribution, wherever it lies: a network that is asked for each pixel alone gives the
mean of all that could be there, which is smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7  # pixels a side
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601
_DIRECTIONS, _STRIDE = 64, 2


def luma(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W), Rec. 601."""
    return (image * torch.tensor(_LUMA, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def laplacian_patches(y: Tensor, stride: int) -> Tensor:
    """Of (B,1,H,W) less its mean over 5x5 pixels, all patches every `stride` pixels: (B,count,PATCH²)."""
    fine = y - F.avg_pool2d(y, 5, stride=1, padding=2, count_include_pad=False)
    return F.unfold(fine, PATCH, stride=stride).transpose(1, 2)


def directions(count: int, seed: int) -> Tensor:
    """Unit vectors (PATCH²,count), always the same of a seed."""
    return F.normalize(torch.randn(PATCH**2, count, generator=torch.Generator().manual_seed(seed)), dim=0)


def sliced_distance(a: Tensor, b: Tensor, along: Tensor) -> Tensor:
    """Wasserstein-1 distances (B,) of patches (B,count,PATCH²), the mean over the directions (Rabin et al. 2011)."""
    ordered = [(x @ along.to(x)).sort(dim=1).values for x in (a, b)]
    return (ordered[0] - ordered[1]).abs().mean((1, 2))


@dataclass(frozen=True)
class PictureLoss:
    """Weights of squared error, of texture (`sliced_distance` of the luma's Laplacian), and of the mean colour's error.

    More texture gives more detail and less PSNR.
    """

    error: float = 2.0
    texture: float = 3.0
    colour: float = 150.0

    def __call__(self, made: Tensor, truth: Tensor) -> Tensor:
        """The loss (B,) of each picture of (B,3,H,W) in [-1,1]."""
        along = directions(_DIRECTIONS, seed=1)
        patches = [laplacian_patches(luma(x), _STRIDE) for x in (made, truth)]
        return (
            self.error * (made - truth).square().mean((1, 2, 3))
            + self.texture * sliced_distance(patches[0], patches[1], along)
            + self.colour * (made - truth).mean((2, 3)).square().mean(1)
        )
