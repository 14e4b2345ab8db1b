"""The command `upscale`: enlarge pictures and folders of them, alone or as one of several processes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, ConfigError, FMBoostError, reason
from .arguments import AUTOMATIC, add_compute, add_model, add_tile, count, percent, positive, size
from .console import OK, SOME_SKIPPED, note, one_line
from .processes import Process, share, this_process

if TYPE_CHECKING:
    from .device import Tools
    from .enlarge import Request
    from .inputs import Inputs
    from .jobs import Job

_STOPPED = "Stopped; no file was left half-written. With --skip-existing the same command goes on."
FORMATS = ("png", "jpg", "webp", "tif")

_LAUNCHERS = """several GPUs:
  Under a launcher the processes share the pictures of a folder, each on a GPU of its own:
    torchrun --nproc-per-node 2 -m fmboost_core upscale holiday/ holiday-large/ --skip-existing
    accelerate launch --multi_gpu --num_processes 2 -m fmboost_core upscale holiday/ holiday-large/ --skip-existing
  Without one, start each with RANK (0, 1 ...), WORLD_SIZE (how many) and LOCAL_RANK (its GPU) in the environment.
  One of several exits with 0 even if it has skipped pictures, because a launcher would stop the others.
"""


# --- arguments


def add_command(commands: Any) -> None:
    parser = commands.add_parser("upscale", help="enlarge a picture, or all pictures of a folder")
    parser.description = (
        "Enlarge pictures. Reads PNG, JPEG, WebP, TIFF, BMP, GIF and, where Pillow does, AVIF; writes PNG, JPEG, WebP "
        "and TIFF."
    )
    parser.epilog, parser.formatter_class = _LAUNCHERS, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("input", nargs="+", metavar="IN", help='a picture, a folder of them, or a pattern such as "trip/*.jpg"')
    add("output", metavar="OUT", help="the new file (.png, .jpg, .webp, .tif), or a folder, which is made if missing")
    add("--recursive", action="store_true", help="also enter the folders in a folder, and keep them in OUT")
    target = parser.add_argument_group(
        "size (one of --scale, --size, --megapixels; default: the model's upscale factor)"
    )
    choice = target.add_mutually_exclusive_group()
    choice.add_argument("--scale", type=positive, metavar="S", help="upscale factor of each side, such as 2 or 3.5")
    choice.add_argument("--size", type=size, metavar="WxH", help="exact size in pixels, such as 1920x1080")
    choice.add_argument("--megapixels", type=positive, metavar="M", help="total size in millions of pixels")
    target.add_argument(
        "--stretch", action="store_true", help="with --size: distort to another aspect instead of cutting the edges"
    )
    _add_method(parser.add_argument_group("method"))
    add(
        "--skip-existing",
        action="store_true",
        help="skip pictures that are there already, made from the same source with the same settings: a stopped run "
        "goes on",
    )
    _add_encoding(parser.add_argument_group("file"))
    add("--compare", type=Path, metavar="FILE", help="also write a picture that shows before and after side by side")
    add(
        "--preview",
        action=argparse.BooleanOptionalAction,
        help="show the result in the terminal, small (default: of a single picture, in terminals that are known to "
        "show pictures; --preview sends sixels to others)",
    )
    parser.set_defaults(run=run, stopped=_STOPPED)


def _add_method(group: Any) -> None:
    add = group.add_argument
    add(
        "--nfe",
        type=count,
        metavar="N",
        help="number of function evaluations of the network, for each stage of the enlarging; more take more time "
        "(default: the model's, which is best)",
    )
    add("--solver", default="euler", help="euler (default), midpoint, heun, rk4, dopri5 ...")
    add(
        "--noise-step",
        type=int,
        metavar="N",
        help="noise in the start, 0 to 999: the higher it is, the more two seeds differ (default: the "
        "model's; `fmboost info MODEL` shows the range it was trained for as noise_steps)",
    )
    add(
        "--strength",
        type=float,
        metavar="S",
        help="how strongly the flow changes the guide, up to 2: more than 1 is crisper, less is softer (default: "
        "0.3 with an upscale model, with a bundled one no flow, or 0.05 with --no-restore; else the model's)",
    )
    add(
        "--upscale-model",
        default=AUTOMATIC,
        metavar="FILE|builtin|none",
        help="what enlarges the picture in the place of interpolation: a file such as Real-ESRGAN's, "
        "the bundled one, or none, which interpolates (default: the bundled one, but none with models that work on "
        "latents alone); some files need the package spandrel",
    )
    add(
        "--seed", type=int, default=0,
        help="another number gives other fine detail where the flow begins with noise (default 0)",
    )  # fmt: skip
    add_model(group)
    add(
        "--no-restore",
        dest="restore",
        action="store_false",
        help="keep the decoded latent as it is, without restoring what the codec loses of the picture",
    )
    add(
        "--tileable",
        choices=("x", "y", "both"),
        help="the picture is a seamless texture and stays one: x from right to left, y from bottom to top, or both",
    )
    add_tile(group)
    add_compute(group)


def _add_encoding(group: Any) -> None:
    add = group.add_argument
    add("--format", choices=FORMATS, help="format of the pictures of a folder (default: as each is)")
    add(
        "--quality",
        type=percent,
        metavar="Q",
        help="quality of JPEG and WebP, 1 to 100 (default: 95; without loss for a WebP of a picture without loss)",
    )
    add(
        "--subsampling",
        choices=("4:4:4", "4:2:2", "4:2:0"),
        default="4:4:4",
        help="colours of a JPEG: 4:4:4 (default) keeps all, 4:2:0 makes smaller files",
    )


def _request(args: argparse.Namespace, tools: Tools, several: bool) -> Request:
    from ..imaging.write import Encoding
    from ..sampling.options import SamplingOptions, flow_behind
    from ..sampling.target import Target
    from .enlarge import Request
    from .terminal import graphics_of

    asked = False if args.preview is None and several else args.preview
    return Request(
        Target(args.scale, args.size, args.megapixels, args.stretch),
        SamplingOptions(
            nfe=args.nfe,
            solver=args.solver,
            noise_step=args.noise_step,
            strength=args.strength,
            tile=args.tile,
            tileable=args.tileable,
        ).resolve(tools.model.spec, behind=flow_behind(tools.upscale_model)),
        seed=args.seed,
        restore=args.restore,
        compare=args.compare,
        encoding=Encoding(args.quality, args.subsampling),
        graphics=graphics_of(sys.stdout, os.environ, asked),
    )


# --- the run


@dataclass
class Outcome:
    """What became of this process's pictures; existing: those that are not made again."""

    existing: int = 0
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    from .device import load_tools
    from .inputs import find_inputs
    from .jobs import check_comparison, names_folder, plan_jobs

    if args.stretch and args.size is None:
        raise ConfigError("--stretch distorts to the aspect of --size; give --size WxH too, or leave out --stretch.")
    process = this_process(os.environ)
    inputs = find_inputs(args.input, args.recursive, Path(args.output))
    tools = load_tools(args.model, args.codec, args.device, args.dtype, args.upscale_model)
    several = inputs.several or len(inputs.sources) > 1
    request = _request(args, tools, several)  # it refuses wrong options, before the output folder is made
    jobs = plan_jobs(inputs, args.output, args.format)
    if request.compare is not None:
        check_comparison(request.compare, jobs)
    if process.rank == 0:
        _note_left_out(inputs)
    # Share first, then skip: the share must not depend on what other processes have written meanwhile.
    mine = share(jobs)
    remaining = _unfinished(mine, tools, request) if args.skip_existing else mine
    recorded = args.skip_existing or names_folder(args.output)
    outcome = Outcome(existing=len(mine) - len(remaining))
    try:
        for number, job in enumerate(remaining, start=1):
            prefix = f"{number}/{len(remaining)} " if len(jobs) > 1 else ""
            _enlarge_or_skip(job, prefix, tools, request, outcome, recorded)
    finally:
        if len(jobs) > 1 or not remaining:
            print(_summary(process, outcome, len(remaining), args.output))
    return SOME_SKIPPED if outcome.skipped and process.count == 1 else OK


