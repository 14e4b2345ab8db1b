"""The parts of upscaling a latent, each measured alone: guides, upscale model, evaluation, decoding, restoring."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..files.locate import latent_upscale_model
from ..files.upscale_model import load_upscale_model
from ..imaging.resample import resize
from ..sampling.fast_guide import fast_guide
from ..sampling.guide import pixel_upsample
from ..sampling.restore import back_projected
from ..sampling.upscale_model import UpscaleModel, enlarged
from .device import Tools

Work = Callable[[], Tensor]


def parts(tools: Tools, start: int, side: int) -> dict[str, Work]:
    """The parts by name, for a latent of a square of `start` pixels that becomes one of `side`; noise stands for it.

    Sides are multiples of the downscale factor. "fast guide" is there with a model that has a guide network.
    "upscale model" is the family's bundled one.
    """
    model, codec, unit = tools.model, tools.codec, tools.codec.downscale_factor
    small, large = (_noise(codec.channels, length // unit, tools) for length in (start, side))
    seen, made = (_noise(3, length, tools).clamp(-1, 1) for length in (start, side))
    conditioning, size = model.conditioning(large), (side // unit, side // unit)

    @cache
    def enlarger() -> UpscaleModel:
        """Loaded for its own part alone, so that it counts in no other's memory."""
        return load_upscale_model(latent_upscale_model(model.spec.family), tools.device, model.dtype)

    works: dict[str, Work] = {
        "interpolated guide": lambda: resize(small, size),
        "psu guide": lambda: pixel_upsample(small, codec, (side, side)),
        "upscale model": lambda: enlarged(seen, (side, side), enlarger()),
        "evaluation": lambda: model.velocity(large, 0.0, conditioning),
        "decoding": lambda: codec.decode(large),
        "decoding small": lambda: codec.decode(small),
        "restoring": lambda: back_projected(made, seen),
    }
    guide = model.guide
    if guide is not None:
        works["fast guide"] = lambda: fast_guide(guide, small, size)
    return {name: torch.no_grad()(work) for name, work in works.items()}


def part_names(has_guide: bool) -> list[str]:
    """The names of the parts, in the order in which they are shown."""
    fast = ["fast guide"] if has_guide else []
    return [
        "interpolated guide", *fast, "psu guide", "upscale model", "evaluation", "decoding", "decoding small",
        "restoring",
    ]  # fmt: skip


def flop_of(work: Work) -> int:
    """FLOP of the convolutions and products of a work, counted while it runs; a multiply-add counts as 2."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _noise(channels: int, side: int, tools: Tools) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randn(1, channels, side, side, generator=generator).to(tools.device)
