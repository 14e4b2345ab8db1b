"""The network of ESRGAN, residual-in-residual dense blocks (Wang et al. 2018), for 2x as in Real-ESRGAN (2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of the activations below 0
SHARE = 0.2  # of what a block adds


class DenseBlock(nn.Module):
    """Five convolutions of features (B,width,h,w), each of which sees the outputs of all before it."""

    def __init__(self, width: int, growth: int) -> None:
        """growth: channels that each of the first four convolutions adds."""
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(4)
        )
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(F.leaky_relu(conv(torch.cat(seen, 1)), SLOPE))
        return x + SHARE * self.conv5(torch.cat(seen, 1))


class ResidualDenseBlocks(nn.Module):
    """Three dense blocks, around which the features (B,width,h,w) go once more."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + SHARE * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNetwork(nn.Module):
    """Images (B,3,h,w) in [0,1] -> (B,3,factor h,factor w).

    For 2x, the features have half the image's height and width, a pixel for a square of four; sides are filled up to
    even lengths. Its weights have the names of Real-ESRGAN's RRDBNet, so that every host reads its files.
    """

    def __init__(self, factor: int = 2, width: int = 64, growth: int = 32, blocks: int = 23) -> None:
        """factor: 2 or 4."""
        super().__init__()
        self.factor, self.square, self.width, self.growth = factor, 4 // factor, width, growth
        self.conv_first = nn.Conv2d(3 * self.square**2, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualDenseBlocks(width, growth) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(width, width, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if height % self.square or width % self.square:
            image = F.pad(image, (0, -width % self.square, 0, -height % self.square), mode="replicate")
        x = self.conv_first(F.pixel_unshuffle(image, self.square))
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), SLOPE)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return x[..., : height * self.factor, : width * self.factor]
