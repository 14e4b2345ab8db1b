"""The study "timing": seconds of each part by the size of the image, beside Stable Diffusion 1.5's network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ...codecs.protocol import Codec
from ...errors import MissingDependencyError
from ...files.checkpoint import load_model
from ...model import Model
from ...sampling.fast_guide import fast_guide
from ...sampling.guide import pixel_upsample
from ..output import write_text
from ..plots import curve
from ..statistics import Interval
from .setup import AblationSetup

SIZES = (256, 512, 1024)  # of the result, in pixels
REPEATS = 3
STEPS = 25  # of the diffusion model, each of two evaluations: with and without the prompt
SECOND_PASS = 0.5  # share of the steps that a second pass of the diffusion model repeats at the large size

Work = Callable[[], Any]
Seconds = Mapping[str, float]
LARGE, HALF = "Stable Diffusion's network at this size", "Stable Diffusion's network at half the size"
GUIDE, EVALUATION = "`sd15-x2`: guide", "`sd15-x2`: one evaluation"
DIRECT, DECODING = "`sd15-x2-direct`: guide and evaluation", "decoding"


def timing(setup: AblationSetup) -> None:
    """Write OUT/timing.md and OUT/timing.png. Raises `MissingDependencyError` without diffusers."""
    network = _diffusion_network()
    models = load_model("sd15-x2"), load_model("sd15-x2-direct")
    measured: dict[int, Seconds] = {}
    for size in SIZES:
        setup.report(f"timing: {size} px")
        works = parts(size, setup.codec, models, network)
        measured[size] = {part: median_seconds(work, REPEATS) for part, work in works.items()}
    ways = {size: whole_ways(seconds) for size, seconds in measured.items()}
    names = list(ways[SIZES[0]])
    series = {name.replace("`", ""): [_exactly(ways[size][name]) for size in SIZES] for name in names}
    curve(setup.out / "timing.png", SIZES, series, x_label="size of the image, pixels", y_label="seconds", log_x=True)
    text = (
        "# timing\n\nHow long does an image take, by its size? Paper: Fig. 1.\n\nOn "
        f"{torch.get_num_threads()} CPU thread(s), fp32, one image, medians of {REPEATS}. Stable Diffusion 1.5's "
        "network has random weights, which take as long as trained ones. The guide and decoding are by the codec "
        f"{Path(setup.codec_name).name}. In parentheses: the ratio to one evaluation of `sd15-x2`.\n\n"
        f"{_table('part', measured, EVALUATION)}\n"
        f"Whole images, by the sums of their parts: {STEPS} steps with guidance, which are {2 * STEPS} evaluations, at "
        "this size or at half of it, then the upscaler, then decoding. A second pass repeats "
        f"{SECOND_PASS:.0%} of the steps at this size. In parentheses: the ratio to all steps at this size.\n\n"
        f"{_table('way', ways, names[0])}\n![Seconds of a whole image by its size](timing.png)\n"
    )
    write_text(setup.out / "timing.md", text)


def parts(size: int, codec: Codec, models: tuple[Model, Model], network: Callable[..., Any]) -> dict[str, Work]:
    """The parts of an image of `size` pixels, which come from latents of half the size; noise stands for all latents.

    models: one whose guide is PSU's and one with a guide network.
    """
    flow, direct = models
    side = size // codec.downscale_factor
    latent, low = torch.randn(1, codec.channels, side, side), torch.randn(1, codec.channels, side // 2, side // 2)
    step, text = torch.tensor([500]), torch.randn(1, 77, 768)

    def from_latent_to_latent() -> Any:
        assert direct.guide is not None
        guide = fast_guide(direct.guide, low, (side, side))
        return direct.velocity(guide, 0.0, direct.conditioning(guide))

    return {
        LARGE: lambda: network(latent, step, text),
        HALF: lambda: network(low, step, text),
        GUIDE: lambda: pixel_upsample(low, codec, (size, size)),
        EVALUATION: lambda: flow.velocity(latent, 0.0, flow.conditioning(latent)),
        DIRECT: from_latent_to_latent,
        DECODING: lambda: codec.decode(latent),
    }  # fmt: skip


def whole_ways(seconds: Seconds) -> dict[str, float]:
    """The seconds of a whole image in four ways, from those of its parts."""
    evaluations, decoding = 2 * STEPS, seconds[DECODING]
    half = evaluations * seconds[HALF] + decoding
    return {
        "all steps at this size": evaluations * seconds[LARGE] + decoding,
        "half the size, and a second pass": half + SECOND_PASS * evaluations * seconds[LARGE],
        "half the size, and `sd15-x2`": half + seconds[GUIDE] + seconds[EVALUATION],
        "half the size, and `sd15-x2-direct`": half + seconds[DIRECT],
    }


def _exactly(value: float) -> Interval:
    return Interval(value, value, value, 1)


def _table(what: str, measured: Mapping[int, Seconds], base: str) -> str:
    """A table of seconds by size, each with its ratio to those of the row `base`."""
    lines = [
        f"| {what} | " + " | ".join(f"{size} px" for size in measured) + " |",
        "| --- |" + " ---: |" * len(measured),
    ]
    for row in next(iter(measured.values())):
        cells = (f"{seconds[row]:.2f} ({seconds[row] / seconds[base]:.2g})" for seconds in measured.values())
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _diffusion_network() -> Callable[..., Any]:
    """Stable Diffusion 1.5's U-Net as diffusers builds it, 860M random parameters."""
    try:
        from diffusers import UNet2DConditionModel
    except ImportError:
        raise MissingDependencyError("The study timing needs diffusers: pip install 'fmboost[others]'.") from None
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    unet: Any = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8,
        down_block_types=down, up_block_types=up,
    )  # fmt: skip
    return unet.eval()


@torch.no_grad()
def median_seconds(work: Work, repeats: int) -> float:
    """The median of so many runs, after one that allocates."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
