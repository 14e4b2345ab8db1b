"""What a training step of a recipe draws, and its loss under a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..networks import NetworkConfig
from ..networks.conditioning import GUIDE_KINDS, Conditioning, class_of
from .data.crops import LatentCrops
from .losses import make_objective
from .losses.decoded import Decoded
from .losses.decoder import Decoder
from .losses.diffusion import SIGNALS
from .losses.hashed import random_bits, windows
from .losses.objective import Examples, Objective, Predict
from .losses.perception import Perception
from .recipe import Recipe

Network = Callable[..., Tensor]

PARTS = 0x6A17  # tells the bits that place a part of a crop from others of the same seed
OTHER_STEPS = 0.6  # share of crops that start at another noise step than the recipe's own, where it has a range


def classes_of(kind: Tensor, classes: int) -> Tensor:
    """`class_of` for indices into `GUIDE_KINDS` (B,), without a value that a GPU would have to wait for."""
    for index, name in enumerate(GUIDE_KINDS):
        kind = kind.masked_fill(kind == index, class_of(name, classes)) if index >= classes else kind
    return kind


def conditioned(network: Network, config: NetworkConfig, kind: Tensor, alpha_bar: Tensor) -> Predict:
    """A network's prediction as a function of state, time and guide, with the rest of its conditioning bound.

    kind: what the guides were made from (B,), indices into `GUIDE_KINDS`. alpha_bar: signal kept in the starts (B,).
    A network that is not conditioned on one of them does not get it.
    """
    kinds = classes_of(kind, config.classes) if config.classes else None
    levels = (1 - alpha_bar).sqrt() if config.noise_level else None
    return lambda x, t, guide: network(x, t, Conditioning(guide, kinds, levels))


@dataclass(frozen=True)
class TrainingTask:
    """A recipe's crops and objective. teacher: of "reflow"; decoder, perception: of "decoded"."""

    recipe: Recipe
    crops: LatentCrops
    teacher: nn.Module | None = None
    decoder: Decoder | None = None
    perception: Perception | None = None

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The examples of a step, all of them from one generator: the fields of `Examples`.

        With fast guides the small latents follow (B,C,h/scale,w/scale), and the guide is still PSU's.
        """
        high, guide, kind, real, low = self.crops.draw(batch, generator)
        signal = self._signals(batch, generator)
        noise = torch.randn(batch, 2, *high.shape[1:], generator=generator)
        times = self.objective(kind, signal).times(batch, generator)
        seed = torch.randint(2**31, (batch,), generator=generator)
        drawn = Examples(high, guide, kind, signal, noise, times, seed, real)
        return drawn if low is None else (*drawn, low)

    def loss(self, network: Network, *drawn: Tensor) -> Tensor:
        """The mean loss; drawn: what `draw` returns, whole or the same items of each."""
        examples, psu = self.with_guides(network, *drawn)
        objective = self.objective(examples.kind, examples.alpha_bar)
        anchor: Tensor | float = 0.0
        if psu is not None:
            anchor = self.recipe.objective.anchor * mse_loss(examples.guide, psu)
            objective = replace(objective, shown=psu) if isinstance(objective, Decoded) else objective
        return objective.loss(self.predict(network, examples.kind, examples.alpha_bar), examples) + anchor

    def with_guides(self, network: Network, *drawn: Tensor) -> tuple[Examples, Tensor | None]:
        """The examples of what `draw` returned, with the network's own guides where those are fast, and PSU's then.

        The guide network sees whole crops, the flow a part of each.
        """
        if len(drawn) == len(Examples._fields):
            return Examples(*drawn), None
        *others, low = drawn
        examples = Examples(*others)
        psu = examples.guide
        made = network(low, size=(psu.shape[-2], psu.shape[-1])).float()
        side = self.recipe.data.part or psu.shape[-1]
        corners = random_bits(examples.seed ^ PARTS, 2) % (psu.shape[-1] - side + 1)
        high, real, made, psu = (windows(x, corners, (side, side)) for x in (examples.high, examples.real, made, psu))
        noise = examples.noise[..., :side, :side]
        return examples._replace(high=high, guide=made, noise=noise, real=real), psu

    def predict(self, network: Network, kind: Tensor, alpha_bar: Tensor) -> Predict:
        """`conditioned`, for a network of this recipe."""
        return conditioned(network, self.recipe.network, kind, alpha_bar)

    def objective(self, kind: Tensor, alpha_bar: Tensor) -> Objective:
        """The objective; kind and alpha_bar (B,) condition the teacher too, if there is one."""
        teacher = None if self.teacher is None else self.predict(self.teacher, kind, alpha_bar)
        return make_objective(self.recipe.objective, teacher, self.decoder, self.perception)

    def _signals(self, batch: int, generator: torch.Generator) -> Tensor:
        """The signal kept in each start (B,): at the recipe's noise step, or for most at any step of its range."""
        own = self.recipe.objective.noise_step
        steps = torch.full((batch,), own)
        if self.recipe.objective.noise_steps:
            least, greatest = self.recipe.objective.noise_steps
            others = torch.randint(least, greatest + 1, (batch,), generator=generator)
            steps = others.where(torch.rand(batch, generator=generator) < OTHER_STEPS, own)
        return SIGNALS[steps]
