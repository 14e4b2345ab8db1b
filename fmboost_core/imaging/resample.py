"""Resizing of tensors: images and latents (B,C,H,W) to another size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..fallback import with_fallback


def resize(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """(B,C,H,W) to size (height, width), half-pixel centres; bilinear and bicubic are antialiased where they reduce."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    reduces = mode != "nearest" and (size[0] < x.shape[-2] or size[1] < x.shape[-1])
    kernel = "nearest-exact" if mode == "nearest" else mode
    # Each combination is an operator of its own, which a device can lack.
    step = f"{'antialiased ' if reduces else ''}{mode} resizing"
    return with_fallback(step, lambda x: F.interpolate(x, size=size, mode=kernel, antialias=reduces), x)


def cover(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Like `resize`, but keeps the aspect: as small as covers size, cut at the centre."""
    height, width = x.shape[-2:]
    ratio = max(size[0] / height, size[1] / width)
    full = (max(size[0], round(height * ratio)), max(size[1], round(width * ratio)))
    top, left = (full[0] - size[0]) // 2, (full[1] - size[1]) // 2
    return resize(x, full, mode)[..., top : top + size[0], left : left + size[1]]


def pad_to(images: Tensor, unit: int) -> Tensor:
    """Repeat the right and the bottom edge until both sides are multiples of unit."""
    bottom, right = -images.shape[-2] % unit, -images.shape[-1] % unit
    if not (bottom or right):
        return images
    return with_fallback("padding", lambda x: F.pad(x, (0, right, 0, bottom), mode="replicate"), images)
