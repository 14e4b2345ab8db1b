"""Alpha: transparent positions get a colour. Needs no Pillow, so that the samplers start without it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fill_hidden(rgb: Tensor, alpha: Tensor) -> Tensor:
    """`rgb` with the colours of visible neighbours where alpha is 0, so that no hidden colour bleeds into the edge.

    rgb (B,3,H,W), alpha (B,1,H,W) in [0,1]. A pyramid of averages weighted by alpha: each level takes from the next
    coarser one what it lacks.
    """
    return torch.cat([_filled(*item) for item in zip(rgb.split(1), alpha.to(rgb).split(1), strict=True)])


def _filled(rgb: Tensor, alpha: Tensor) -> Tensor:
    """`fill_hidden` of a single image."""
    if alpha.min() > 0 or alpha.max() == 0:
        return rgb
    levels = [(rgb * alpha, alpha)]
    while max(levels[-1][1].shape[-2:]) > 1:
        colours, weights = levels[-1]
        levels.append((F.avg_pool2d(colours, 2, ceil_mode=True), F.avg_pool2d(weights, 2, ceil_mode=True)))
    filled = levels[-1][0] / levels[-1][1]
    for colours, weights in reversed(levels[:-1]):
        coarse = F.interpolate(filled, size=weights.shape[-2:], mode="bilinear")
        filled = torch.where(weights > 0, colours / weights.clamp_min(1e-20), coarse)
    return torch.where(alpha > 0, rgb, filled)
