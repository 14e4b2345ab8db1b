"""The command line: `python -m fmboost_core upscale photo.jpg large.png`.

PyTorch and Pillow are imported where they are first needed, so that help and typing errors answer at once.
"""

from __future__ import annotations

import argparse
import glob
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from .errors import Cancelled, CheckpointError, ConfigError, FMBoostError, ImageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .checkpoint import Model
    from .codec import TinyVAE
    from .images import Picture

DEFAULT_MODEL = "sd15-x2-lite"
DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda", "mps")
OK, SOME_SKIPPED, REFUSED, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """examples:
  python -m fmboost_core upscale photo.jpg large.png              twice as large
  python -m fmboost_core upscale photo.jpg large.jpg --scale 4 --compare look.png
  python -m fmboost_core upscale photo.jpg wall.png --size 3840x2160
  python -m fmboost_core upscale holiday/ holiday-large/          all pictures of a folder
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 some pictures skipped, 2 refused, 130 interrupted."""
    try:
        args = _parser().parse_args(argv)
        with _warnings_as_notes():
            return args.run(args)
    except (KeyboardInterrupt, Cancelled):
        print("Stopped; no file was left half-written.", file=sys.stderr)
        return INTERRUPTED
    except FMBoostError as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        return REFUSED


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show warnings as one line for people, without a source line."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = show
        yield


# --- what can be typed


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fmboost" if Path(sys.argv[0]).stem == "fmboost" else "python -m fmboost_core",
        description="FMBoost enlarges photographs: a small network adds the detail that interpolation cannot.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_upscale(commands.add_parser("upscale", help="enlarge a picture, or all pictures of a folder"))
    _add_info(commands.add_parser("info", help="what a model file holds"))
    _add_convert(commands.add_parser("convert", help="turn a checkpoint of another program into a model file"))
    models = commands.add_parser("models", help="the models that come with FMBoost, and how to get others")
    models.set_defaults(run=_models)
    _add_bench(commands.add_parser("bench", help="measure time and memory on this machine"))
    return parser


def _add_upscale(parser: argparse.ArgumentParser) -> None:
    parser.description = "Enlarge pictures. Reads PNG, JPEG, WebP, TIFF, BMP and GIF; writes PNG, JPEG and WebP."
    add = parser.add_argument
    add("input", nargs="+", metavar="IN", help='a picture, a folder of them, or a pattern such as "trip/*.jpg"')
    add("output", metavar="OUT", help="the new file (.png, .jpg, .webp), or a folder for several pictures")
    size = parser.add_argument_group("size (one of these; twice as large by default)").add_mutually_exclusive_group()
    size.add_argument("--scale", type=_positive, metavar="S", help="times as wide and high, such as 2 or 3.5")
    size.add_argument("--size", type=_size, metavar="WxH", help="exact size in pixels, such as 1920x1080")
    size.add_argument("--megapixels", type=_positive, metavar="M", help="total size in millions of pixels")
    add("--stretch", action="store_true", help="with --size: distort to another aspect instead of cutting the edges")
    quality = parser.add_argument_group("how")
    quality.add_argument("--nfe", type=_count, metavar="N", help="evaluations of the network: more detail, more time")
    quality.add_argument("--solver", default="euler", help="euler (default), midpoint, heun, rk4, dopri5 ...")
    quality.add_argument("--noise-step", type=int, metavar="N", help="0 to 999 (default: what the model was made for)")
    quality.add_argument("--seed", type=int, default=0, help="another number gives other fine detail (default 0)")
    quality.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|FILE", help="see the command models")
    quality.add_argument("--codec", default="builtin", metavar="NAME", help=_CODEC_HELP)
    quality.add_argument("--tile", type=_tile, default="auto", metavar="N|auto|off", help=_TILE_HELP)
    _add_device(quality)
    add("--compare", type=Path, metavar="FILE", help="also make a picture that shows before and after side by side")
    parser.set_defaults(run=_upscale)


