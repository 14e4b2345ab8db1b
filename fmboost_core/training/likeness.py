"""How like a picture or a latent is to the true one, as a loss: each value, the fine texture, the mean.

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
class Likeness:
    """Weights of the squared error, of the texture (`sliced_distance` of Laplacian patches), of the mean's error.

    More texture gives more detail and less PSNR.
    """

    error: float
    texture: float
    mean: float

    def __call__(self, made: Tensor, truth: Tensor) -> Tensor:
        """The loss (B,) of each item of (B,C,H,W), at least `PATCH` a side where texture counts.

        The texture is that of the luma of pictures, C = 3, and of each channel of latents.
        """
        error, mean = (made - truth).square().mean((1, 2, 3)), (made - truth).mean((2, 3)).square().mean(1)
        fidelity = self.error * error + self.mean * mean
        return fidelity + self.texture * _texture_distance(made, truth) if self.texture else fidelity


def _texture_distance(made: Tensor, truth: Tensor) -> Tensor:
    planes = [luma(x) if x.shape[1] == 3 else x for x in (made, truth)]
    patches = [laplacian_patches(x.flatten(0, 1)[:, None], _STRIDE) for x in planes]
    distance = sliced_distance(patches[0], patches[1], directions(_DIRECTIONS, seed=1))
    return distance.view(len(made), -1).mean(1)
