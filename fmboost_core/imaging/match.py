"""Matching: whether two images show the same things at the same places, as the images before and after a codec do.

The luma's middle frequencies are compared in blocks, in place and displaced by a few pixels. Colours, blur and fine
detail, in which codecs and models differ, do not count. research/restoring.md has the figures behind the bounds.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .luma import luma
from .resample import resize

Match = Literal["same", "displaced", "other"]

_LEAST_SIMILARITY = 0.6  # of a decoded small latent and the result at least 0.79, of other images mostly below 0.5
_LEAST_RATIO = 0.68  # of the errors at best and in place: of such a pair at least 0.72, of two pixels mostly 0.5
_ROUNDING = 0.02  # errors below this are no sign
_NOISE = (3 / 127.5) ** 2  # mean square of what counts as flat: three levels of 255
_LARGEST, _SMALLEST = 512, 24  # pixels a side that are compared
_LEVELS = 3  # the image, and its halves: displacements of up to four times the reach
_REACH = 3  # pixels
_BLOCKS = 4  # a side
_FINE, _COARSE = 3, 17  # pixels: the sides of the averages between which a frequency counts


def match(image: Tensor, other: Tensor) -> Match:
    """Whether two images (1,3,H,W) in [-1,1], of one size, show the same; "displaced": they would fit better shifted.

    Images that are too small to tell, and flat ones, count as the same.
    """
    planes = [luma(_within(x, _LARGEST).float().cpu()) for x in (image, other)]
    similarity = 1.0
    for level in range(_LEVELS):
        size = (planes[0].shape[-2] >> level, planes[0].shape[-1] >> level)
        if min(size) < _SMALLEST:
            break
        in_place, displaced = _similarities(*(_band(resize(x, size)) for x in planes))
        if (1 - displaced + _ROUNDING) / (1 - in_place + _ROUNDING) < _LEAST_RATIO:
            return "displaced" if displaced >= _LEAST_SIMILARITY else "other"
        similarity = min(similarity, in_place) if level == 0 else similarity
    return "same" if similarity >= _LEAST_SIMILARITY else "other"


def _within(x: Tensor, largest: int) -> Tensor:
    """An image with sides of at most `largest` pixels, in its aspect."""
    ratio = largest / max(x.shape[-2:])
    return x if ratio >= 1 else resize(x, (max(1, round(x.shape[-2] * ratio)), max(1, round(x.shape[-1] * ratio))))


def _band(plane: Tensor) -> Tensor:
    """The middle frequencies of (1,1,H,W)."""
    fine, coarse = (F.avg_pool2d(F.pad(plane, (k // 2,) * 4, mode="replicate"), k, 1) for k in (_FINE, _COARSE))
    return fine - coarse


def _similarities(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Correlations of two planes (1,1,H,W), means over blocks weighted by their contrast: in place, and at best.

    At best: each block is compared at its best displacement within `_REACH`. A zoomed image is displaced differently
    in each block.
    """
    height, width = (side - 2 * _REACH for side in b.shape[-2:])
    inner = b[..., _REACH : _REACH + height, _REACH : _REACH + width]
    energy = _block_means(inner.square()) + _NOISE

    def correlation(down: int, right: int) -> Tensor:
        moved = a[..., down : down + height, right : right + width]
        return (_block_means(moved * inner) + _NOISE) / ((_block_means(moved.square()) + _NOISE) * energy).sqrt()

    places = range(2 * _REACH + 1)
    best = torch.stack([correlation(down, right) for down in places for right in places]).amax(0)
    weights = energy / energy.sum()
    return float((weights * correlation(_REACH, _REACH)).sum()), float((weights * best).sum())


def _block_means(plane: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(plane, min(_BLOCKS, max(1, min(plane.shape[-2:]) // 16)))
