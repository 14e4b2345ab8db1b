"""Regression from the guide to the high-resolution latent in one step, by L1 or L2 (paper Table 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from .objective import Examples, Predict, integrate


@dataclass(frozen=True)
class Regression:
    """The network predicts x1 - guide at t=0; nothing is random. power: 1 for L1, 2 for L2."""

    power: int

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(count)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        measure = l1_loss if self.power == 1 else mse_loss
        guide = examples.guide
        return measure(predict(guide, examples.time, guide).float(), examples.high - guide)

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        """One function evaluation, whatever nfe is."""
        return integrate(predict, guide, guide, 1)
