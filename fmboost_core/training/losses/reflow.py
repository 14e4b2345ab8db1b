"""Reflow: a network learns the rectified trajectories of a trained flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ...sampling.schedule import noise_augment
from .flow_matching import CouplingFlow
from .objective import Examples, Predict, per_item


@dataclass(frozen=True)
class Reflow:
    """Reflow (Liu et al., arXiv 2209.03003) of a teacher's trajectory from time `since` on.

    The teacher's trajectory from `since` to its end, in `teacher_steps` Euler steps, is replaced by the straight line
    between the two points, and the network learns the velocity of that line. Few steps then lose less.
    since=0 rectifies the whole trajectory: one evaluation comes close to the teacher's many. since=1/4, the end of the
    first of four steps, keeps CFM's loss at t=0: the first step stays the conditional mean, and so does the fidelity
    of a single evaluation.
    """

    flow: CouplingFlow
    teacher: Predict
    since: float = 0.0
    teacher_steps: int = 8

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """A third is 0, a third are the times of four Euler steps, a third are uniform in [since,1)."""
        later = self.since + (1 - self.since) * torch.rand(count, generator=generator)
        fourths = torch.randint(1, 4, (count,), generator=generator) / 4
        which = torch.rand(count, generator=generator)
        return later.where(which > 2 / 3, fourths).where(which > 1 / 3, 0.0)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, signal, noise, t, *_ = examples
        start = noise_augment(guide, signal, noise[:, 0])
        corner, end = self._teacher_trajectory(start, guide)
        on_line = torch.lerp(corner, end, per_item((t - self.since) / (1 - self.since)))
        straight = (end - corner) / (1 - self.since)
        first = per_item(t == 0) if self.since else torch.zeros_like(per_item(t), dtype=torch.bool)
        target = torch.where(first, high - start, straight)
        return mse_loss(predict(torch.where(first, start, on_line), t, guide).float(), target)

    @torch.no_grad()
    def _teacher_trajectory(self, start: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's states at `since`, after one step, and at t=1, after `teacher_steps` more."""
        now = start.new_ones(len(start))
        corner = start + self.since * self.teacher(start, 0 * now, guide).float() if self.since else start
        step, x = (1 - self.since) / self.teacher_steps, corner
        for i in range(self.teacher_steps):
            x = x + step * self.teacher(x, (self.since + i * step) * now, guide).float()
        return corner, x

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return self.flow.sample(predict, guide, noise, nfe, solver)
