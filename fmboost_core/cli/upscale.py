"""One picture of the command line: read it, enlarge it, write it, and show what came of it."""

from __future__ import annotations

import argparse
import sys
import time

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..imaging.compare import Panel, side_by_side
from ..imaging.picture_file import Picture, check_output, preview, read_picture, save_image, write_picture
from ..imaging.resample import cover, resize
from ..sampling.guide import image_guide
from ..sampling.hooks import Stage
from ..sampling.target import Target
from ..sampling.upscaler import upscale_image
from .device import Tools, memory_errors
from .jobs import Job
from .progress import ProgressBar


def enlarge(job: Job, prefix: str, tools: Tools, args: argparse.Namespace) -> None:
    picture = read_picture(job.source)
    default = tools.model.spec.scale
    height, width = Target(args.scale, args.size, args.megapixels).pixels((picture.height, picture.width), default)
    check_output(job.target, (width, height))
    began = time.perf_counter()
    with memory_errors(str(job.source)), ProgressBar(f"{prefix}{job.source.name}") as bar:
        rgb, evaluations = _boosted(picture, tools, args, bar)
        result = picture.with_pixels(rgb, _fit(picture.alpha, (height, width), args))
    seconds = time.perf_counter() - began
    notes = picture.notes + write_picture(job.target, result)
    for note in notes:
        print(f"note: {job.source.name}: {note}.", file=sys.stderr)
    print(f"{prefix}{job.target}  {width}x{height}  {seconds:.1f} s  {_count(evaluations)}", flush=True)
    if args.compare is not None:
        with memory_errors(str(job.source)):
            _write_comparison(picture, result, f"{_count(evaluations)}, {seconds:.1f} s", tools, args)
        print(args.compare)


def _count(number: int) -> str:
    return f"{number} evaluation{'' if number == 1 else 's'}"


def _boosted(picture: Picture, tools: Tools, args: argparse.Namespace, bar: ProgressBar) -> tuple[Tensor, int]:
    """The enlarged colours (1,3,H,W) on the CPU, and the evaluations spent in all stages."""
    stages: list[Stage] = []
    rgb = upscale_image(
        picture.rgb.to(tools.device),
        tools.model,
        tools.codec,
        scale=args.scale,
        size=args.size,
        megapixels=args.megapixels,
        stretch=args.stretch,
        nfe=args.nfe,
        solver=args.solver,
        noise_step=args.noise_step,
        seed=args.seed,
        restore=args.restore,
        tile=args.tile,
        progress=bar,
        on_stage=stages.append,
    )
    return rgb.cpu(), sum(stage.evaluations for stage in stages)


def _fit(x: Tensor | None, size: tuple[int, int], args: argparse.Namespace) -> Tensor | None:
    """Alpha at size (height, width), cut or stretched as the colours are."""
    if x is None:
        return None
    return (resize if args.stretch or args.size is None else cover)(x, size).clamp(0, 1)


def _write_comparison(picture: Picture, result: Picture, cost: str, tools: Tools, args: argparse.Namespace) -> None:
    size = (result.width, result.height)
    small = preview(picture)
    stretch = args.stretch or args.size is None
    bicubic = (
        small.resize(size, Image.Resampling.BICUBIC) if stretch else ImageOps.fit(small, size, Image.Resampling.BICUBIC)
    )
    began = time.perf_counter()
    psu = result.with_pixels(_psu(picture, (result.height, result.width), tools, stretch), result.alpha)
    seconds = time.perf_counter() - began
    panels = (
        Panel(bicubic, "Bicubic", f"{picture.width}x{picture.height}, interpolated to {size[0]}x{size[1]}"),
        Panel(preview(psu), "PSU only", f"through the codec, without the flow, {seconds:.1f} s"),
        Panel(preview(result), "FMBoost", f"{tools.model.spec.name}, {cost}"),
    )
    save_image(args.compare, side_by_side(panels), **({} if picture.grey else {"icc_profile": picture.icc}))


def _psu(picture: Picture, size: tuple[int, int], tools: Tools, stretch: bool) -> Tensor:
    """What the flow starts from, as colours (1,3,H,W): the interpolated picture through the codec."""
    with torch.no_grad():
        guide = image_guide(picture.rgb.to(tools.device), tools.codec, size, stretch)
        return tools.codec.decode(guide)[..., : size[0], : size[1]].clamp(-1, 1).cpu()
