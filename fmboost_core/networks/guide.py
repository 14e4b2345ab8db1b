"""The guide network: a small latent becomes the guide of a flow, without a VAE.

Most of it works at the small latent's size, where a layer costs a quarter. Its norm looks at single positions and it
has no attention, so that tiles equal the whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ChannelNorm, zeroed
from .config import GuideConfig

GRID = 2  # positions of the fine features per latent: those of the commonest target


class _Block(nn.Module):
    """norm, conv, SiLU, conv, plus the input; a new block is the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.silu(self.conv1(self.norm(x))))
        return out


class GuideNetwork(nn.Module):
    """A small scaled latent (B,C,h,w) and a size (H,W) in latents -> a guide (B,C,H,W). A new one interpolates."""

    def __init__(self, config: GuideConfig) -> None:
        super().__init__()
        self.config = c = config
        self.coarse = nn.Sequential(
            nn.Conv2d(c.channels, c.width, 3, padding=1),
            *[_Block(c.width) for _ in range(c.blocks)],
            nn.Conv2d(c.width, GRID**2 * c.fine_width, 3, padding=1),
            nn.PixelShuffle(GRID),
        )
        self.fine = nn.Sequential(
            *[_Block(c.fine_width) for _ in range(c.fine_blocks)],
            nn.SiLU(),
            zeroed(nn.Conv2d(c.fine_width, c.channels, 3, padding=1)),
        )

    def forward(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        # As `at` does, without its indices from the CPU, which no CUDA graph can hold.
        base, features = (F.interpolate(x, size, mode="bilinear") for x in (latent, self.coarse(latent)))
        return base + self.fine(features)

    def at(self, latent: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The guide (B,C,len(rows),len(columns)) at these places of the latent (`places`)."""
        features = self.coarse(latent)
        middle = (GRID - 1) / 2
        return interpolated(latent, rows, columns) + self.fine(
            interpolated(features, GRID * rows + middle, GRID * columns + middle)
        )


def places(new: int, side: int, start: int, stop: int) -> Tensor:
    """Where, in positions of a side of `side`, the centres lie of its `new` equal parts from start to stop (exclusive).

    In double precision and on the CPU; parts outside of 0 to new are those beyond the ends.
    """
    return (torch.arange(start, stop, dtype=torch.float64) + 0.5) * (side / new) - 0.5


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
