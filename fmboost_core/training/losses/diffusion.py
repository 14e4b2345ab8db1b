"""Diffusion model (DM): noise prediction at 1000 steps of the cosine schedule, DDIM sampling (paper Table 2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ...errors import ConfigError
from ...sampling.schedule import alpha_bar
from .objective import Examples, Predict, per_item

DIFFUSION_STEPS = 1000
SIGNALS = torch.tensor([alpha_bar(step) for step in range(DIFFUSION_STEPS)])
LATENT_LIMIT = 6.0  # no scaled latent of a photograph is further from 0


@dataclass(frozen=True)
class Diffusion:
    """The network predicts the noise of x_s = sqrt(a_s) x1 + sqrt(1-a_s) noise, at steps s = 1..999.

    Its time input is s itself, as in diffusion models. Sampling is deterministic DDIM (Song et al., arXiv 2010.02502).
    Its estimates of x1 are clamped to `LATENT_LIMIT`: where next to no signal is left, a small error of the network is
    a huge error of the estimate.
    """

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(1, DIFFUSION_STEPS, (count,), generator=generator) / DIFFUSION_STEPS

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, _, noise, t, *_ = examples
        steps = (t * DIFFUSION_STEPS).round()
        signal = per_item(SIGNALS.to(high)[steps.long()])
        state = signal.sqrt() * high + (1 - signal).sqrt() * noise[:, 0]
        return mse_loss(predict(state, steps, guide).float(), noise[:, 0])

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        if not 1 <= nfe < DIFFUSION_STEPS:
            raise ConfigError(f"nfe must be from 1 to {DIFFUSION_STEPS - 1} for a diffusion model, but it is {nfe!r}.")
        x = noise
        # From the last step down, evenly spaced, to step 0, which has no noise.
        steps = [round((DIFFUSION_STEPS - 1) * (nfe - i) / nfe) for i in range(nfe + 1)]
        for now, then in pairwise(steps):
            a, b = alpha_bar(now), alpha_bar(then)
            epsilon = predict(x, x.new_full((len(x),), float(now)), guide).float()
            clean = ((x - (1 - a) ** 0.5 * epsilon) / a**0.5).clamp(-LATENT_LIMIT, LATENT_LIMIT)
            epsilon = (x - a**0.5 * clean) / (1 - a) ** 0.5
            x = b**0.5 * clean + (1 - b) ** 0.5 * epsilon
        return x
