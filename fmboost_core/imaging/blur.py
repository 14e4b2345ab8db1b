"""Gaussian blur of tensors: images (B,C,H,W)."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fallback import with_fallback
from ..tiles import NOT_TILEABLE, Tileable, with_margins, without_margins

_REACH = 3  # standard deviations to which the kernel goes


def blurred(x: Tensor, deviation: float, tileable: Tileable = NOT_TILEABLE) -> Tensor:
    """(B,C,H,W) blurred by a Gaussian of this standard deviation in pixels; edges go on as they end.

    tileable: the axes along which the image goes on at its other end.
    """
    radius = math.ceil(_REACH * deviation)
    margins = tileable.margins(radius)
    wide = with_margins(x, margins)
    return without_margins(with_fallback("blurring", partial(_blurred, deviation=deviation), wide), margins)


def _blurred(x: Tensor, deviation: float) -> Tensor:
    channels, radius = x.shape[1], math.ceil(_REACH * deviation)
    places = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-(places**2) / (2 * deviation**2), 0)
    row = kernel.expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), row, groups=channels)
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), row.transpose(2, 3), groups=channels)
