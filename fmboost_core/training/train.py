"""From a recipe and shards to a trainer, and from trained weights to a model file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..codecs.kl import open_codec
from ..codecs.load import BUILTIN, load_codec
from ..codecs.protocol import codec_party
from ..codecs.tiny import TinyVAE, tiny_codec
from ..errors import ConfigError, FMBoostWarning, require
from ..families import FAMILIES, Party, require_same_family
from ..files.checkpoint import load_model, save_model
from ..model import Model
from ..networks import build_network
from ..sampling.schedule import alpha_bar
from ..spec import ModelSpec
from .data.crops import LatentCrops, PhotoCrops
from .data.latents import LatentSet, require_latents
from .guide import GuidedFlow, guided_flow
from .loop import Draw, Loss, Network, Trainer, placed
from .losses.codec import CodecPasses, codec_loss
from .losses.decoder import Decoder
from .losses.features import load_features
from .losses.perception import Perception
from .recipe import Recipe
from .sections import CONTINUING
from .start import freeze, start_from
from .task import TrainingTask

# (noise step, alpha_bar) of the baselines' starts, whatever the recipe says: the guide itself, or pure noise.
BASELINE_STARTS: Mapping[str, tuple[int, float]] = {
    "l1": (0, 1.0), "l2": (0, 1.0), "fm": (999, 0.0), "dm": (999, 0.0),
}  # fmt: skip


def require_family(recipe: Recipe, data: LatentSet) -> None:
    """Refuse shards whose latents cannot be of the recipe's family: a `LatentError`."""
    require_latents(data)
    advice = "set card.family to the family of the shards' codec"
    require_same_family(_party(recipe), Party("the set of shards", channels=data.channels, instead=advice))


def _party(recipe: Recipe) -> Party:
    return Party(f"the training with card.family = {recipe.card.family!r}", recipe.card.family)


def make_trainer(recipe: Recipe, data: LatentSet) -> tuple[Trainer[nn.Module], TrainingTask]:
    """A trainer at its first step, and what it trains on."""
    require_family(recipe, data)
    crops = LatentCrops(data, recipe.data.crop, recipe.data.shares, recipe.data.upsampling, recipe.objective.photos)
    torch.manual_seed(recipe.loop.seed)
    fast = recipe.data.upsampling == "fast"
    rule = "a guide network's file, a model with one, or a tiny VAE, for fast guides"
    require(not fast or bool(recipe.start.guide), "start.guide", recipe.start.guide, rule)
    require_twofold(recipe, data)
    network: nn.Module = guided_flow(recipe) if fast else build_network(recipe.network)
    if recipe.start.model:
        trained = load_model(recipe.start.model)
        if recipe.objective.name in CONTINUING:
            _require_flow(recipe, trained.spec)
        _warn_of_another_start(recipe, trained.spec)
        start_from(network.flow if isinstance(network, GuidedFlow) else network, trained)
    teacher = deepcopy(network).requires_grad_(False) if recipe.objective.name == "reflow" else None
    freeze(network, recipe.start.frozen)
    decoder = _decoder(recipe) if recipe.objective.name == "decoded" else None
    perception = perception_of(recipe) if recipe.objective.name == "decoded" else None
    if recipe.loop.compile and decoder is not None:
        decoder.compile()
    task = TrainingTask(recipe, crops, teacher, decoder, perception)
    facts = recipe.flat() | {"samples in the shards": len(data.samples), "scale": data.scale}
    trainer = perceived_trainer(network, task.draw, task.loss, recipe, facts, perception)
    for helper in (teacher, decoder):
        if helper is not None:
            placed(helper, trainer.host.device)
    return trainer, task


def perceived_trainer(
    network: Network, draw: Draw, loss: Loss, recipe: Recipe, facts: Mapping[str, Any], perception: Perception | None
) -> Trainer[Network]:
    """A trainer whose loss may ask features and critics, which then learn too."""
    critics = perception.critics if perception else None
    trainer = Trainer(network, draw, loss, recipe.loop, recipe.data.batch, facts=facts, critics=critics)
    if critics is not None:
        trainer.optimizer.register_step_post_hook(lambda *_: critics.follow_norms())
    if perception is not None:
        placed(perception, trainer.host.device)
        if recipe.loop.compile:
            perception.network.compile()
    return trainer


