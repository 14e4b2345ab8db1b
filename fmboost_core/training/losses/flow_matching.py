"""Flow matching: with data-dependent coupling (CFM) and from pure noise (FM); paper eq. 1-8."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ...sampling.schedule import noise_augment
from .objective import Examples, Predict, integrate, per_item, uniform_times


@dataclass(frozen=True)
class CouplingFlow:
    """CFM (paper eq. 5-8): x0 = sqrt(a) guide + sqrt(1-a) noise, x_t = t x1 + (1-t) x0, the velocity is x1 - x0.

    alpha_bar: a, the signal kept in the start when sampling. sigma_min: standard deviation of x_t around the line.
    start_share: share of the times that are 0.
    """

    alpha_bar: float
    sigma_min: float = 0.0
    start_share: float = 0.0

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return uniform_times(count, self.start_share, generator)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, signal, noise, t, *_ = examples
        start = noise_augment(guide, signal, noise[:, 0])
        state = torch.lerp(start, high, per_item(t)) + self.sigma_min * noise[:, 1]
        return mse_loss(predict(state, t, guide).float(), high - start)

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return integrate(predict, noise_augment(guide, self.alpha_bar, noise), guide, nfe, solver)


@dataclass(frozen=True)
class NaiveFlow:
    """FM (paper eq. 1-4): x0 ~ N(0,1), x_t = t x1 + (1 - (1-sigma_min) t) x0, the velocity is x1 - (1-sigma_min) x0.

    The guide is conditioning alone. start_share: share of the times that are 0.
    """

    sigma_min: float = 1e-4
    start_share: float = 0.0

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return uniform_times(count, self.start_share, generator)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, _, noise, t, *_ = examples
        start, keep = noise[:, 0], 1 - self.sigma_min
        state = per_item(t) * high + (1 - keep * per_item(t)) * start
        return mse_loss(predict(state, t, guide).float(), high - keep * start)

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return integrate(predict, noise, guide, nfe, solver)
