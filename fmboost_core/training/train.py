"""From a recipe and shards to a trainer, and from what it learned to a model file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.kl import Decoder, open_codec
from ..errors import ConfigError
from ..families import FAMILIES
from ..files.checkpoint import load_model, save_model
from ..metrics.likeness import Likeness
from ..model import Model
from ..networks.conditioning import Conditioning
from ..networks.config import UNetConfig
from ..networks.unet import LatentUNet
from ..sampling.schedule import alpha_bar
from ..spec import ModelSpec
from .data.latents import LatentCrops, LatentSet
from .loop import Trainer, freeze
from .losses.objectives import (
    SIGNALS,
    CouplingFlow,
    Decoded,
    Diffusion,
    Examples,
    NaiveFlow,
    Objective,
    Predict,
    Reflow,
    Regression,
)
from .recipe import CONTINUING, ObjectiveRecipe, Recipe
from .start import start_from

Network = Callable[..., Tensor]
Decode = Callable[[Tensor], Tensor]  # latents to pictures, with gradients

# What counts in decoded pictures and in latents (objective "decoded"); found by measurement (docs/training-log.md).
PICTURES = Likeness(error=2.0, coarse=1.0, texture=6.0, lines=3.0, mean=250.0)
LATENTS = Likeness(error=0.3, texture=0.5, mean=10.0)

OTHER_STEPS = 0.6  # share of the starts of other noise steps than the recipe's own, where it has any


def told(network: Network, config: UNetConfig, kind: Tensor, alpha_bar: Tensor) -> Predict:
    """The network's prediction, with the guides' kinds (B,) and the starts' signals (B,) where it can be told."""
    kinds = kind if config.classes else None
    levels = (1 - alpha_bar).sqrt() if config.noise_level else None
    return lambda x, t, guide: network(x, t, Conditioning(guide, kinds, levels))


def make_objective(recipe: ObjectiveRecipe, teacher: Predict | None = None, decode: Decode | None = None) -> Objective:
    """The objective of a recipe. teacher: the flow that "reflow" straightens; decode: what "decoded" looks with."""
    flow = CouplingFlow(alpha_bar(recipe.noise_step), recipe.sigma_min, recipe.start_share)
    if recipe.name == "reflow":
        if teacher is None:
            raise ConfigError("The objective 'reflow' needs a teacher, the trained flow that it straightens.")
        return Reflow(flow, teacher, recipe.since, recipe.teacher_steps)
    if recipe.name == "decoded":
        if decode is None:
            raise ConfigError("The objective 'decoded' needs a decoder, which makes pictures of latents.")
        pictures = replace(
            PICTURES,
            coarse=recipe.coarse * PICTURES.coarse,
            texture=recipe.texture * PICTURES.texture,
            lines=recipe.texture * recipe.lines * PICTURES.lines,
            mean=recipe.mean * PICTURES.mean,
        )
        latents = replace(
            LATENTS, texture=recipe.latents * recipe.texture * LATENTS.texture, mean=recipe.latents * LATENTS.mean
        )
        return Decoded(flow, decode, pictures, latents, recipe.since, recipe.window, recipe.octave)
    made: dict[str, Objective] = {
        "cfm": flow, "fm": NaiveFlow(recipe.sigma_min, recipe.start_share), "l1": Regression(1), "l2": Regression(2),
        "dm": Diffusion(),
    }  # fmt: skip
    return made[recipe.name]


def objective_of(spec: ModelSpec) -> Objective:
    """How a finished model is sampled."""
    if spec.objective == "cfm":
        return CouplingFlow(spec.alpha_bar)
    return make_objective(ObjectiveRecipe(spec.objective))


@dataclass(frozen=True)
class Learning:
    """What a step of a recipe does: draws its examples, and says their loss under a network."""

    recipe: Recipe
    crops: LatentCrops
    teacher: LatentUNet | None = None
    decoder: Decoder | None = None

    def draw(self, batch: int, generator: torch.Generator) -> Examples:
        high, guide, kind = self.crops.draw(batch, generator)
        signal = self._signals(batch, generator)
        noise = torch.randn(batch, 2, *high.shape[1:], generator=generator)
        return Examples(high, guide, kind, signal, noise, self.objective(kind, signal).times(batch, generator))

    def loss(self, network: Network, *examples: Tensor) -> Tensor:
        parts = Examples(*examples)
        facts = parts.kind, parts.alpha_bar
        return self.objective(*facts).loss(told(network, self.recipe.network, *facts), parts)

    def objective(self, kind: Tensor, alpha_bar: Tensor) -> Objective:
        """The objective for guides of these kinds (B,) and starts of these signals, which a teacher is told too."""
        teacher = told(self.teacher, self.recipe.network, kind, alpha_bar) if self.teacher is not None else None
        return make_objective(self.recipe.objective, teacher, self.decoder)

    def _signals(self, batch: int, generator: torch.Generator) -> Tensor:
        """The signal kept in each start (B,): that of the noise step, or for most of them of any in the range."""
        own = self.recipe.objective.noise_step
        steps = torch.full((batch,), own)
        if self.recipe.objective.noise_steps:
            least, greatest = self.recipe.objective.noise_steps
            others = torch.randint(least, greatest + 1, (batch,), generator=generator)
            steps = others.where(torch.rand(batch, generator=generator) < OTHER_STEPS, own)
        return SIGNALS[steps]