def _note_left_out(inputs: Inputs) -> None:
    for sentence in inputs.notes:
        note(sentence)


def _unfinished(jobs: Sequence[Job], tools: Tools, request: Request) -> list[Job]:
    """The jobs whose target is missing or was made otherwise, with notes on what was found."""
    from ..files.weight_file import some_names
    from .progress import ProgressBar
    from .record import judge

    with ProgressBar("Comparing with what is there") as bar:
        verdict = judge(jobs, request.settings(tools), bar)
    for found, text in (
        (verdict.changed, "made from another source or with other settings, so made anew"),
        (verdict.unknown, "kept without knowing from what they were made; delete those that are to be made anew"),
    ):
        if found:
            note(f"{len(found)} of those already there {text}: {some_names(str(job.target) for job in found)}.")
    kept = {*verdict.done, *verdict.unknown}
    return [job for job in jobs if job not in kept]


def _enlarge_or_skip(job: Job, prefix: str, tools: Tools, request: Request, outcome: Outcome, recorded: bool) -> None:
    """One of several pictures (those with a prefix) that fails is skipped; the error of a single one is raised.

    recorded: whether its folder's record is to know it; a record that is there already always does.
    """
    from .enlarge import enlarge
    from .record import RECORD

    try:
        enlarge(job, prefix, tools, request)
        outcome.written.append(job.target)
        if recorded or (job.target.parent / RECORD).exists():
            _record(job, tools, request)
    except Cancelled:
        raise
    except FMBoostError as error:
        if not prefix:
            raise
        print(f"skipped: {one_line(error)}", file=sys.stderr)
        outcome.skipped.append(job.source)


def _record(job: Job, tools: Tools, request: Request) -> None:
    from .record import RECORD, note_made

    try:
        note_made(job, request.settings(tools))
    except OSError as error:
        path = job.target.parent / RECORD
        note(f"{path} cannot be written ({reason(error)}); --skip-existing will not know how {job.target} was made.")


def _summary(process: Process, outcome: Outcome, remaining: int, output: str) -> str:
    who = f"Process {process.rank + 1} of {process.count}: " if process.count > 1 else ""
    existing = f", {outcome.existing} already there" if outcome.existing else ""
    if not remaining:
        return f"{who}nothing to do{existing}."
    skipped = f", {len(outcome.skipped)} skipped: {', '.join(map(str, outcome.skipped))}" if outcome.skipped else ""
    return f"{who}{len(outcome.written)} of {remaining} pictures written to {output}{existing}{skipped}."
