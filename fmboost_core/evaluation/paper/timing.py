"""The study "timing": seconds of each part by resolution, beside Stable Diffusion 1.5's network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ...codecs.protocol import Codec
from ...files.checkpoint import load_model
from ...model import Model
from ...sampling.guide import pixel_upsample
from ..output import write_text
from .setup import AblationSetup

SIZES = (256, 512, 1024)


def timing(setup: AblationSetup) -> None:
    """Write OUT/timing.md."""
    lite = load_model("sd15-x2")
    generator = _diffusion_network()
    head = ["part", *(f"{size} px" for size in SIZES)]
    lines: dict[str, list[str]] = {}
    for size in SIZES:
        base = 0.0
        for part, run in _parts(size, setup.codec, lite, generator).items():
            seconds = _median_seconds(run, 1 if part.startswith("Stable") else 3)
            base = base or seconds
            lines.setdefault(part, []).append(f"{seconds:.2f} s ({seconds / base:.2g})")
    rows = "\n".join(f"| {part} | {' | '.join(cells)} |" for part, cells in lines.items())
    missing = "" if generator else "\n\nStable Diffusion's network is missing: it needs diffusers (fmboost[others])."
    text = (
        "# timing\n\nHow long does each part take, by the size of the result? Paper: Fig. 1.\n\nOn "
        f"{torch.get_num_threads()} CPU thread(s), fp32, batch 1, medians of 3 (one run of Stable Diffusion). In "
        "parentheses: the ratio to one evaluation of `lite`, which is what compares. Stable Diffusion 1.5's network "
        "has random weights, which take as long as trained ones.\n\n"
        f"| {' | '.join(head)} |\n|{' --- |' * len(head)}\n{rows}\n{missing}"
    )
    write_text(setup.out / "timing.md", text)


def _parts(size: int, codec: Codec, lite: Model, generator: Any) -> dict[str, Callable[[], Any]]:
    side = size // codec.downscale_factor
    latent, low = torch.randn(1, codec.channels, side, side), torch.randn(1, codec.channels, side // 2, side // 2)
    parts: dict[str, Callable[[], Any]] = {
        "one evaluation of lite": lambda: lite.velocity(latent, 0.5, lite.conditioning(latent)),
        "the guide (decode small, encode large)": lambda: pixel_upsample(low, codec, (size, size)),
        "decode the result": lambda: codec.decode(latent),
    }
    if generator is not None:
        words, text = torch.tensor([500]), torch.randn(1, 77, 768)
        parts["Stable Diffusion 1.5, one evaluation at this size"] = lambda: generator(latent, words, text)
        parts["Stable Diffusion 1.5, one evaluation at half the size"] = lambda: generator(low, words, text)
    return parts


def _diffusion_network() -> Any:
    """Stable Diffusion 1.5's U-Net as diffusers builds it, 860M random parameters; None without diffusers."""
    try:
        from diffusers import UNet2DConditionModel
    except ImportError:
        return None
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    unet: Any = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8,
        down_block_types=down, up_block_types=up,
    )  # fmt: skip
    return unet.eval()


@torch.no_grad()
def _median_seconds(run: Callable[[], Any], repeats: int) -> float:
    if repeats > 1:
        run()  # the first run allocates
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
