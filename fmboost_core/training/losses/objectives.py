"""What can be learned: one small class an objective, with its loss and its way to sample (paper eq. 1-8, Table 2).

All share the network, the data and the loop. Each draws what is random beforehand (`Examples`), so that a step can be
cut into parts, over processes or one after the other, without drawing otherwise.

    cfm     coupling flow matching: from the noised guide to the photograph's latent
    fm      naive flow matching: from pure noise to it, the guide only as the condition
    l1, l2  regression: one step from the guide
    dm      a diffusion model: noise to be predicted at 1000 steps, DDIM to sample
    reflow  a trained flow's own ways, made straight
    decoded a trained flow's few steps, judged by the pictures that they end in
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from ...errors import ConfigError
from ...metrics.likeness import Likeness
from ...sampling.schedule import alpha_bar, noise_augment, noise_step_of
from ...sampling.solvers import solve

DIFFUSION_STEPS = 1000
SIGNALS = torch.tensor([alpha_bar(step) for step in range(DIFFUSION_STEPS)])
LATENT_LIMIT = 6.0  # no scaled latent of a photograph is further from 0; DDIM's estimates are held to it

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]  # state, time (B,), guide -> what the network is trained to say


class Examples(NamedTuple):
    """What a step learns from: latents (B,C,h,w), guides' kinds (B,), the signal kept in the starts (B,), noises
    (B,2,C,h,w), times (B,) in [0,1)."""

    high: Tensor
    guide: Tensor
    kind: Tensor
    alpha_bar: Tensor
    noise: Tensor
    time: Tensor


class Objective(Protocol):
    """A way to learn, and to sample what was learned."""

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Times (count,) in [0,1) to train at."""
        ...

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        """The mean loss of the examples."""
        ...

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        """The large latent, after nfe evaluations from standard normal noise of the guide's shape."""
        ...


def _wide(values: Tensor) -> Tensor:
    """(B,) -> (B,1,1,1)."""
    return values.view(-1, 1, 1, 1)


def uniform_times(count: int, start_share: float, generator: torch.Generator) -> Tensor:
    """Times (count,) uniform in [0,1), but a share of them exactly 0, all that a single evaluation ever asks for."""
    times = torch.rand(count, generator=generator)
    return times.where(torch.rand(count, generator=generator) >= start_share, 0.0)


def follow(predict: Predict, start: Tensor, guide: Tensor, nfe: int, solver: str = "euler") -> Tensor:
    """Carry start from t=0 to t=1 along the predicted velocity (`solvers.solve`)."""
    return solve(lambda x, t: predict(x, x.new_full((len(x),), t), guide).float(), start, nfe, solver)[0]


@dataclass(frozen=True)
class CouplingFlow:
    """CFM (paper eq. 5-8): x0 = sqrt(a) guide + sqrt(1-a) noise, x_t between x0 and x1, the velocity is x1 - x0.

    alpha_bar: a, the signal kept, when sampled; sigma_min: deviation of x_t around the line; start_share: of times
    exactly 0.
    """

    alpha_bar: float
    sigma_min: float = 0.0
    start_share: float = 0.0

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return uniform_times(count, self.start_share, generator)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, signal, noise, t = examples
        start = noise_augment(guide, signal, noise[:, 0])
        state = torch.lerp(start, high, _wide(t)) + self.sigma_min * noise[:, 1]
        return mse_loss(predict(state, t, guide).float(), high - start)

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return follow(predict, noise_augment(guide, self.alpha_bar, noise), guide, nfe, solver)


@dataclass(frozen=True)
class NaiveFlow:
    """FM (paper eq. 1-4): x0 ~ N(0,1), x_t = t x1 + (1 - (1-sigma_min) t) x0, the velocity is x1 - (1-sigma_min) x0."""

    sigma_min: float = 1e-4
    start_share: float = 0.0

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return uniform_times(count, self.start_share, generator)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, _, noise, t = examples
        start, keep = noise[:, 0], 1 - self.sigma_min
        state = _wide(t) * high + (1 - keep * _wide(t)) * start
        return mse_loss(predict(state, t, guide).float(), high - keep * start)

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return follow(predict, noise, guide, nfe, solver)


