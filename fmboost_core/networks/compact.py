"""The compact network of Real-ESRGAN, which enlarges images by convolutions at the small size (Wang et al. 2021)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

PRELU = 0.25  # slope below 0 of a fresh `nn.PReLU`


class CompactNetwork(nn.Module):
    """Images (B,3,h,w) in [0,1] -> (B,3,factor h,factor w): each pixel repeated, plus what the convolutions add.

    Its weights have the names of Real-ESRGAN's SRVGGNetCompact, so that every host reads its files.
    """

    def __init__(self, factor: int = 2, width: int = 64, depth: int = 32) -> None:
        """width: channels; depth: convolutions between the first and the last."""
        super().__init__()
        self.factor, self.width, self.depth = factor, width, depth
        layers: list[Any] = []
        for inputs in (3, *[width] * depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.PReLU(width)]
            # The usual weights halve what passes each layer, and the first of so many would learn nothing.
            nn.init.kaiming_normal_(layers[-2].weight, a=PRELU)
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3 * factor**2, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        added = F.pixel_shuffle(self.body(image), self.factor)
        return added + F.interpolate(image, scale_factor=float(self.factor), mode="nearest")