def make_codec_trainer(recipe: Recipe, data: LatentSet) -> Trainer[CodecPasses]:
    """A trainer of a tiny codec, whose teacher made the shards' latents."""
    require_family(recipe, data)
    crops = PhotoCrops(data, recipe.data.crop)
    torch.manual_seed(recipe.loop.seed)
    passes = CodecPasses(_codec_to_train(recipe, data.channels))
    facts = recipe.flat() | {"samples in the shards": len(data.samples)}
    return Trainer(passes, crops.draw, codec_loss, recipe.loop, recipe.data.batch, facts=facts)


def _codec_to_train(recipe: Recipe, channels: int) -> TinyVAE:
    """A fresh codec, or the one of our own that the recipe starts from."""
    start, family = recipe.start.model, recipe.card.family
    if start:
        rule = "builtin or a codec of FMBoost, which is one .safetensors file"
        require(start == BUILTIN or start.endswith(".safetensors"), "start.model", start, rule)
        return load_codec(start, family).train().requires_grad_()
    codec = tiny_codec(channels)
    codec.family = family
    return codec


def _decoder(recipe: Recipe) -> Decoder:
    """The decoder that the recipe names; `LatentError` where it is of another family."""
    codec = open_codec(recipe.objective.decoder, recipe.card.family)
    named = replace(codec_party(codec), what=f"objective.decoder = {recipe.objective.decoder!r}")
    require_same_family(_party(recipe), named)
    return Decoder(codec)


def require_twofold(recipe: Recipe, data: LatentSet) -> None:
    """Refuse `objective.small`, which compares at half the size, for another upscale factor than 2."""
    small = recipe.objective.small
    require(not small or data.scale == 2, "objective.small", small, f"0 for shards of upscale factor {data.scale:g}")


def perception_of(recipe: Recipe) -> Perception | None:
    """The features and critics that the recipe gives a weight."""
    o = recipe.objective
    if not (o.features or o.critics or o.small):
        return None
    return Perception(load_features(o.network), o.features, o.critics, o.informed, o.small)


def _require_flow(recipe: Recipe, spec: ModelSpec) -> None:
    """Refuse a model that is no flow, is of another latent space, or as a teacher starts at another noise step.

    "decoded" trains the whole trajectory, so it may start at another noise step.
    """
    step, family = recipe.objective.noise_step, recipe.card.family
    expected = step if recipe.objective.name == "reflow" else spec.noise_step
    if (spec.objective, spec.noise_step, spec.family) != ("cfm", expected, family):
        raise ConfigError(
            f"The objective {recipe.objective.name!r} continues from a flow 'cfm' of card.family = {family!r} with "
            f"objective.noise_step = {step}, but {spec.name} is {spec.objective!r} of {spec.family!r} with noise step "
            f"{spec.noise_step}."
        )


def _warn_of_another_start(recipe: Recipe, spec: ModelSpec) -> None:
    """Warn if the training starts at another noise step than the model: a recipe's default does so unasked."""
    step = recipe.objective.noise_step
    flows = spec.objective == "cfm" and recipe.objective.name in ("cfm", *CONTINUING)
    if flows and step != spec.noise_step:
        warnings.warn(
            f"{spec.name} starts at noise step {spec.noise_step}, and this training at {step}; set "
            f"objective.noise_step to {spec.noise_step} to keep the model's.",
            FMBoostWarning,
            stacklevel=3,
        )


def finished(recipe: Recipe, network: nn.Module, scale: int, name: str) -> Model:
    """The trained network as a model. Its specification names the baseline, or the start of the flow."""
    family = FAMILIES[recipe.card.family]
    flow, guide = (network.flow, network.guide) if isinstance(network, GuidedFlow) else (network, None)
    continued = recipe.objective.name in CONTINUING
    objective = "cfm" if continued else recipe.objective.name
    own = (recipe.objective.noise_step, alpha_bar(recipe.objective.noise_step))
    step, signal = BASELINE_STARTS.get(objective, own)
    spec = ModelSpec(
        name=name, network=recipe.network, family=recipe.card.family, latent_factor=family.scaling_factor,
        latent_shift=family.shift, scale=scale, noise_step=step, alpha_bar=signal,
        noise_steps=recipe.objective.noise_steps or (step,),
        guide=recipe.data.upsampling, objective=objective, nfe=recipe.card.nfe,
        strength=recipe.card.strength,
        fast=None if guide is None else guide.config,
        license=recipe.card.license, trained_on=recipe.card.trained_on,
    )  # fmt: skip
    return Model(spec, flow, guide)


def write(model: Model, path: Path) -> None:
    """Write the model file in half precision."""
    save_model(model, path, torch.float16)
