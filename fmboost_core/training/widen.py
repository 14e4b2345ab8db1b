"""Widening of a trained network: more channels, nearly the same function.

After Net2Net (Chen et al., arXiv 1511.05641). Old channels keep their weights and read nothing from new ones. New
channels read everything with small random weights, so that there is something to learn from. They only change the
norms, by which the wider network's output differs from the narrower one's by some percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from ..networks.config import UNetConfig
from ..networks.unet import LatentUNet

_SINUSOIDS = ("time_embed.0.weight", "noise_embed.0.weight")  # layers that read a `blocks.time_embedding`
_NEW = 0.5  # variance of the new channels' values where their inputs have variance 1


def require_wider(narrow: UNetConfig, wide: UNetConfig) -> None:
    """Refuse all but a wider network with the norm of each position's own channels, without attention."""
    if narrow.norm != "channel" or narrow.has_attention or wide.base < narrow.base:
        raise ConfigError(
            f"network.base = {wide.base} cannot begin from a trained network of {narrow.base}: only networks of "
            "norm 'channel' without attention can be given more channels, and none fewer."
        )


@torch.no_grad()
def widened(narrow: LatentUNet, wide: LatentUNet) -> dict[str, Tensor]:
    """The weights of the wider network; new random ones come from torch's global generator."""
    old, joined = narrow.state_dict(), _joined(narrow.config)
    ratio = wide.config.base / narrow.config.base
    new = {}
    for name, weight in wide.state_dict().items():
        block = ".".join(name.split(".")[:3])
        reads_joined = name.endswith(("in_layers.0.weight", "in_layers.2.weight", "skip_connection.weight"))
        new[name] = _widened_parameter(name, old[name], weight, ratio, joined.get(block, ()) if reads_joined else ())
    return new


def _joined(config: UNetConfig) -> dict[str, tuple[int, int]]:
    """The two widths that each decoder block concatenates: its predecessor's and the skip connection's."""
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


def _widened_parameter(name: str, old: Tensor, fresh: Tensor, ratio: float, parts: Sequence[int]) -> Tensor:
    """One parameter, widened. parts: widths that it reads concatenated; each is widened by itself."""
    if name in _SINUSOIDS:
        old = _at_frequencies(old, fresh.shape[1])
    new = torch.zeros_like(fresh)
    halves = [len(old) // 2] * 2 if "emb_layers" in name else []  # scales, then shifts
    if new.ndim == 1:
        place = _places(len(old), ratio, parts or halves) if len(new) > len(old) else slice(None)
        if _is_gain(name):  # the norm is over more channels, and the old ones are a smaller part of them
            new.fill_(1)
            old = old / ratio**0.5
        new[place] = old
        return new
    rows = _places(len(old), ratio, halves) if len(new) > len(old) else torch.arange(len(old))
    columns = _places(old.shape[1], ratio, parts) if new.shape[1] > old.shape[1] else torch.arange(old.shape[1])
    # Residual blocks and embeddings add nothing to new channels.
    if len(new) > len(old) and "out_layers" not in name and "emb_layers" not in name:
        new.normal_(0, (_NEW / new[0].numel()) ** 0.5)
    new[rows] = 0
    new[rows[:, None], columns[None]] = old
    return new


def _is_gain(name: str) -> bool:
    return name.endswith(("in_layers.0.weight", "out_layers.0.weight")) or name == "out.0.weight"


def _places(width: int, ratio: float, parts: Sequence[int] = ()) -> Tensor:
    """The indices of the old channels in the new ones: at the beginning of each part."""
    places, start = [], 0
    for part in parts or [width]:
        places.append(start + torch.arange(part))
        start += round(part * ratio)
    return torch.cat(places)


def _at_frequencies(weight: Tensor, width: int) -> Tensor:
    """Weights for a wider `blocks.time_embedding`, whose frequencies lie closer together, by linear interpolation."""
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
