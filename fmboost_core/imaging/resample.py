"""Resizing of tensors: images and latents (B,C,H,W) to another size."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from ..fallback import with_fallback
from ..tiles import NOT_TILEABLE, Tileable, with_margins, without_margins

_REACH = 2  # of the widest kernel, bicubic, in pixels of the coarser image


def resize(x: Tensor, size: tuple[int, int], mode: str = "bilinear", tileable: Tileable = NOT_TILEABLE) -> Tensor:
    """(B,C,H,W) to size (height, width), half-pixel centres; bilinear and bicubic are antialiased where they reduce.

    tileable: the axes along which the kernel reaches over an end to the other one.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if any(tileable):
        return _resize_tileable(x, size, mode, tileable)
    reduces = mode != "nearest" and (size[0] < x.shape[-2] or size[1] < x.shape[-1])
    kernel = "nearest-exact" if mode == "nearest" else mode
    # Each combination is an operator of its own, which a device can lack.
    step = f"{'antialiased ' if reduces else ''}{mode} resizing"
    return with_fallback(step, lambda x: F.interpolate(x, size=size, mode=kernel, antialias=reduces), x)


def _resize_tileable(x: Tensor, size: tuple[int, int], mode: str, tileable: Tileable) -> Tensor:
    """`resize` with margins that are whole pixels before and after, so that no pixel's place changes."""
    before, after = [0, 0], [0, 0]
    for i, periodic in enumerate((tileable.y, tileable.x)):
        side, new = x.shape[i - 2], size[i]
        whole = side // math.gcd(side, new)
        reach = math.ceil((_REACH + 1) * max(1, side / new))
        before[i] = -(-reach // whole) * whole if periodic else 0
        after[i] = before[i] * new // side
    wide = with_margins(x, (before[0], before[1]))
    return without_margins(resize(wide, (size[0] + 2 * after[0], size[1] + 2 * after[1]), mode), (after[0], after[1]))


def cover(x: Tensor, size: tuple[int, int], mode: str = "bilinear", tileable: Tileable = NOT_TILEABLE) -> Tensor:
    """Like `resize`, but keeps the aspect: as small as covers size, cut at the centre."""
    return centre(resize(x, covering((x.shape[-2], x.shape[-1]), size), mode, tileable), size)


def covering(start: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The least (height, width) of start's aspect that covers size."""
    ratio = max(size[0] / start[0], size[1] / start[1])
    return max(size[0], round(start[0] * ratio)), max(size[1], round(start[1] * ratio))


def centre(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (B,C,height,width) of (B,C,H,W)."""
    top, left = ((side - new) // 2 for side, new in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]


def pad_to(images: Tensor, unit: int) -> Tensor:
    """Repeat the right and the bottom edge until both sides are multiples of unit."""
    bottom, right = -images.shape[-2] % unit, -images.shape[-1] % unit
    if not (bottom or right):
        return images
    return with_fallback("padding", lambda x: F.pad(x, (0, right, 0, bottom), mode="replicate"), images)