@dataclass(frozen=True)
class Regression:
    """L1 or L2: the whole way from the guide to the photograph's latent in one step; there is nothing to draw."""

    power: int

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(count)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        measure = l1_loss if self.power == 1 else mse_loss
        guide = examples.guide
        return measure(predict(guide, examples.time, guide).float(), examples.high - guide)

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        """One evaluation, whatever nfe is."""
        return follow(predict, guide, guide, 1)


@dataclass(frozen=True)
class Diffusion:
    """DM: the noise of x_s = sqrt(a_s) x1 + sqrt(1-a_s) noise is predicted, at steps s = 1..999 of the cosine schedule.

    The network is told s itself, as diffusion models are. Sampling is DDIM (Song et al., arXiv 2010.02502) without
    noise of its own; its estimates of x1 are held to `LATENT_LIMIT`, for at the first steps, where next to no signal
    is left, a small error of the network is a huge one of theirs.
    """

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(1, DIFFUSION_STEPS, (count,), generator=generator) / DIFFUSION_STEPS

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, _, noise, t = examples
        steps = (t * DIFFUSION_STEPS).round()
        signal = _wide(SIGNALS.to(high)[steps.long()])
        state = signal.sqrt() * high + (1 - signal).sqrt() * noise[:, 0]
        return mse_loss(predict(state, steps, guide).float(), noise[:, 0])

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        if not 1 <= nfe < DIFFUSION_STEPS:
            raise ConfigError(f"nfe must be from 1 to {DIFFUSION_STEPS - 1} for a diffusion model, but it is {nfe!r}.")
        x = noise
        # From the last step down, evenly spaced, to step 0, where there is no noise.
        steps = [round((DIFFUSION_STEPS - 1) * (nfe - i) / nfe) for i in range(nfe + 1)]
        for now, then in pairwise(steps):
            a, b = alpha_bar(now), alpha_bar(then)
            said = predict(x, x.new_full((len(x),), float(now)), guide).float()
            clean = ((x - (1 - a) ** 0.5 * said) / a**0.5).clamp(-LATENT_LIMIT, LATENT_LIMIT)
            said = (x - a**0.5 * clean) / (1 - a) ** 0.5
            x = b**0.5 * clean + (1 - b) ** 0.5 * said
        return x


