"""The command line: `python -m fmboost_core upscale photo.jpg large.png`.

PyTorch and Pillow are imported where they are first needed, so that help and typing errors answer at once.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import Cancelled, CheckpointError, ConfigError, FMBoostError

if TYPE_CHECKING:
    from .device import Tools
    from .jobs import Job

DEFAULT_MODEL = "sd15-x2"
DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda", "mps")
OK, SOME_SKIPPED, REFUSED, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """examples:
  python -m fmboost_core upscale photo.jpg large.png              twice as large
  python -m fmboost_core upscale photo.jpg large.jpg --scale 4 --compare look.png
  python -m fmboost_core upscale photo.jpg wall.png --size 3840x2160
  python -m fmboost_core upscale holiday/ holiday-large/          all pictures of a folder
"""
_LAUNCHERS = """several GPUs:
  Under a launcher the processes share the pictures of a folder, each on a GPU of its own:
    torchrun --nproc-per-node 2 -m fmboost_core upscale holiday/ holiday-large/ --skip-existing
    accelerate launch --multi_gpu --num_processes 2 -m fmboost_core upscale holiday/ holiday-large/ --skip-existing
  Without one, start each with RANK (0, 1 ...), WORLD_SIZE (how many) and LOCAL_RANK (its GPU) in the environment.
  One of several exits with 0 even if it has skipped pictures, for a launcher would stop the others.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 some pictures skipped, 2 refused, 130 interrupted.

    One of several processes that share the pictures returns 0 for 1: launchers end the others of one that fails.
    """
    try:
        args = _parser().parse_args(argv)
        with _warnings_as_notes():
            code: int = args.run(args) or OK
            sys.stdout.flush()  # a closed pipe shows here, and not when Python is leaving
            return code
    except (KeyboardInterrupt, Cancelled):
        print("Stopped; no file was left half-written.", file=sys.stderr)
        return INTERRUPTED
    except FMBoostError as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


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
    for name in ("evaluate", "ablate"):
        import_module(f"{__package__}.{name}").add_command(commands)
    return parser


def _add_upscale(parser: argparse.ArgumentParser) -> None:
    parser.description = "Enlarge pictures. Reads PNG, JPEG, WebP, TIFF, BMP and GIF; writes PNG, JPEG and WebP."
    parser.epilog, parser.formatter_class = _LAUNCHERS, argparse.RawDescriptionHelpFormatter
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
    quality.add_argument(
        "--noise-step",
        type=int,
        metavar="N",
        help="noise in the start, 0 to 999: less is truer, more draws more detail; the sd15 models know 100 to 700 "
        "(default: what the model was made for)",
    )
    quality.add_argument("--seed", type=int, default=0, help="another number gives other fine detail (default 0)")
    quality.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|FILE", help="see the command models")
    quality.add_argument("--codec", default="builtin", metavar="NAME", help=_CODEC_HELP)
    quality.add_argument(
        "--no-restore", dest="restore", action="store_false",
        help="the decoded latent as it is, without putting back what the codec loses of the picture",
    )  # fmt: skip
    quality.add_argument("--tile", type=_tile, default="auto", metavar="N|auto|off", help=_TILE_HELP)
    _add_device(quality)
    add("--skip-existing", action="store_true", help="leave out pictures whose new file is there, to go on")
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
    add("--dtype", choices=DTYPES, help="store weights as this type (default: float32)")
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


# --- upscale


@dataclass
class Done:
    """What became of the pictures; there: how many needed nothing."""

    there: int = 0
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def _upscale(args: argparse.Namespace) -> int:
    from ..sampling.schedule import alpha_bar
    from ..sampling.solvers import check_solver
    from .device import load_tools
    from .jobs import check_comparison, plan_jobs, unfinished
    from .processes import share, this_process

    process = this_process(os.environ)
    tools = load_tools(args.model, args.codec, args.device, args.dtype)
    # What is wrong for every picture is said once, and before the output's folder is made.
    check_solver(args.solver, args.nfe or tools.model.spec.nfe, own=args.nfe is None)
    if args.noise_step is not None:
        alpha_bar(args.noise_step)
    jobs = plan_jobs(args.input, args.output)
    if args.compare is not None:
        check_comparison(args.compare, jobs)
    # The share comes first: what other processes have finished meanwhile must not change whose a picture is.
    mine = share(jobs)
    left = unfinished(mine) if args.skip_existing else mine
    done = Done(there=len(mine) - len(left))
    try:
        for number, job in enumerate(left, start=1):
            _upscale_or_skip(job, f"{number}/{len(left)} " if len(jobs) > 1 else "", tools, args, done)
    finally:
        if len(jobs) > 1 or not left:
            who = f"Process {process.rank + 1} of {process.count}: " if process.count > 1 else ""
            print(f"{who}{_summary(done, len(left), args.output)}")
    return SOME_SKIPPED if done.skipped and process.count == 1 else OK


def _summary(done: Done, left: int, output: str) -> str:
    there = f", {done.there} already there" if done.there else ""
    skipped = f", {len(done.skipped)} skipped: {', '.join(map(str, done.skipped))}" if done.skipped else ""
    if not left:
        return f"nothing to do{there}."
    return f"{len(done.written)} of {left} pictures written to {output}{there}{skipped}."


def _upscale_or_skip(job: Job, prefix: str, tools: Tools, args: argparse.Namespace, done: Done) -> None:
    """One of several pictures must not stop the others; a single one's error is the command's."""
    from .upscale import enlarge

    try:
        enlarge(job, prefix, tools, args)
        done.written.append(job.target)
    except Cancelled:
        raise
    except FMBoostError as error:
        if not prefix:
            raise
        print(f"skipped: {_line(error)}", file=sys.stderr)
        done.skipped.append(job.source)


# --- the other commands


def _info(args: argparse.Namespace) -> int:
    from ..files.checkpoint import describe

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
    from ..files.checkpoint import describe
    from ..files.locate import bundled_models

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

    from ..files.checkpoint import convert

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
    from .progress import ProgressBar

    settings = Settings(args.model, args.codec, args.device, args.dtype, args.tile, args.repeat)
    _check_json(args.json)
    with ProgressBar("bench") as bar:
        report = run(settings, args.sizes, args.nfe, bar)
    print(table(report))
    if args.json is not None:
        from ..files.atomic import replacing

        with replacing(args.json) as temporary:
            temporary.write_text(as_json(report), encoding="utf-8")
        print(args.json)
    return OK


def _check_json(path: Path | None) -> None:
    """Before minutes of measuring, not after."""
    if path is not None and (path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK)):
        raise ConfigError(f"{path} cannot be written: it is a folder, or its folder is missing or locked.")