_CODEC_HELP = "builtin, or the common beginning of NAME_encoder.safetensors and NAME_decoder.safetensors"
_TILE_HELP = "work in tiles of N latents (8 pixels each) to save memory; auto (default) does so for large pictures"


def _add_device(parser: Any) -> None:
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to compute (default: the fastest)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="number type (default float32)")


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|FILE", help="a bundled model's name, or a file")
    parser.set_defaults(run=_info)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write any model that can be read as a model file of FMBoost. The options tell what the checkpoint of the "
        "reference implementation (CompVis/fm-boosting) cannot; a file of FMBoost takes only --dtype."
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="a checkpoint or model file")
    add("target", metavar="DST", help="the new file (.safetensors)")
    add("--weights", choices=("ema", "online"), help="which of its weights (default: EMA where there are such)")
    add("--heads", type=_count, help="attention heads (default 4)")
    add("--attention", choices=("full", "linear"), help="kind of attention (default full)")
    add("--layout", choices=("reference", "standard"), help="of the attention's channels (default reference)")
    add("--family", help="latent space: sd15 (default), sdxl, sd3, flux1")
    add("--scale", type=_positive, help="magnification it was trained for (default 2)")
    add("--name", help="short name (default: the file's)")
    add("--noise-step", type=int, help="noise step it was trained at (default 400)")
    add("--dtype", choices=DTYPES, help="store weights as this type (default: as they are)")
    parser.set_defaults(run=_convert)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.description = "Measure enlarging to square pictures, each in a process of its own."
    add = parser.add_argument
    add("--sizes", type=_count, nargs="+", default=[512, 1024], metavar="N", help="sides of the results, in pixels")
    add("--nfe", type=_count, nargs="+", default=[1, 4], metavar="N", help="evaluations of the network")
    add("--model", default=DEFAULT_MODEL, metavar="NAME|FILE", help="see the command models")
    add("--codec", default="builtin", metavar="NAME", help=_CODEC_HELP)
    add("--tile", type=_tile, default="auto", metavar="N|auto|off", help=_TILE_HELP)
    add("--repeat", type=_count, default=3, metavar="N", help="take the median of N runs (default 3)")
    add("--json", type=Path, metavar="FILE", help="also write the numbers to this file")
    _add_device(parser)
    parser.set_defaults(run=_bench)


def _positive(text: str) -> float:
    value = _number(text, float)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _count(text: str) -> int:
    value = int(_number(text, int))
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return value


def _number(text: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"must be a {what}, not {text!r}") from None


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,6})[xX]([1-9]\d{0,6})", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, such as 1920x1080, not {text!r}")
    return int(match[1]), int(match[2])


def _tile(text: str) -> int | str | None:
    return {"auto": "auto", "off": None}[text] if text in ("auto", "off") else _count(text)


# --- upscale: which files


@dataclass(frozen=True)
class Job:
    """A picture to read and the file to make of it."""

    source: Path
    target: Path


def find_inputs(patterns: Sequence[str]) -> tuple[list[Path], bool]:
    """The pictures meant, without doubles, and whether they are several (a folder always is)."""
    found: list[Path] = []
    several = False
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found += _pictures(path.iterdir(), f"The folder {path}")
            several = True
        elif os.path.lexists(path) or not glob.has_magic(pattern):
            found.append(path)
        else:
            matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
            found += _pictures(map(Path, matches), f"The pattern {pattern}")
    found = list(dict.fromkeys(found))
    return found, several or len(found) > 1


def _pictures(paths: Iterator[Path], what: str) -> list[Path]:
    """Those that look like pictures; hidden files are none (file managers leave such ones)."""
    from .images import READ_SUFFIXES

    found = [p for p in paths if p.suffix.lower() in READ_SUFFIXES and p.is_file() and not p.name.startswith(".")]
    if not found:
        raise ImageError(f"{what} has no pictures ({', '.join(READ_SUFFIXES)}).")
    return sorted(found)


