"""Statistics of a model's latents against the reference latents, by channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..model import Model
from ..sampling.guide import pixel_upsample
from ..sampling.upscaler import boost
from .photographs import EvaluationConfig, prepare

LatentPairs = list[tuple[Tensor, Tensor]]  # a method's latents and their references, each (1,C,h,w)


@torch.no_grad()
def latent_pairs(
    model: Model,
    codec: Codec,
    photos: Sequence[Path],
    config: EvaluationConfig,
    nfes: Sequence[int],
    progress: Callable[[int, int], None],
) -> dict[str, LatentPairs]:
    """The latents of the guide and of the model at each NFE. progress(done, total) counts photographs."""
    pairs: dict[str, LatentPairs] = {"guide": [], **{f"nfe {nfe}": [] for nfe in nfes}}
    for done, path in enumerate(photos, start=1):
        photo = prepare(path, codec, config)
        pairs["guide"].append((pixel_upsample(photo.low, codec, photo.size), photo.latent))
        for nfe in nfes:
            pairs[f"nfe {nfe}"].append((boost(photo.low, model, codec, scale=config.scale, nfe=nfe), photo.latent))
        progress(done, len(photos))
    return pairs


def channel_statistics(pairs: Mapping[str, LatentPairs]) -> str:
    """A table of methods: each channel's mean minus the reference's, and its standard deviation over the reference's.

    Both are means over all pairs.
    """
    channels = next(iter(pairs.values()))[0][0].shape[1]
    heads = [f"mean {c}" for c in range(channels)] + [f"std {c}" for c in range(channels)]
    lines = [f"| method | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for method, found in pairs.items():
        shift = torch.stack([(made - reference).mean((0, 2, 3)) for made, reference in found]).mean(0)
        ratio = torch.stack([made.std((0, 2, 3)) / reference.std((0, 2, 3)) for made, reference in found]).mean(0)
        cells = [f"{value:+.4f}" for value in shift.tolist()] + [f"{value:.4f}" for value in ratio.tolist()]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
