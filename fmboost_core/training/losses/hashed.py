"""Random numbers that are functions of a seed and a position, and windows at such places: a whole batch at once, on
whatever device the seeds are.

A generator for each item would draw one item after the other, on the CPU. The hash is Wellons' "lowbias32"
(github.com/skeeto/hash-prospector).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_BITS = 0xFFFFFFFF


def random_bits(seed: Tensor, count: int) -> Tensor:
    """32 random bits at each of so many positions, (B,count) whole numbers; seed: (B,) whole numbers."""
    return _mixed(_mixed(seed[:, None] & _BITS) ^ torch.arange(count, device=seed.device))


def seeded_normal(seed: Tensor, count: int) -> Tensor:
    """Standard normal numbers (B,count) by Box and Muller's method; seed: (B,) whole numbers."""
    bits = random_bits(seed, count)
    radius, angle = (((x + 0.5) / 2**32).float() for x in (bits, _mixed(bits ^ 0x9E3779B9)))
    return (-2 * radius.clamp(min=2**-33).log()).sqrt() * (2 * math.pi * angle).cos()


def windows(images: Tensor, corners: Tensor, sides: Sequence[int]) -> Tensor:
    """The window of sides (height, width) of each of (B,C,H,W), at its corner (B,2): from the top, from the left."""
    rows, columns = (
        corners[:, axis, None] + torch.arange(side, device=corners.device) for axis, side in enumerate(sides)
    )
    images = images.gather(2, rows[:, None, :, None].expand(-1, images.shape[1], -1, images.shape[3]))
    return images.gather(3, columns[:, None, None].expand(-1, images.shape[1], sides[0], -1))


def _mixed(bits: Tensor) -> Tensor:
    """Each bit of the result depends on each of the 32 bits."""
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & _BITS
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) & _BITS
    return bits ^ (bits >> 16)