def plan_jobs(patterns: Sequence[str], output: str) -> list[Job]:
    """Each picture with its target. Makes the output folder where one is needed; refuses what cannot be written."""
    from .images import WRITE_FORMATS, check_output

    sources, several = find_inputs(patterns)
    folder = Path(output)
    if several and folder.suffix.lower() in WRITE_FORMATS and not folder.is_dir():
        raise ImageError(f"{len(sources)} pictures need a folder to go to, but {output} names one file.")
    if several or folder.is_dir() or output.endswith(("/", os.sep)):
        jobs = [Job(s, folder / name) for s, name in zip(sources, output_names(sources), strict=True)]
    else:
        jobs = [Job(sources[0], folder)]
    _refuse_overwriting_inputs(jobs)
    if jobs[0].target.parent == folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"The folder {output} cannot be made ({error.strerror}).") from None
    for job in jobs:
        check_output(job.target)
    return jobs


def output_names(sources: Sequence[Path]) -> list[str]:
    """A file name for each, its own where it can be written, else .png; names that would collide are numbered.

    A name that is kept goes before one that changes: of a.tif and a.png, it is the first that becomes a-2.png.
    """
    from .images import WRITE_FORMATS

    keeps = [source.suffix.lower() in WRITE_FORMATS for source in sources]
    taken: set[str] = set()
    names: dict[int, str] = {}
    for i in sorted(range(len(sources)), key=lambda i: not keeps[i]):
        stem, suffix = sources[i].stem, sources[i].suffix if keeps[i] else ".png"
        name, number = stem + suffix, 1
        while name.casefold() in taken:  # casefold: some file systems hold A.png and a.png for one
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(name.casefold())
        names[i] = name
    return [names[i] for i in range(len(sources))]


