"""Weighted sum of distances as a loss: pixel error, coarse content, texture, lines, overshoot, mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...metrics.distances import coarse_error, colour_planes, line_distance, overshoot, texture_distance


@dataclass(frozen=True)
class WeightedDistance:
    """Weights of six distances between a result and the ground truth; a weight of 0 leaves a distance out.

    error: mean squared error. coarse: `coarse_error`. texture: `texture_distance`. lines: `line_distance`.
    overshoot: `overshoot`. mean: squared error of the channels' means.

    More texture gives more detail and less PSNR. Texture and lines are means over the `colour_planes` of an image
    (C = 3), or over the channels of a latent.
    """

    error: float = 0.0
    coarse: float = 0.0
    texture: float = 0.0
    lines: float = 0.0
    overshoot: float = 0.0
    mean: float = 0.0

    def __call__(self, result: Tensor, truth: Tensor, texture: Tensor | float = 1.0) -> Tensor:
        """The loss (B,) of each item of (B,C,H,W), at least `PATCH` a side where texture has a weight.

        texture: a factor of texture and lines, one for all or (B,).
        """
        error, mean = (result - truth).square().mean((1, 2, 3)), (result - truth).mean((2, 3)).square().mean(1)
        loss = self.error * error + self.mean * mean
        if self.coarse:
            loss = loss + self.coarse * coarse_error(result, truth)
        if self.overshoot:
            loss = loss + self.overshoot * overshoot(result, truth)
        if not self.texture and not self.lines:
            return loss
        planes = [(colour_planes(x) if x.shape[1] == 3 else x).flatten(0, 1)[:, None] for x in (result, truth)]
        if self.texture:
            loss = loss + texture * self.texture * texture_distance(*planes).view(len(result), -1).mean(1)
        if self.lines:
            loss = loss + texture * self.lines * line_distance(*planes).view(len(result), -1).mean(1)
        return loss
