"""The network before the first step: weights of a trained model, and parameters that do not train."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..files.weight_file import require_fit
from ..model import Model
from ..networks.conditioning import GUIDE_KINDS, class_of
from ..networks.unet import LatentUNet
from .widen import require_wider, widened

_LATENT_LAYERS = ("input_blocks.0.", "out.2.")  # the layers whose shapes depend on the latent's channels


def start_from(network: nn.Module, model: Model) -> None:
    """Load the weights of a trained model into a network. A U-Net may be wider, or of another latent space.

    Layers without a counterpart in the model stay fresh: the embedding of the noise level, and, where the latents have
    another number of channels, the first and the last layer. New embeddings of what the guide was made from are those
    of what it counted as before (`class_of`), or zero. A network that is no longer conditioned on the noise level keeps
    the level of the model's own start. A wider network is `widened`. Raises `ConfigError` for other widths,
    `CheckpointError` for other architectures.
    """
    if not isinstance(network, LatentUNet) or not isinstance(model.network, LatentUNet):
        _load(network, model.network.state_dict(), model)
        return
    before, now = model.network.config, network.config
    if now.base != before.base:
        require_wider(before, now)
        narrow = LatentUNet(replace(now, base=before.base))
        start_from(narrow, model)
        network.load_state_dict(widened(narrow, network))
        return
    drops_level = before.noise_level and not now.noise_level
    weights = _without_noise_level(model) if drops_level else model.network.state_dict()
    if now.noise_level and not before.noise_level:
        weights |= {name: w for name, w in network.state_dict().items() if name.startswith("noise_embed.")}
    if now.classes > before.classes:
        weights["label_emb.weight"] = _with_new_classes(weights.get("label_emb.weight"), network.label_emb.weight)
    if now.channels != before.channels:
        weights |= {name: w for name, w in network.state_dict().items() if name.startswith(_LATENT_LAYERS)}
    _load(network, weights, model)


def _load(network: nn.Module, weights: Mapping[str, Tensor], model: Model) -> None:
    require_fit(Path(model.spec.name), network, {name: tuple(w.shape) for name, w in weights.items()})
    network.load_state_dict(weights)


@torch.no_grad()
def _without_noise_level(model: Model) -> dict[str, Tensor]:
    """The weights without the embedding of the noise level; the time's bias takes over that of the model's start."""
    level = torch.tensor([math.sqrt(1 - model.spec.alpha_bar)])
    assert isinstance(model.network, LatentUNet)
    embedded = model.network.embedded_noise(level, torch.float32)[0]
    weights = {k: w for k, w in model.network.state_dict().items() if not k.startswith("noise_embed.")}
    return weights | {"time_embed.2.bias": weights["time_embed.2.bias"] + embedded}


def _with_new_classes(old: Tensor | None, fresh: Tensor) -> Tensor:
    """The embedding with as many classes as `fresh` has."""
    if old is None:
        return torch.zeros_like(fresh)
    return torch.stack([old[class_of(kind, len(old))] for kind in GUIDE_KINDS[: len(fresh)]])


def freeze(network: nn.Module, prefixes: Sequence[str]) -> None:
    """Exclude the parameters whose names have one of the prefixes from training.

    Raises `ConfigError` for a prefix that no parameter has.
    """
    for prefix in prefixes:
        found = [p for name, p in network.named_parameters() if name.startswith(prefix)]
        if not found:
            parts = ", ".join(name for name, _ in network.named_children())
            raise ConfigError(f"start.frozen: no parameter's name begins with {prefix!r}; the parts are {parts}.")
        for parameter in found:
            parameter.requires_grad_(False)
