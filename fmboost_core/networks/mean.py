"""The mean of several networks of upscale models: what one of them invents, the others rarely do at the same place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..imaging.blur import blurred
from .compact import CompactNetwork
from .rrdb import RRDBNetwork

SHARPENED = 0.3  # share of what is finer than a Gaussian of a pixel that is added: a mean is softer than its parts


class MeanNetwork(nn.Module):
    """Images (B,3,h,w) in [0,1] -> the mean (B,3,factor h,factor w) of what its parts make, a little sharpened."""

    def __init__(self, parts: Sequence[CompactNetwork | RRDBNetwork]) -> None:
        """parts: networks of one factor."""
        super().__init__()
        self.factor, self.parts = parts[0].factor, nn.ModuleList(parts)

    def forward(self, image: Tensor) -> Tensor:
        mean = torch.stack([part(image).clamp(0, 1) for part in self.parts]).mean(0)
        return mean + SHARPENED * (mean - blurred(mean, 1.0))