def _refuse_overwriting_inputs(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise ImageError(f"{job.target} is an input and would be overwritten; choose another output.")


def _check_comparison(path: Path, jobs: Sequence[Job]) -> None:
    from .images import check_output

    if len(jobs) > 1:
        raise ConfigError(f"--compare shows one picture, but there are {len(jobs)}.")
    check_output(path)
    if os.path.realpath(path) in (os.path.realpath(jobs[0].source), os.path.realpath(jobs[0].target)):
        raise ImageError(f"{path} is the input or the output; name another file for the comparison.")


# --- upscale: the work


@dataclass(frozen=True)
class Tools:
    """What enlarges pictures, on its device."""

    model: Model
    codec: TinyVAE
    device: torch.device


def load_tools(model: str, codec: str, device: str, dtype: str) -> Tools:
    """Load model and codec to a device of `DEVICES`, as a type of `DTYPES`."""
    import torch

    from .checkpoint import load_model
    from .codec import load_codec

    where, kind = choose_device(device), getattr(torch, dtype)
    return Tools(load_model(model).to(where, kind), load_codec(codec).to(where, kind), where)


def choose_device(name: str) -> torch.device:
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    if not present[name]:
        raise ConfigError(f"This PyTorch finds no {name} device here; use --device cpu or --device auto.")
    return torch.device(name)


@dataclass
class Done:
    """What became of the pictures."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def _upscale(args: argparse.Namespace) -> int:
    from .schedule import alpha_bar
    from .solvers import check_solver

    tools = load_tools(args.model, args.codec, args.device, args.dtype)
    # What is wrong for every picture is said once, and before the output's folder is made.
    check_solver(args.solver, args.nfe or tools.model.spec.nfe)
    if args.noise_step is not None:
        alpha_bar(args.noise_step)
    jobs = plan_jobs(args.input, args.output)
    if args.compare is not None:
        _check_comparison(args.compare, jobs)
    done = Done()
    try:
        for number, job in enumerate(jobs, start=1):
            _upscale_or_skip(job, f"{number}/{len(jobs)} " if len(jobs) > 1 else "", tools, args, done)
    finally:
        if len(jobs) > 1:
            skipped = f", {len(done.skipped)} skipped: {', '.join(map(str, done.skipped))}" if done.skipped else ""
            print(f"{len(done.written)} of {len(jobs)} pictures written to {args.output}{skipped}.")
    return SOME_SKIPPED if done.skipped else OK


def _upscale_or_skip(job: Job, prefix: str, tools: Tools, args: argparse.Namespace, done: Done) -> None:
    """One of several pictures must not stop the others; a single one's error is the command's."""
    try:
        _upscale_one(job, prefix, tools, args)
        done.written.append(job.target)
    except Cancelled:
        raise
    except FMBoostError as error:
        if not prefix:
            raise
        print(f"skipped: {_line(error)}", file=sys.stderr)
        done.skipped.append(job.source)


def _upscale_one(job: Job, prefix: str, tools: Tools, args: argparse.Namespace) -> None:
    from .images import check_output, read_picture, write_picture
    from .pipeline import target_size

    picture = read_picture(job.source)
    default = tools.model.spec.scale
    height, width = target_size(
        (picture.height, picture.width),
        scale=args.scale, target=args.size, megapixels=args.megapixels, default=default,
    )
    check_output(job.target, (width, height))
    began = time.perf_counter()
    with memory_errors(str(job.source)), _Bar(f"{prefix}{job.source.name}") as bar:
        rgb, evaluations = _boosted(picture, tools, args, bar)
        result = picture.with_pixels(rgb, _fit(picture.alpha, (height, width), args))
    seconds = time.perf_counter() - began
    notes = picture.notes + write_picture(job.target, result)
    for note in notes:
        print(f"note: {job.source.name}: {note}.", file=sys.stderr)
    print(f"{prefix}{job.target}  {width}x{height}  {seconds:.1f} s  {_evaluations(evaluations)}", flush=True)
    if args.compare is not None:
        with memory_errors(str(job.source)):
            _write_comparison(picture, result, f"{_evaluations(evaluations)}, {seconds:.1f} s", tools, args)
        print(args.compare)


def _evaluations(number: int) -> str:
    return f"{number} evaluation{'' if number == 1 else 's'}"


def _boosted(picture: Picture, tools: Tools, args: argparse.Namespace, bar: _Bar) -> tuple[Tensor, int]:
    """The enlarged colours (1,3,H,W) on the CPU, and the evaluations spent in all stages."""
    from .pipeline import Stage, upscale_image

    stages: list[Stage] = []
    rgb = upscale_image(
        picture.rgb.to(tools.device), tools.model, tools.codec,
        scale=args.scale, size=args.size, megapixels=args.megapixels, stretch=args.stretch,
        nfe=args.nfe, solver=args.solver, noise_step=args.noise_step, seed=args.seed, tile=args.tile,
        progress=bar, on_stage=stages.append,
    )
    return rgb.cpu(), sum(stage.evaluations for stage in stages)


def _fit(x: Tensor | None, size: tuple[int, int], args: argparse.Namespace) -> Tensor | None:
    """Alpha at size (height, width), cut or stretched as the colours are."""
    from .upsample import cover, resize

    if x is None:
        return None
    return (resize if args.stretch or args.size is None else cover)(x, size).clamp(0, 1)


def _write_comparison(picture: Picture, result: Picture, cost: str, tools: Tools, args: argparse.Namespace) -> None:
    from PIL import Image, ImageOps

    from .compare import Panel, side_by_side
    from .images import preview, save_image

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
    import torch

    from .upsample import image_guide

    with torch.no_grad():
        guide = image_guide(picture.rgb.to(tools.device), tools.codec, size, stretch)
        return tools.codec.decode(guide)[..., : size[0], : size[1]].clamp(-1, 1).cpu()


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Out of memory, as Python and PyTorch's devices say it, becomes an `ImageError` with a way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, RuntimeError) and not re.search(r"out of memory|allocate memory", str(error)):
            raise
        raise ImageError(f"{what} does not fit into memory at this size; try --tile 64 or a smaller size.") from None


class _Bar:
    """A progress bar on a terminal; silent elsewhere."""

    WIDTH, INTERVAL = 28, 0.1  # characters, seconds between drawings

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self.label, self.stream = label, sys.stderr if stream is None else stream
        self.began = self.drawn = time.monotonic()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def __call__(self, done: int, total: int) -> None:
        """Show done of total pieces of work; a total of 0 is unknown."""
        now = time.monotonic()
        if now - self.drawn < self.INTERVAL:
            return
        self.drawn, spent = now, now - self.began
        if not total:
            self._write(f"{self.label}  {done} evaluations  {_clock(spent)}")
            return
        filled = "#" * (self.WIDTH * done // total)
        left = spent / done * (total - done)
        self._write(f"{self.label}  [{filled:-<{self.WIDTH}}]  {100 * done // total}%  {_clock(left)} left")

    def _write(self, text: str) -> None:
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[K{text}")
            self.stream.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


# --- the other commands


def _info(args: argparse.Namespace) -> int:
    from .checkpoint import describe

    facts = describe(args.model)
    for name, value in _facts(facts):
        print(f"{name:<26}{value}")
    if facts["assumed"]:
        print(f"\nThe shapes prove {', '.join(facts['derived'])}; assumed are {', '.join(facts['assumed'])}.")
        print("If that is wrong, tell it with the options of the command convert.")
    return OK


def _facts(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The description as lines: name, value."""
    spec = dict(facts["specification"])
    network = spec.pop("network")
    yield "file", facts["path"]
    yield "kind", {"fmboost": "FMBoost model", "reference": "CompVis/fm-boosting checkpoint"}[facts["kind"]]
    yield "size", f"{facts['bytes'] / 1e6:.1f} MB, {facts['parameters']:,} parameters, {facts['dtype']}"
    yield "sha256", facts["sha256"]
    for name, value in (*spec.items(), *((f"network.{k}", v) for k, v in network.items())):
        yield name, ", ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else value


def _models(args: argparse.Namespace) -> int:
    from .checkpoint import bundled_models, describe

    names = bundled_models()
    print("Bundled models (for --model):" if names else "No models are bundled with this installation.")
    for name in names:
        try:
            facts = describe(name)
        except CheckpointError as error:
            print(f"  {name}: unusable, {_line(error)}")
            continue
        spec = facts["specification"]
        print(f"  {name}{' (default)' if name == DEFAULT_MODEL else ''}")
        print(f"    {spec['scale']:g}x for {spec['family']} latents, {spec['nfe']} evaluations by default")
        print(f"    {facts['parameters'] / 1e6:.1f}M parameters, {facts['bytes'] / 1e6:.1f} MB")
        print(f"    license {spec['license']}; trained on {spec['trained_on']}")
    print("\nOther models, wherever NAME|FILE is asked for:")
    print("  path/to/model.safetensors                a model file of FMBoost, or one you trained")
    print("  hf://owner/repo/file.safetensors         from Hugging Face, kept in its cache")
    print("  path/to/last.ckpt                        a checkpoint of CompVis/fm-boosting (see the command convert)")
    return OK


def _convert(args: argparse.Namespace) -> int:
    import torch

    from .checkpoint import convert

    names = ("weights", "heads", "attention", "layout", "family", "scale", "name", "noise_step")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    dtype = getattr(torch, args.dtype) if args.dtype else None
    if os.path.realpath(args.source) == os.path.realpath(args.target):
        raise CheckpointError(f"{args.target} is the source itself; name another file.")
    model = convert(args.source, args.target, dtype=dtype, **options)
    print(f"{args.target}  {model.spec.name}  {Path(args.target).stat().st_size / 1e6:.1f} MB")
    return OK


def _bench(args: argparse.Namespace) -> int:
    from .bench import Settings, as_json, run, table

    settings = Settings(args.model, args.codec, args.device, args.dtype, args.tile, args.repeat)
    _check_json(args.json)
    with _Bar("bench") as bar:
        report = run(settings, args.sizes, args.nfe, bar)
    print(table(report))
    if args.json is not None:
        from .images import replacing

        with replacing(args.json) as temporary:
            temporary.write_text(as_json(report), encoding="utf-8")
        print(args.json)
    return OK


def _check_json(path: Path | None) -> None:
    """Before minutes of measuring, not after."""
    if path is not None and (path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK)):
        raise ConfigError(f"{path} cannot be written: it is a folder, or its folder is missing or locked.")
