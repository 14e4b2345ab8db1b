"""PyTorch, its devices, the number types that one of them computes, and a picture enlarged there."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from ...codecs.load import BUILTIN
from ...errors import ConfigError, NonFiniteError, collected_warnings, reason
from ...fallback import is_unsupported
from ...sampling.upscaler import upscale_image
from ..arguments import AUTOMATIC, DEFAULT_MODEL, DTYPES
from ..console import one_line
from ..device import choose_device, load_tools, present_devices, wait_for
from .finding import NOTE, PROBLEM, Finding, guarded

_OLDEST = (2, 1)
_BUILDS = "https://pytorch.org/get-started/locally"
_SLOW = 1.5  # times as long as float32
_INACCURATE = 0.05  # of the largest value; bfloat16 is off by 0.01
_SIDE = 64  # pixels of the picture that is enlarged


def compute(name: str) -> Iterator[Finding]:
    """The findings about the device of a name, as --device takes it, or about "auto"."""
    yield _build()
    yield from guarded("devices", _devices, "check the driver, or use --device cpu")
    try:
        device = choose_device(name)
    except ConfigError as error:
        yield Finding("chosen", one_line(error).rstrip("."), PROBLEM)
        return
    by = "auto" if name == "auto" else f"--device {name}"
    yield Finding("chosen", f"{device}, by {by}", figures={"device": str(device)})
    yield from guarded("types", partial(number_types, device), "check the driver, or use --device cpu")
    yield from guarded("upscale", partial(_round_trip, device), "try --device cpu")


# --- PyTorch and its devices


def _build() -> Finding:
    version = torch.__version__
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    kinds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip, "XPU": getattr(torch.version, "xpu", None)}
    built = [f"{kind} {number}" for kind, number in kinds.items() if number]
    found = f"{version}, built for {' and '.join(built) or 'CPUs'}"
    if numbers < _OLDEST:
        return Finding("torch", f"{found}, which is too old", PROBLEM, f"install 2.1 or newer ({_BUILDS})")
    if built and present_devices() == ["auto", "cpu"]:
        return Finding("torch", f"{found}, but it finds no GPU", NOTE, "check the GPU's driver, if there is a GPU")
    if not built and shutil.which("nvidia-smi"):
        advice = f"install a build for CUDA to use the GPU ({_BUILDS})"
        return Finding("torch", f"{found}, but this machine has a driver of NVIDIA", NOTE, advice)
    return Finding("torch", found)


def _devices() -> Iterator[Finding]:
    for name in present_devices():
        if name != "auto":
            what, memory = _described(name)
            size = f", {memory / 2**30:.1f} GiB" if memory else ""
            yield Finding("device", f"{name}: {what}{size}", figures={"name": what, "bytes": memory})


def _described(name: str) -> tuple[str, int | None]:
    """A device's name and its memory in bytes, None where that is not known."""
    kind = name.partition(":")[0]
    if kind == "cpu":
        cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        return f"{platform.processor() or platform.machine()}, {cores}", _main_memory()
    if kind == "mps":
        most = getattr(torch.mps, "recommended_max_memory", None)  # since PyTorch 2.3
        return "Apple GPU", most() if most else None
    facts: Any = getattr(torch, kind).get_device_properties(torch.device(name))
    return facts.name, facts.total_memory


def _main_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


# --- number types


def number_types(device: torch.device) -> Iterator[Finding]:
    """A real convolution in each type, timed against float32's."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 64, 64, 64, generator=generator).to(device)
    kernel = torch.randn(64, 64, 3, 3, generator=generator).to(device)
    seconds, exact = _timed(lambda: F.conv2d(image, kernel, padding=1), device)
    if not torch.isfinite(exact).all():
        raise NonFiniteError(f"A convolution on {device} in float32 gives NaN; check the driver, or use --device cpu.")
    yield Finding(DTYPES[0], f"a convolution in {seconds * 1000:.1f} ms", figures={"seconds": seconds})
    for name in DTYPES[1:]:
        yield _type(name, image, kernel, exact, seconds)


def _type(name: str, image: torch.Tensor, kernel: torch.Tensor, exact: torch.Tensor, seconds: float) -> Finding:
    dtype, device = getattr(torch, name), image.device
    try:
        inputs = image.to(dtype), kernel.to(dtype)
        own, result = _timed(lambda: F.conv2d(*inputs, padding=1), device)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        said = "not there" if is_unsupported(error) else f"fails ({reason(error)})"
        return Finding(name, f"{said} on {device}", NOTE, "leave --dtype at float32")
    figures = {"seconds": own, "float32": own / seconds}
    wrong = (result - exact).abs().max() / exact.abs().max()
    if not wrong <= _INACCURATE:  # NaN is not
        return Finding(name, f"gives wrong numbers on {device}", NOTE, "leave --dtype at float32", figures)
    found = f"a convolution in {own * 1000:.1f} ms, {own / seconds:.2g} times as long as in float32"
    if own > _SLOW * seconds:
        return Finding(name, found, NOTE, "leave --dtype at float32", figures)
    return Finding(name, found, figures=figures)


def _timed(work: Callable[[], torch.Tensor], device: torch.device) -> tuple[float, torch.Tensor]:
    """The seconds of the fastest of three runs after a first one, and the result on the CPU in float32."""
    result, runs = work(), []
    for _ in range(3):
        wait_for(device)
        began = time.perf_counter()
        result = work()
        wait_for(device)
        runs.append(time.perf_counter() - began)
    return min(runs), result.cpu().float()


# --- a picture


def _round_trip(device: torch.device) -> Iterator[Finding]:
    """Enlarge a small picture by the default model."""
    tools = load_tools(DEFAULT_MODEL, BUILTIN, str(device), DTYPES[0], AUTOMATIC)
    image = torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    began = time.perf_counter()
    with collected_warnings() as sentences:
        large = upscale_image(
            image.to(device),
            tools.model,
            tools.codec,
            seed=0,
            upscale_model=tools.upscale_model,
            strength=tools.model.spec.strength,  # so that the flow and the codec take part
        ).cpu()
    seconds = time.perf_counter() - began
    for sentence in sentences:
        yield Finding("upscale", sentence.rstrip("."), NOTE)
    found = f"{_SIDE}x{_SIDE} to {large.shape[-1]}x{large.shape[-2]} by {DEFAULT_MODEL} on {device} in {seconds:.1f} s"
    yield Finding("upscale", found, figures={"seconds": seconds})
