"""A network begins with the weights of a trained one: newly told something, of another latent space, or wider.

A wider one is grown (after Net2Net, Chen et al., arXiv 1511.05641): the old channels stay what they were, and read
nothing of the new ones. The new ones read everything at random, with little weight, so that there is something to learn
from; what they do to the norms is all that the wider network says otherwise, some percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from ..files.weight_file import require_fit
from ..model import Model
from ..networks.config import UNetConfig
from ..networks.unet import LatentUNet

_LATENT_LAYERS = ("input_blocks.0.", "out.2.")  # the layers whose shapes depend on the latent's channels
_SINUSOIDS = ("time_embed.0.weight", "noise_embed.0.weight")  # layers that read a `blocks.time_embedding`
_NEW = 0.5  # variance of what new channels hold, where what they read has 1


def start_from(network: LatentUNet, model: Model) -> None:
    """Give a network the weights of a trained one, of another latent space or narrower perhaps.

    What has no counterpart there stays new: the embeddings of a guide's kind and of the noise level (zero), and, where
    the latents have another number of channels, the first and the last layer. One that is not told the noise level any
    more stays at that of the model's own start. Raises `ConfigError` for widths, `CheckpointError` for other forms.
    """
    before, now = model.spec.network, network.config
    assert isinstance(before, UNetConfig)
    if now.base != before.base:
        _require_growth(before, now)
        narrow = LatentUNet(replace(now, base=before.base))
        start_from(narrow, model)
        network.load_state_dict(_grown(narrow, network))
        return
    weights = _untold(model) if before.noise_level and not now.noise_level else model.network.state_dict()
    if now.noise_level and not before.noise_level:
        weights |= {name: w for name, w in network.state_dict().items() if name.startswith("noise_embed.")}
    if now.classes and not before.classes:
        weights["label_emb.weight"] = torch.zeros_like(network.label_emb.weight)
    if now.channels != before.channels:
        weights |= {name: w for name, w in network.state_dict().items() if name.startswith(_LATENT_LAYERS)}
    require_fit(Path(model.spec.name), network, {name: tuple(w.shape) for name, w in weights.items()})
    network.load_state_dict(weights)


@torch.no_grad()
def _untold(model: Model) -> dict[str, Tensor]:
    """The weights of a network that is told the noise level, without: that of the model's start is in the time's."""
    level = torch.tensor([math.sqrt(1 - model.spec.alpha_bar)])
    assert isinstance(model.network, LatentUNet)
    embedded = model.network.embedded_noise(level, torch.float32)[0]
    weights = {k: w for k, w in model.network.state_dict().items() if not k.startswith("noise_embed.")}
    return weights | {"time_embed.2.bias": weights["time_embed.2.bias"] + embedded}


# --- wider


def _require_growth(narrow: UNetConfig, wide: UNetConfig) -> None:
    """Refuse what cannot be grown: anything but a wider network of the same form, with norms by position."""
    if narrow.norm != "channel" or narrow.has_attention or wide.base < narrow.base:
        raise ConfigError(
            f"network.base = {wide.base} cannot begin from a trained network of {narrow.base}: only networks of "
            "norm 'channel' without attention can be given more channels, and none less."
        )


@torch.no_grad()
def _grown(narrow: LatentUNet, wide: LatentUNet) -> dict[str, Tensor]:
    """The wider network's weights, its random ones drawn from torch's generator."""
    old, joined = narrow.state_dict(), _joined(narrow.config)
    ratio = wide.config.base / narrow.config.base
    new = {}
    for name, weight in wide.state_dict().items():
        block = ".".join(name.split(".")[:3])
        reads_joined = name.endswith(("in_layers.0.weight", "in_layers.2.weight", "skip_connection.weight"))
        new[name] = _grown_parameter(name, old[name], weight, ratio, joined.get(block, ()) if reads_joined else ())
    return new


def _joined(config: UNetConfig) -> dict[str, tuple[int, int]]:
    """The widths that each decoder block reads side by side: what comes up, and the skip connection."""
    c = config
    skips, width = [c.base], c.base
    for level, multiplier in enumerate(c.multipliers):
        width = multiplier * c.base
        skips += [width] * (c.res_blocks + (level < len(c.multipliers) - 1))
    joined: dict[str, tuple[int, int]] = {}
    for multiplier in reversed(c.multipliers):
        for _ in range(c.res_blocks + 1):
            joined[f"output_blocks.{len(joined)}.0"] = (width, skips.pop())
            width = multiplier * c.base
    return joined


def _grown_parameter(name: str, old: Tensor, fresh: Tensor, ratio: float, parts: Sequence[int]) -> Tensor:
    """One parameter. parts: widths that it reads side by side, each of which grows for itself."""
    if name in _SINUSOIDS:
        old = _at_frequencies(old, fresh.shape[1])
    new = torch.zeros_like(fresh)
    halves = [len(old) // 2] * 2 if "emb_layers" in name else []  # scales, then shifts
    if new.ndim == 1:
        place = _places(len(old), ratio, parts or halves) if len(new) > len(old) else slice(None)
        if _is_gain(name):  # the norm is over more channels, of which the old ones are a smaller part
            new.fill_(1)
            old = old / ratio**0.5
        new[place] = old
        return new
    rows = _places(len(old), ratio, halves) if len(new) > len(old) else torch.arange(len(old))
    columns = _places(old.shape[1], ratio, parts) if new.shape[1] > old.shape[1] else torch.arange(old.shape[1])
    # What a residual block adds, and what a layer of classes says, is nothing in the new channels.
    if len(new) > len(old) and "out_layers" not in name and "emb_layers" not in name:
        new.normal_(0, (_NEW / new[0].numel()) ** 0.5)
    new[rows] = 0
    new[rows[:, None], columns[None]] = old
    return new


def _is_gain(name: str) -> bool:
    return name.endswith(("in_layers.0.weight", "out_layers.0.weight")) or name == "out.0.weight"


def _places(width: int, ratio: float, parts: Sequence[int] = ()) -> Tensor:
    """Where old channels are among the new ones: at the beginning of each part."""
    places, start = [], 0
    for part in parts or [width]:
        places.append(start + torch.arange(part))
        start += round(part * ratio)
    return torch.cat(places)


def _at_frequencies(weight: Tensor, width: int) -> Tensor:
    """Weights of `blocks.time_embedding`'s cosines and sines for a wider one, whose frequencies lie closer together."""
    cosines_and_sines = weight.chunk(2, dim=1)
    old, new = weight.shape[1] // 2, width // 2
    wider = weight.new_zeros(len(weight), 2, new)
    for i in range(old):
        below, share = divmod(i * new / old, 1)
        for k, part in enumerate(cosines_and_sines):
            wider[:, k, int(below)] += (1 - share) * part[:, i]
            if share:
                wider[:, k, int(below) + 1] += share * part[:, i]
    return wider.flatten(1)
