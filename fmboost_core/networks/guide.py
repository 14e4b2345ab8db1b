"""The guide network: a small latent becomes the guide of a flow, without a VAE.

It is a tiny VAE without its costly middle. The first half of a decoder leads to twice the latent's size; one block
more stands for the image, its interpolation and most of an encoder, whose last stage follows. It has no norm and no
attention, so that tiles equal the whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import SoftClamp, TinyBlock
from .config import GuideConfig

GRID = 2  # positions of the decoder's features per latent: those of the commonest target


class GuideNetwork(nn.Module):
    """A small scaled latent (B,C,h,w) and a size (H,W) in latents -> a guide (B,C,H,W).

    decoder: layers of the small latent, with the names of a tiny VAE's decoder. encoder: those of the target's size.
    """

    def __init__(self, config: GuideConfig) -> None:
        super().__init__()
        self.config = c = config
        self.decoder = nn.Sequential(
            SoftClamp(),
            nn.Conv2d(c.channels, c.width, 3, padding=1),
            nn.ReLU(),
            *[TinyBlock(c.width) for _ in range(c.blocks)],
            nn.Upsample(scale_factor=GRID),
            nn.Conv2d(c.width, c.width, 3, padding=1, bias=False),
            *[TinyBlock(c.width) for _ in range(c.blocks)],
        )
        self.encoder = nn.Sequential(
            *[TinyBlock(c.width) for _ in range(c.between + c.blocks)],
            nn.Conv2d(c.width, c.channels, 3, padding=1),
        )

    def forward(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        # As `at` does, without its indices from the CPU, which no CUDA graph can hold.
        guide: Tensor = self.encoder(F.interpolate(self.decoder(latent), size, mode="bilinear"))
        return guide

    def at(self, latent: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The guide (B,C,len(rows),len(columns)) at these places of the latent (`places`)."""
        middle = (GRID - 1) / 2
        features = interpolated(self.decoder(latent), GRID * rows + middle, GRID * columns + middle)
        guide: Tensor = self.encoder(features)
        return guide


def places(ratio: float, offset: float, start: int, stop: int) -> Tensor:
    """Where, in positions of a side, the centres of a guide's positions from start to stop (exclusive) lie.

    ratio: positions of the guide for one of the side. offset: by how many of them the guide begins later than the side.
    In double precision and on the CPU. Positions may lie beyond the ends.
    """
    return (torch.arange(start, stop, dtype=torch.float64) + 0.5 + offset) / ratio - 0.5


def interpolated(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x (B,C,H,W) at fractional rows and columns (`places`), by bilinear interpolation; the ends are repeated."""
    for axis, at in ((-2, rows), (-1, columns)):
        last = x.shape[axis] - 1
        first = at.clamp(0, last).floor()
        share = (at.clamp(0, last) - first).to(x)
        low, high = (side.clamp(max=last).long().to(x.device) for side in (first, first + 1))
        share = share[:, None] if axis == -2 else share
        x = torch.lerp(x.index_select(axis, low), x.index_select(axis, high), share)
    return x
