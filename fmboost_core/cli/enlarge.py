"""One image of the command `upscale`: read, enlarge, write, compare."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..imaging.compare import Panel, side_by_side
from ..imaging.picture import Picture
from ..imaging.read import read_picture
from ..imaging.resample import cover, resize
from ..imaging.write import check_output, preview, save_image, write_picture
from ..sampling.guide import image_guide
from ..sampling.hooks import Hooks, Stage
from ..sampling.options import ResolvedOptions
from ..sampling.schedule import seeded_noise
from ..sampling.target import Target
from ..sampling.upscaler import Upscaler
from .console import note
from .device import Tools, memory_errors
from .jobs import Job
from .progress import ProgressBar


@dataclass(frozen=True)
class Request:
    """What is made of each image. compare: the file of the comparison, or None."""

    target: Target
    options: ResolvedOptions
    seed: int
    restore: bool
    compare: Path | None


def enlarge(job: Job, prefix: str, tools: Tools, request: Request) -> None:
    """Make the job's target from its source and print a line about it; prefix: its number among several."""
    picture = read_picture(job.source)
    size = height, width = request.target.pixels((picture.height, picture.width), tools.model.spec.scale)
    check_output(job.target, (width, height))
    began = time.perf_counter()
    with memory_errors(str(job.source)), ProgressBar(f"{prefix}{job.source.name}") as bar:
        rgb, evaluations = _upscaled(picture, tools, request, bar)
        result = picture.with_pixels(rgb, _resized_alpha(picture.alpha, size, request))
    seconds = time.perf_counter() - began
    for text in picture.notes + write_picture(job.target, result):
        note(f"{job.source.name}: {text}.")
    cost = f"{evaluations} evaluation{'' if evaluations == 1 else 's'}"
    print(f"{prefix}{job.target}  {width}x{height}  {seconds:.1f} s  {cost}", flush=True)
    if request.compare is not None:
        with memory_errors(str(job.source)):
            image = _comparison(picture, result, f"{cost}, {seconds:.1f} s", tools, request)
        save_image(request.compare, image, **({} if picture.grey else {"icc_profile": picture.icc}))
        print(request.compare)


def _upscaled(picture: Picture, tools: Tools, request: Request, bar: ProgressBar) -> tuple[Tensor, int]:
    """The enlarged colours (1,3,H,W) on the CPU, and the NFE of all stages together."""
    stages: list[Stage] = []
    upscaler = Upscaler(tools.model, tools.codec, request.options, Hooks(progress=bar, on_stage=stages.append))
    rgb = upscaler.image(picture.rgb.to(tools.device), request.target, seeded_noise(request.seed, 1), request.restore)
    return rgb.cpu(), sum(stage.evaluations for stage in stages)


def _resized_alpha(alpha: Tensor | None, size: tuple[int, int], request: Request) -> Tensor | None:
    """Alpha (1,1,H,W) at a size (height, width), cut or stretched as the colours are."""
    fit = resize if request.target.distorts else cover
    return None if alpha is None else fit(alpha, size, tileable=request.options.tileable).clamp(0, 1)


def _comparison(picture: Picture, result: Picture, cost: str, tools: Tools, request: Request) -> Image.Image:
    """Bicubic interpolation, the codec alone and the result side by side."""
    width, height = result.width, result.height
    small = preview(picture)
    fit = Image.Image.resize if request.target.distorts else ImageOps.fit
    bicubic = fit(small, (width, height), Image.Resampling.BICUBIC)
    began = time.perf_counter()
    psu = result.with_pixels(_psu(picture, (height, width), tools, request.target.distorts), result.alpha)
    seconds, restored = time.perf_counter() - began, ", restored" if request.restore else ""
    return side_by_side(
        (
            Panel(bicubic, "Bicubic", f"{picture.width}x{picture.height}, interpolated to {width}x{height}"),
            Panel(preview(psu), "PSU only", f"through the codec, without the flow and not restored, {seconds:.1f} s"),
            Panel(preview(result), "FMBoost", f"{tools.model.spec.name}, {cost}{restored}"),
        )
    )


def _psu(picture: Picture, size: tuple[int, int], tools: Tools, distort: bool) -> Tensor:
    """The decoded guide, as colours (1,3,H,W) at a size (height, width): the interpolated image through the codec."""
    with torch.no_grad():
        guide = image_guide(picture.rgb.to(tools.device), tools.codec, size, distort)
        return tools.codec.decode(guide)[..., : size[0], : size[1]].clamp(-1, 1).cpu()
