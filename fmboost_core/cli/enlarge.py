"""One image of the command `upscale`: read, enlarge, write, compare."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..codecs.periodic import periodic
from ..imaging.compare import Panel, side_by_side
from ..imaging.picture import Picture
from ..imaging.read import read_picture
from ..imaging.write import Encoding, check_output, preview, save_image, write_picture
from ..sampling.guide import LatentUpsampling, image_guide, latent_size
from ..sampling.hooks import Hooks, Stage
from ..sampling.options import ResolvedOptions
from ..sampling.schedule import seeded_noise
from ..sampling.target import Target
from ..sampling.tiling import auto_tile
from ..sampling.upscale_model import enlarged
from ..sampling.upscaler import Upscaler
from .console import note
from .device import Tools, memory_errors
from .jobs import Job
from .progress import ProgressBar
from .terminal import LARGEST, show


@dataclass(frozen=True)
class Request:
    """What is made of each image.

    compare: the file of the comparison, or None. graphics: how the terminal shows the result, or None.
    """

    target: Target
    options: ResolvedOptions
    seed: int
    restore: bool
    compare: Path | None
    encoding: Encoding
    graphics: str | None = None

    @property
    def takes_flow(self) -> bool:
        """Whether the flow takes part; otherwise the images are the upscale model's own."""
        return self.options.takes_flow(self.restore)

    def settings(self, tools: Tools) -> dict[str, Any]:
        """What decides the pixels, as JSON holds it. How they are computed does not: device, number type, tiles."""
        facts = asdict(self)
        del facts["compare"], facts["graphics"], facts["options"]["tile"], facts["options"]["overlap"]
        for name, usual in (("strength", 1), ("textured", True)):  # records of older versions have none
            if facts["options"][name] == usual:
                del facts["options"][name]
        settings: dict[str, Any] = json.loads(json.dumps(facts | tools.weights))
        return settings


def enlarge(job: Job, prefix: str, tools: Tools, request: Request) -> None:
    """Make the job's target from its source and print a line about it; prefix: its number among several."""
    picture = read_picture(job.source)
    height, width = request.target.pixels((picture.height, picture.width), tools.model.spec.scale)
    check_output(job.target, (width, height))
    began = time.perf_counter()
    with memory_errors(str(job.source)), ProgressBar(f"{prefix}{job.source.name}") as bar:
        result, evaluations = _upscaled(picture, tools, request, bar)
    seconds = time.perf_counter() - began
    result = result.with_step(_step(result, tools, request))
    for text in picture.notes + write_picture(job.target, result, request.encoding):
        note(f"{job.source.name}: {text}.")
    cost = f"{evaluations} evaluation{'' if evaluations == 1 else 's'}" if evaluations else "without the flow"
    print(f"{prefix}{job.target}  {width}x{height}  {seconds:.1f} s  {cost}", flush=True)
    if request.graphics is not None:
        _show(result, request.graphics)
    if request.compare is not None:
        with memory_errors(str(job.source)):
            image = _comparison(picture, result, f"{cost}, {seconds:.1f} s", tools, request)
        save_image(
            request.compare, image, **({} if picture.grey else {"icc_profile": picture.metadata.profile(grey=False)[0]})
        )
        print(request.compare)


def _upscaled(picture: Picture, tools: Tools, request: Request, bar: ProgressBar) -> tuple[Picture, int]:
    """The enlarged picture, on the CPU, and the NFE of all stages together."""
    stages: list[Stage] = []
    hooks = Hooks(progress=bar, on_stage=stages.append)
    enlarger = None if tools.upscale_model is None else tools.upscale_model.watched(bar)
    upscaler = Upscaler(tools.model, tools.codec, request.options, hooks, enlarger)
    noise = seeded_noise(request.seed, 1)
    large = upscaler.image(picture.pixels.to(tools.device), request.target, noise, request.restore).cpu()
    return picture.with_pixels(large), sum(stage.evaluations for stage in stages)


def _step(result: Picture, tools: Tools, request: Request) -> dict[str, str]:
    """The enlargement as settings in a recipe: AUTOMATIC1111's own names for its Extras, and the seed."""
    return {
        "Postprocess upscaler": f"FMBoost {_made_by(tools, request)}",
        "Postprocess upscale to": f"{result.width}x{result.height}",
        "Postprocess upscale seed": str(request.seed),
    }


def _made_by(tools: Tools, request: Request) -> str:
    """The names of the networks that make the result."""
    if tools.upscale_model is None:
        return tools.model.spec.name
    if request.takes_flow:
        return f"{tools.model.spec.name} behind {tools.upscale_model.name}"
    return tools.upscale_model.name


def _show(result: Picture, graphics: str) -> None:
    """Show the result on the terminal, from about as many pixels as that takes."""
    step = max(1, max(result.width, result.height) // (2 * LARGEST))
    show(preview(result.with_pixels(result.pixels[..., ::step, ::step])), sys.stdout, graphics)


def _comparison(picture: Picture, result: Picture, cost: str, tools: Tools, request: Request) -> Image.Image:
    """Bicubic interpolation, the codec or the upscale model alone where the flow comes after it, and the result."""
    width, height = result.width, result.height
    small = preview(picture)
    fit = Image.Image.resize if request.target.distorts else ImageOps.fit
    bicubic = fit(small, (width, height), Image.Resampling.BICUBIC)
    restored = ", restored" if request.restore else ""
    before = [_without_flow(picture, result, tools, request)] if request.takes_flow else []
    return side_by_side(
        (
            Panel(bicubic, "Bicubic", f"{picture.width}x{picture.height}, interpolated to {width}x{height}"),
            *before,
            Panel(preview(result), "FMBoost", f"{_made_by(tools, request)}, {cost}{restored}"),
        )
    )


def _without_flow(picture: Picture, result: Picture, tools: Tools, request: Request) -> Panel:
    """What the flow starts from: the upscale model's image; without one, the interpolated image through the codec."""
    began, size, distort = time.perf_counter(), (result.height, result.width), request.target.distorts
    if tools.upscale_model is not None:
        small = picture.rgb.to(tools.device)
        axes = request.options.tileable
        image = enlarged(small, size, tools.upscale_model, distort, axes, request.restore).cpu()
        restored = ", restored" if request.restore else ""
        title, how = tools.upscale_model.name, f"the upscale model, without the flow{restored}"
    else:
        image, method = _guide(picture, size, tools, request), request.options.upsample
        title = "PSU only" if method == "psu" else f"Guide only ({method})"
        how = "through the codec, without the flow and not restored"
    return Panel(preview(result.with_pixels(image)), title, f"{how}, {time.perf_counter() - began:.1f} s")


@torch.no_grad()
def _guide(picture: Picture, size: tuple[int, int], tools: Tools, request: Request) -> Tensor:
    """The decoded guide of one stage, as colours (1,3,H,W) at a size (height, width)."""
    small, options, distort = picture.rgb.to(tools.device), request.options, request.target.distorts
    axes, unit = options.tileable, tools.codec.downscale_factor
    codec, start = periodic(tools.codec, axes), (small.shape[-2], small.shape[-1])
    if options.upsample == "psu":
        guide = image_guide(small, codec, size, distort, axes)
    else:
        tile = auto_tile(*latent_size(size, unit))
        upsampling = LatentUpsampling(options.upsample, unit, tools.model.guide, tile, axes)
        guide = upsampling(image_guide(small, codec, start, tileable=axes), start, size, distort)
    return codec.decode(guide)[..., : size[0], : size[1]].clamp(-1, 1).cpu()
