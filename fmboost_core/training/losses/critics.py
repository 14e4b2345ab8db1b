"""Critics, which learn to tell made images from true ones, and what they say as a loss (hinge loss, Lim and Ye 2017).

Most of them see the features of a trained network and not pixels (Projected GAN, Sauer et al. 2021): they know at once
what pictures look like, and need few parameters and few steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

WIDTH = 64


class Critics(nn.Module):
    """One critic for each depth of features, and one for pixels; each has spectral norm (Miyato et al. 2018).

    The norms are followed by `follow_norms` alone, once a step, so that a step in parts is the whole step.
    """

    def __init__(self, channels: Sequence[int], colours: int = 3) -> None:
        """channels: of the features at each depth. colours: channels of the images."""
        super().__init__()
        self.heads = nn.ModuleList([_of_features(count) for count in channels] + [_of_pixels(colours)])
        self.eval()

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Features at each depth and images, (B,C,H,W) each -> the mean score of each critic (B,heads)."""
        return torch.stack([_mean(score) for score in self._scores(views)], dim=1)

    def generator_loss(self, made: Sequence[Tensor]) -> Tensor:
        """The generator's loss (B,): low where the critics take what was made for true. They do not learn from it."""
        self.requires_grad_(False)
        scores = self(made)
        self.requires_grad_(True)
        return -scores.mean(1)

    def critic_loss(self, made: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
        """The critics' own loss (B,): 0 where all tell apart by a margin, 2 where they know nothing.

        What was made does not learn from it.
        """
        pairs = zip(self._scores([x.detach() for x in made]), self._scores(truth), strict=True)
        losses = [_mean(F.relu(1 + false)) + _mean(F.relu(1 - true)) for false, true in pairs]
        return torch.stack(losses).mean(0)

    def follow_norms(self) -> None:
        """One power iteration of each spectral norm: call it after the weights have changed."""
        self.train()
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    _ = layer.weight  # reading it iterates
        self.eval()

    def _scores(self, views: Sequence[Tensor]) -> list[Tensor]:
        return [head(view).float() for head, view in zip(self.heads, views, strict=True)]


def _mean(score: Tensor) -> Tensor:
    return score.mean((1, 2, 3))


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, side, stride, padding=(side - 1) // 2))


def _of_features(channels: int) -> nn.Sequential:
    slope = nn.LeakyReLU(0.2)
    return nn.Sequential(
        _conv(channels, WIDTH, 1), slope, _conv(WIDTH, WIDTH, 3), slope, _conv(WIDTH, 1, 1)
    )  # fmt: skip


def _of_pixels(colours: int) -> nn.Sequential:
    """Sees patches of 18 pixels a side."""
    slope = nn.LeakyReLU(0.2)
    return nn.Sequential(
        _conv(colours, WIDTH // 2, 4, stride=2), slope,
        _conv(WIDTH // 2, WIDTH, 4, stride=2), slope,
        _conv(WIDTH, WIDTH, 3), slope,
        _conv(WIDTH, 1, 1),
    )  # fmt: skip