@dataclass(frozen=True)
class Reflow:
    """Reflow (Liu et al., arXiv 2209.03003) of a teacher's way after `since`, so that few steps lose less.

    The teacher's own way from there to its end, in `teacher_steps` small Euler steps, becomes a straight line, and the
    network learns its velocity. since=0 straightens the whole way: one evaluation then comes close to the teacher's
    many. since=1/4, the end of the first of four steps, keeps the first step the conditional mean (it goes on with
    CFM's loss), and with it the fidelity of a single evaluation.
    """

    flow: CouplingFlow
    teacher: Predict
    since: float = 0.0
    teacher_steps: int = 8

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """A third 0, a third those of four Euler steps, a third all that is straightened."""
        later = self.since + (1 - self.since) * torch.rand(count, generator=generator)
        fourths = torch.randint(1, 4, (count,), generator=generator) / 4
        which = torch.rand(count, generator=generator)
        return later.where(which > 2 / 3, fourths).where(which > 1 / 3, 0.0)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, signal, noise, t = examples
        start = noise_augment(guide, signal, noise[:, 0])
        corner, end = self._way(start, guide)
        along = torch.lerp(corner, end, _wide((t - self.since) / (1 - self.since)))
        straight = (end - corner) / (1 - self.since)
        first = _wide(t == 0) if self.since else torch.zeros_like(_wide(t), dtype=torch.bool)
        target = torch.where(first, high - start, straight)
        return mse_loss(predict(torch.where(first, start, along), t, guide).float(), target)

    @torch.no_grad()
    def _way(self, start: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Where the teacher is at `since`, after one step, and at its end, after small ones."""
        now = start.new_ones(len(start))
        corner = start + self.since * self.teacher(start, 0 * now, guide).float() if self.since else start
        step, x = (1 - self.since) / self.teacher_steps, corner
        for i in range(self.teacher_steps):
            x = x + step * self.teacher(x, (self.since + i * step) * now, guide).float()
        return corner, x

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return self.flow.sample(predict, guide, noise, nfe, solver)


@dataclass(frozen=True)
class Decoded:
    """From any point of the flow's own way in steps of about a quarter, one more step to the end, judged decoded.

    Each velocity learns to point at a picture with the photograph's texture, so few steps lose no detail; what the
    flow's estimate of x1 is compared in, latents and pixels, follows LUA (arXiv 2511.10629). Half of the times are 0.
    With since above 0 the start goes on with CFM's loss: the first step stays the conditional mean, and with it a
    single evaluation. With since=0 the start is judged decoded too: then one evaluation has the texture.

    decode: latents (B,C,h,w) to pictures (B,3,8h,8w) in [-1,1], differentiable. pictures, latents: what counts in
    either; without the latents' mean and texture they drift to where this decoder's pictures are right and another's
    are not. window: side in latents, in the middle of each crop, of what is decoded, by far the dearest part.
    octave: so many noise steps more in the start let texture and lines count twice as much, so that a network that is
    told the noise has a dial from fidelity to detail; 0: they count alike.
    """

    flow: CouplingFlow
    decode: Callable[[Tensor], Tensor]
    pictures: Likeness
    latents: Likeness
    since: float = 0.25
    window: int = 16
    octave: float = 0.0

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Half of them 0, a quarter those of four Euler steps, a quarter from 1/8 to 7/8."""
        anywhere = 1 / 8 + 3 / 4 * torch.rand(count, generator=generator)
        fourths = torch.randint(1, 4, (count,), generator=generator) / 4
        which = torch.rand(count, generator=generator)
        return anywhere.where(which > 3 / 4, fourths).where(which > 1 / 2, 0.0)

    def loss(self, predict: Predict, examples: Examples) -> Tensor:
        high, guide, _, signal, noise, t = examples
        start = noise_augment(guide, signal, noise[:, 0])
        state = self._way(predict, start, guide, t)
        velocity = predict(state, t, guide).float()
        end = state + (1 - _wide(t)) * velocity
        first = (t == 0) & (self.since > 0)
        losses = (velocity - (high - start)).square().mean((1, 2, 3))
        if not first.all():
            judged = ~first
            unlikeness = self._unlikeness(end[judged], high[judged], self._texture(signal[judged]))
            losses = losses.index_put((judged,), unlikeness)
        return losses.mean()

    @torch.no_grad()
    def _way(self, predict: Predict, start: Tensor, guide: Tensor, t: Tensor) -> Tensor:
        """Where the flow is at times t (B,), each after equal Euler steps as near to a quarter as can be."""
        steps = (4 * t).round()
        x = start
        for i in range(int(steps.max())):
            left = (i < steps).to(x)
            length = t / steps.clamp(min=1) * left
            x = x + _wide(length) * predict(x, i * length, guide).float()
        return x

    def _texture(self, signal: Tensor) -> Tensor:
        """How much texture and lines count, (B,), 1 at the flow's own start."""
        if not self.octave:
            return torch.ones_like(signal)
        own = noise_step_of(torch.tensor(self.flow.alpha_bar))
        return 2 ** ((noise_step_of(signal) - own) / self.octave)

    def _unlikeness(self, end: Tensor, high: Tensor, texture: Tensor) -> Tensor:
        with torch.no_grad():
            truth = self.decode(self._middle(high)).float()
        pictures = self.pictures(self.decode(self._middle(end)).float(), truth, texture)
        return self.latents(end, high, texture) + pictures

    def _middle(self, latents: Tensor) -> Tensor:
        top, left = ((side - self.window) // 2 if side > self.window else 0 for side in latents.shape[-2:])
        return latents[..., top : top + self.window, left : left + self.window]

    def sample(self, predict: Predict, guide: Tensor, noise: Tensor, nfe: int, solver: str = "euler") -> Tensor:
        return self.flow.sample(predict, guide, noise, nfe, solver)
