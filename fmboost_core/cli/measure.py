"""Time, memory and FLOP of upscaling, beside bicubic interpolation and the codec alone; or those of its parts.

Each case runs in a new process: Python and PyTorch keep memory that was freed, so that within one process the peak of
a case would hide the peak of the next.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..errors import FMBoostError
from ..families import FAMILIES
from ..files.checkpoint import load_model, read_spec
from ..networks import NetworkConfig, build_network
from ..networks.conditioning import Conditioning
from ..sampling.guide import image_guide
from ..sampling.hooks import Stage
from ..sampling.upscaler import upscale_image
from .device import Tools, choose_device, load_tools, memory_errors, wait_for
from .parts import flop_of, part_names, parts


@dataclass(frozen=True)
class BenchSettings:
    """What is measured and where; names as on the command line. tile: "auto", None or a side in latents."""

    model: str
    codec: str
    device: str
    dtype: str
    tile: int | str | None
    repeat: int


@dataclass(frozen=True)
class BenchCase:
    """One measurement from a square to a larger one, sides in pixels.

    method: "bicubic", "psu" or "boost" for images, or one of `part_names`.
    """

    method: str
    start: int
    side: int
    nfe: int = 0


@dataclass(frozen=True)
class BenchRow:
    """A measured case: median of the seconds, the seconds of each run, NFE of a run, peak memory in bytes or None.

    flop: of a part; 0 for whole images.
    """

    case: BenchCase
    seconds: float
    runs: tuple[float, ...]
    evaluations: int
    memory: int | None
    flop: int = 0


@dataclass(frozen=True)
class BenchReport:
    """All measurements. gflop: of one function evaluation on the whole latent, by side; a multiply-add counts as 2."""

    settings: BenchSettings
    machine: str
    memory_meaning: str
    gflop: dict[int, float]
    rows: tuple[BenchRow, ...]


def measure_all(
    settings: BenchSettings, sides: Sequence[int], nfes: Sequence[int], progress: Callable[[int, int], None]
) -> BenchReport:
    """Measure each side with the two references and each NFE. progress(done, total) counts cases."""
    settings = replace(settings, device=str(choose_device(settings.device)))
    model = load_model(settings.model)
    scale = model.spec.scale
    cases = [
        case
        for side in sides
        for start in [max(1, round(side / scale))]
        for case in (
            BenchCase("bicubic", start, side),
            BenchCase("psu", start, side),
            *(BenchCase("boost", start, side, n) for n in nfes),
        )
    ]
    rows = _measured(settings, cases, progress)
    gflop = {
        side: evaluation_flop(model.spec.network, -(-side // FAMILIES[model.spec.family].downscale_factor)) / 1e9
        for side in sides
    }
    return BenchReport(settings, _machine(settings.device), _memory_meaning(settings.device), gflop, tuple(rows))


def measure_parts(settings: BenchSettings, sides: Sequence[int], progress: Callable[[int, int], None]) -> BenchReport:
    """Measure each part of upscaling a latent to each side, which is rounded to whole latents."""
    settings = replace(settings, device=str(choose_device(settings.device)))
    spec = read_spec(settings.model)
    unit, scale = FAMILIES[spec.family].downscale_factor, spec.scale
    sizes = [(max(1, round(side / scale / unit)) * unit, max(1, round(side / unit)) * unit) for side in sides]
    cases = [BenchCase(part, start, side) for start, side in sizes for part in part_names(spec.fast is not None)]
    rows = _measured(settings, cases, progress)
    return BenchReport(settings, _machine(settings.device), _memory_meaning(settings.device), {}, tuple(rows))


def _measured(
    settings: BenchSettings, cases: Sequence[BenchCase], progress: Callable[[int, int], None]
) -> list[BenchRow]:
    rows = []
    for number, case in enumerate(cases, start=1):
        rows.append(in_new_process(settings, case))
        progress(number, len(cases))
    return rows


def evaluation_flop(network: NetworkConfig, latents: int) -> int:
    """FLOP of one function evaluation on a square latent (side in latents), counted without computing anything."""
    with torch.device("meta"):
        net = build_network(network).eval()
        x = torch.empty(1, network.channels, latents, latents)
        times = torch.empty(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x, times, Conditioning(x))
    return int(counter.get_total_flops())


def in_new_process(settings: BenchSettings, case: BenchCase) -> BenchRow:
    """`measure` in a process of its own. Raises `FMBoostError` if the system ends that process."""
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(measure, settings, case).result()
    except BrokenProcessPool:
        raise FMBoostError(
            f"The process that measured {case.method} at {case.side} pixels died, without a message above most "
            "likely for lack of memory; try smaller --sizes or --tile 48."
        ) from None


def measure(settings: BenchSettings, case: BenchCase) -> BenchRow:
    """Measure one case in this process, after a small case as a warm-up."""
    tools = load_tools(settings.model, settings.codec, settings.device, settings.dtype)
    work(replace(case, start=32, side=64), settings, tools)()
    stages: list[Stage] = []
    job = work(case, settings, tools, stages.append)
    memory = _MemoryPeak(tools.device)
    runs = []
    for _ in range(settings.repeat):
        wait_for(tools.device)
        began = time.perf_counter()
        with memory_errors(f"{case.method} to {case.side} pixels"):
            job()
            wait_for(tools.device)
        runs.append(time.perf_counter() - began)
    evaluations, peak = sum(stage.evaluations for stage in stages) // settings.repeat, memory.read()
    flop = flop_of(job) if case.method in part_names(has_guide=True) else 0
    return BenchRow(case, statistics.median(runs), tuple(runs), evaluations, peak, flop)


def work(
    case: BenchCase, settings: BenchSettings, tools: Tools, on_stage: Callable[[Stage], None] | None = None
) -> Callable[[], Tensor]:
    """The work of a case: a function without arguments that returns the large image (1,3,side,side)."""
    if case.method in part_names(has_guide=True):
        return parts(tools, case.start, case.side)[case.method]
    generator = torch.Generator().manual_seed(0)
    image = (torch.rand(1, 3, case.start, case.start, generator=generator) * 2 - 1).to(tools.device)
    size = (case.side, case.side)
    if case.method == "bicubic":
        return lambda: F.interpolate(image, size, mode="bicubic").clamp(-1, 1)
    if case.method == "psu":
        return torch.no_grad()(lambda: tools.codec.decode(image_guide(image, tools.codec, size)).clamp(-1, 1))
    return lambda: upscale_image(
        image, tools.model, tools.codec, size=size, nfe=case.nfe, tile=settings.tile, on_stage=on_stage
    )


class _MemoryPeak:
    """The peak of memory use since the object was made; `_memory_meaning` says of which memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_resident_peak()
            self.before = _resident_peak()

    def read(self) -> int | None:
        """Bytes, or None where the system or the device does not report them."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        after = _resident_peak()
        return after - self.before if self.device.type == "cpu" and after and self.before else None


def _memory_meaning(device: str) -> str:
    if device.startswith("cuda"):
        return "peak GPU memory that PyTorch allocated, weights included"
    if device == "cpu" and _resident_peak() is not None:
        return "rise of the process's peak resident memory over what it had with the weights loaded"
    return "not measured on this device or system"


def _reset_resident_peak() -> None:
    """On Linux, set the peak to what is resident now; elsewhere it cannot be reset."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident_peak() -> int | None:
    """Peak resident memory of this process in bytes, or None.

    On Linux from /proc, because a new process inherits getrusage's number from its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _machine(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def as_json(report: BenchReport) -> str:
    """The report as JSON, with the seconds of each run."""
    return json.dumps(asdict(report), indent=1) + "\n"


def parts_table(report: BenchReport) -> str:
    """The report of `measure_parts` as text."""
    lines = [*_heading(report), f"{'pixels':<14}{'part':<20}{'seconds':>11}{'GFLOP':>9}{'MB':>9}"]
    for row in report.rows:
        memory = "-" if row.memory is None else f"{row.memory / 1e6:.0f}"
        lines.append(
            f"{f'{row.case.start} -> {row.case.side}':<14}{row.case.method:<20}{row.seconds:>11.4f}"
            f"{row.flop / 1e9:>9.4g}{memory:>9}"
        )
    return "\n".join(lines)


def _heading(report: BenchReport) -> list[str]:
    s = report.settings
    return [
        f"{s.model} on {s.device}, {s.dtype}: {report.machine}",
        f"median of {s.repeat}; memory: {report.memory_meaning}",
        "",
    ]


def table(report: BenchReport) -> str:
    """The report as text, one line for each case, its time also as a multiple of the two references."""
    lines = [
        *_heading(report),
        f"{'pixels':<14}{'method':<10}{'evaluations':>11}{'seconds':>11}{'x bicubic':>11}{'x PSU':>8}{'MB':>9}"
        f"{'GFLOP/eval.':>13}",
    ]
    reference = {(row.case.method, row.case.side): row.seconds for row in report.rows}
    for row in report.rows:
        case, side = row.case, row.case.side
        flop = f"{report.gflop[side]:.3g}" if case.method == "boost" else "-"
        memory = "-" if row.memory is None else f"{row.memory / 1e6:.0f}"
        lines.append(
            f"{f'{case.start} -> {side}':<14}{case.method:<10}{row.evaluations:>11}{row.seconds:>11.4f}"
            f"{row.seconds / reference['bicubic', side]:>11.1f}{row.seconds / reference['psu', side]:>8.2f}"
            f"{memory:>9}{flop:>13}"
        )
    return "\n".join(lines)