def require_family(recipe: Recipe, data: LatentSet) -> None:
    """Refuse shards whose latents cannot be of the recipe's family."""
    if data.channels != recipe.network.channels:
        raise ConfigError(
            f"The shards hold latents of {data.channels} channels, but card.family = {recipe.card.family!r} has "
            f"{recipe.network.channels}; set card.family to what the shards' codec makes."
        )


def make_trainer(recipe: Recipe, data: LatentSet) -> tuple[Trainer[LatentUNet], Learning]:
    """A trainer at its first step, and what it trains on."""
    require_family(recipe, data)
    crops = LatentCrops(data, recipe.data.crop, recipe.data.shares, recipe.data.upsampling)
    torch.manual_seed(recipe.loop.seed)
    network = LatentUNet(recipe.network)
    if recipe.start.model:
        trained = load_model(recipe.start.model)
        if recipe.objective.name in CONTINUING:
            _require_flow(recipe, trained.spec)
        start_from(network, trained)
    teacher = deepcopy(network).requires_grad_(False) if recipe.objective.name == "reflow" else None
    freeze(network, recipe.start.frozen)
    decoder = _decoder(recipe) if recipe.objective.name == "decoded" else None
    learning = Learning(recipe, crops, teacher, decoder)
    facts = recipe.flat() | {"samples in the shards": len(data.samples), "scale": data.scale}
    trainer = Trainer(network, learning.draw, learning.loss, recipe.loop, recipe.data.batch, facts=facts)
    for helper in (teacher, decoder):
        if helper is not None:
            helper.to(trainer.host.device)
    return trainer, learning


def _decoder(recipe: Recipe) -> Decoder:
    """The decoder that the recipe names, if its latents have as many channels as the network's."""
    codec, channels = open_codec(recipe.objective.decoder), recipe.network.channels
    if codec.channels != channels:
        raise ConfigError(
            f"objective.decoder = {recipe.objective.decoder!r} is for latents of {codec.channels} channels, but "
            f"those of card.family = {recipe.card.family!r} have {channels}."
        )
    return Decoder(codec)


def _require_flow(recipe: Recipe, spec: ModelSpec) -> None:
    """Refuse a model that is no flow, one of another latent space, and a teacher whose way begins elsewhere.

    "decoded" learns its way anew, so that it may begin at another noise step.
    """
    step, family = recipe.objective.noise_step, recipe.card.family
    begins = step if recipe.objective.name == "reflow" else spec.noise_step
    if (spec.objective, spec.noise_step, spec.family) != ("cfm", begins, family):
        raise ConfigError(
            f"The objective {recipe.objective.name!r} goes on from a flow 'cfm' of card.family = {family!r} with "
            f"objective.noise_step = {step}, but {spec.name} is {spec.objective!r} of {spec.family!r} from "
            f"{spec.noise_step}."
        )


def finished(recipe: Recipe, network: LatentUNet, scale: int, name: str) -> Model:
    """What was learned as a model. The baselines say what they are, and so does every start."""
    family = FAMILIES[recipe.card.family]
    continued = recipe.objective.name in CONTINUING
    objective = "cfm" if continued else recipe.objective.name
    starts: Mapping[str, tuple[int, float]] = {"l1": (0, 1.0), "l2": (0, 1.0), "fm": (999, 0.0), "dm": (999, 0.0)}
    step, signal = starts.get(objective, (recipe.objective.noise_step, alpha_bar(recipe.objective.noise_step)))
    spec = ModelSpec(
        name=name, network=recipe.network, family=recipe.card.family, latent_factor=family.scaling_factor,
        latent_shift=family.shift, scale=scale, noise_step=step, alpha_bar=signal,
        noise_steps=recipe.objective.noise_steps or (step,),
        guide=recipe.data.upsampling, objective=objective, nfe=1 if continued and not recipe.objective.since else 4,
        license=recipe.card.license, trained_on=recipe.card.trained_on,
    )  # fmt: skip
    return Model(spec, network)


def write(model: Model, path: Path) -> None:
    """Write the model file in half precision."""
    save_model(model, path, torch.float16)
