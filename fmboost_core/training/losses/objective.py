"""The `Objective` protocol of training objectives, and what they share: examples, times, integration."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...sampling.solvers import solve

# A network's output for a state (B,C,h,w), times (B,) and guides (B,C,h,w); the rest of its conditioning is bound.
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


class Examples(NamedTuple):
    """The data and random numbers of a training step.

    Everything random is drawn in advance: a step can be cut into parts, over processes or one after the other, and
    draws the same.

    high: latents of the ground truth (B,C,h,w). guide: low-resolution conditioning (B,C,h,w).
    kind: what each guide was made from (B,), indices into `GUIDE_KINDS`. alpha_bar: signal kept in each start (B,).
    noise: two standard normal draws (B,2,C,h,w). time: (B,) in [0,1). seed: of what a loss draws itself (B,).
    real: latents of what critics take for real (B,C,h,w): those of the ground truth, or of photographs.
    """

    high: Tensor
    guide: Tensor
    kind: Tensor
    alpha_bar: Tensor
    noise: Tensor
    time: Tensor
    seed: Tensor
    real: Tensor


class Objective(Protocol):
    """A training objective: its distribution of times, its loss, and the sampler that belongs to it."""

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Times (count,) in [0,1) to train at."""
        ...

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        """The mean loss over the examples, a scalar in fp32."""
        ...

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        """The high-resolution latent, after nfe function evaluations; noise: standard normal, of the guide's shape."""
        ...


def per_item(values: Tensor) -> Tensor:
    """(B,) -> (B,1,1,1), to multiply latents with."""
    return values.view(-1, 1, 1, 1)


def uniform_times(count: int, start_share: float, generator: torch.Generator) -> Tensor:
    """Times (count,) uniform in [0,1), of which a share is set to 0, the only time that one evaluation needs."""
    times = torch.rand(count, generator=generator)
    return times.where(torch.rand(count, generator=generator) >= start_share, 0.0)


def integrate(predict: Predict, start: Tensor, guide: Tensor, nfe: int, solver: str = "euler") -> Tensor:
    """The end at t=1 of the trajectory from start at t=0 along the predicted velocity (`solvers.solve`)."""
    return solve(lambda x, t: predict(x, x.new_full((len(x),), t), guide).float(), start, nfe, solver)[0]
