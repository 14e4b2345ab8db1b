"""Few-step objective in pixel space: each step ends at a latent that is decoded and compared with the ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...sampling.schedule import noise_augment, noise_step_of
from .flow_matching import CouplingFlow
from .hashed import random_bits, windows
from .objective import Examples, Predict, per_item
from .weighted import WeightedDistance

Decode = Callable[[Tensor], Tensor]  # latents (B,C,h,w) -> images (B,3,8h,8w) in [-1,1], with gradients
STEPS_BEFORE = 3  # all times are below 7/8 (`Decoded.times`): at most three steps of about a quarter lie before them
PLACES = 0x5EED  # tells the bits that place a window from those that a loss draws from the same seed

# Made and true images, photographs or None, what the small latent shows (B,3,H,W) or None, seeds (B,) -> losses (B,).
Perceive = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, Tensor], Tensor]


@dataclass(frozen=True)
class Decoded:
    """From a state of the flow's own trajectory one more step to t=1, whose result is decoded and compared.

    States come from Euler steps of about a quarter; half of the times are 0. Each velocity learns to point at an image
    with the texture of the ground truth, so few steps lose no detail. Comparing the estimate of x1 in latents and in
    pixels follows LUA (arXiv 2511.10629).
    With since above 0, t=0 keeps CFM's loss: the first step stays the conditional mean, and so does the fidelity of a
    single evaluation. With since=0 the first step is decoded too: a single evaluation then has the texture.

    images, latents: distances in pixels and in latents. Without the latents' mean and texture, latents drift to where
    this decoder's images are right and another's are not.
    window: side in latents of the part of each crop that is decoded, by far the most expensive step. It lies anywhere
        in the crop: an image has borders too, and what is never decoded there is not learned.
    octave: noise steps that double the weight of texture and lines. A network that is conditioned on the noise level
    then trades fidelity for detail by its noise step. 0: the weight is the same at all steps.
    last_share: share of the times after 0 that are 3/4, where the last of four steps begins.
    steps: 4, or 1: all times are 0, for a model of a single evaluation.
    perceive: a further loss of the images (`Perception`). informed: it is shown the decoded guide too,
        for its critics or its `small`.
    shown: latents (B,C,h,w) that it is shown instead, where the guide itself is still learning.
    photos: whether it is given the photographs as well, where the ground truth is a teacher's.
    """

    flow: CouplingFlow
    decode: Decode
    images: WeightedDistance
    latents: WeightedDistance
    since: float = 0.25
    window: int = 16
    octave: float = 0.0
    last_share: float = 0.0
    perceive: Perceive | None = None
    informed: bool = False
    steps: int = STEPS_BEFORE + 1
    shown: Tensor | None = None
    photos: bool = False

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Half are 0, a quarter are the times of four Euler steps, a quarter are uniform from 1/8 to 7/8.

        Of the later half, `last_share` are 3/4 instead. With a single step, all are 0.
        """
        if self.steps == 1:
            return torch.zeros(count)
        anywhere = 1 / 8 + 3 / 4 * torch.rand(count, generator=generator)
        fourths = torch.randint(1, 4, (count,), generator=generator) / 4
        # In equal numbers at every step: shapes that change are slow on a GPU, and compiled anew.
        which = (torch.randperm(count, generator=generator) + 0.5) / count
        last = torch.rand(count, generator=generator) < self.last_share
        return anywhere.where(which > 3 / 4, fourths).masked_fill(last, 3 / 4).where(which > 1 / 2, 0.0)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, signal, noise, t, seed, real = examples
        start = noise_augment(guide, signal, noise[:, 0])
        state = self._trajectory(predict, start, guide, t)
        velocity = predict(state, t, guide).float()
        end = state + (1 - per_item(t)) * velocity
        if not self.since:
            return self._distance(end, high, real, guide, self._texture_weight(signal), seed).mean()
        later = t > 0
        losses = (velocity - (high - start)).square().mean((1, 2, 3))
        if later.any():
            weight = self._texture_weight(signal[later])
            distance = self._distance(end[later], high[later], real[later], guide[later], weight, seed[later])
            losses = losses.index_put((later,), distance)
        return losses.mean()

    @torch.no_grad()
    def _trajectory(self, predict: Predict, start: Tensor, guide: Tensor, t: Tensor) -> Tensor:
        """The flow's states at times t (B,), each after equal Euler steps as near to a quarter as can be.

        The number of steps does not depend on the times, so that a GPU can record them.
        """
        steps = (4 * t).round()
        x = start
        for i in range(self.steps - 1):
            left = (i < steps).to(x)
            length = t / steps.clamp(min=1) * left
            x = x + per_item(length) * predict(x, i * length, guide).float()
        return x

    def _texture_weight(self, signal: Tensor) -> Tensor:
        """The factor of texture and lines (B,), 1 at the flow's own noise step."""
        if not self.octave:
            return torch.ones_like(signal)
        own = noise_step_of(torch.full_like(signal, self.flow.alpha_bar))
        return 2 ** ((noise_step_of(signal) - own) / self.octave)

    def _distance(
        self, end: Tensor, high: Tensor, real: Tensor, guide: Tensor, texture: Tensor, seed: Tensor
    ) -> Tensor:
        """The weighted distances (B,) of latents, and of the images that they decode to."""
        with torch.no_grad():
            truth = self.decode(self._part(high, seed)).float()
            photo, seen = self._photo(real, seed), self._seen(guide, seed)
        made = self.decode(self._part(end, seed)).float()
        loss = self.latents(end, high, texture) + self.images(made, truth, texture)
        if self.perceive is None:
            return loss
        return loss + self.perceive(made.clamp(-1, 1), truth.clamp(-1, 1), photo, seen, seed)

    def _photo(self, real: Tensor, seed: Tensor) -> Tensor | None:
        """What critics take for real instead of the ground truth (B,3,H,W) in [-1,1]; None: nothing else."""
        if self.perceive is None or not self.photos:
            return None
        return self.decode(self._part(real, seed)).float().clamp(-1, 1)

    def _seen(self, guide: Tensor, seed: Tensor) -> Tensor | None:
        """What the small latent shows of the images (B,3,H,W) in [-1,1]; None where nobody looks at it."""
        if self.perceive is None or not self.informed:
            return None
        return self.decode(self._part(guide if self.shown is None else self.shown, seed)).float().clamp(-1, 1)

    def _part(self, latents: Tensor, seed: Tensor) -> Tensor:
        """The window of each of the latents (B,C,h,w), at a place that follows from its seed (B,)."""
        sides = [min(self.window, length) for length in latents.shape[-2:]]
        choices = [length - side + 1 for length, side in zip(latents.shape[-2:], sides, strict=True)]
        bits = random_bits(seed ^ PLACES, 2).unbind(1)
        return windows(latents, torch.stack([b % n for b, n in zip(bits, choices, strict=True)], 1), sides)

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return self.flow.sample(predict, guide, noise, nfe, solver)
