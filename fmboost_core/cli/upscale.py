"""The command `upscale`: enlarge pictures and folders of them, alone or as one of several processes."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, FMBoostError
from .arguments import add_device, add_model, add_tile, count, positive, size
from .console import OK, SOME_SKIPPED, one_line
from .processes import Process, share, this_process

if TYPE_CHECKING:
    from .device import Tools
    from .enlarge import Request
    from .jobs import Job

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
    parser.description = "Enlarge pictures. Reads PNG, JPEG, WebP, TIFF, BMP and GIF; writes PNG, JPEG and WebP."
    parser.epilog, parser.formatter_class = _LAUNCHERS, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("input", nargs="+", metavar="IN", help='a picture, a folder of them, or a pattern such as "trip/*.jpg"')
    add("output", metavar="OUT", help="the new file (.png, .jpg, .webp), or a folder for several pictures")
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
    add("--skip-existing", action="store_true", help="skip pictures whose new file exists, to continue a stopped run")
    add("--compare", type=Path, metavar="FILE", help="also write a picture that shows before and after side by side")
    parser.set_defaults(run=run)


def _add_method(group: Any) -> None:
    add = group.add_argument
    add(
        "--nfe",
        type=count,
        metavar="N",
        help="number of function evaluations of the network, for each stage of the enlarging: more give more detail "
        "and take more time (default: the model's)",
    )
    add("--solver", default="euler", help="euler (default), midpoint, heun, rk4, dopri5 ...")
    add(
        "--noise-step",
        type=int,
        metavar="N",
        help="noise in the start, 0 to 999: less stays closer to the picture, more adds more detail (default: the "
        "model's; `fmboost info MODEL` shows the range it was trained for as noise_steps)",
    )
    add("--seed", type=int, default=0, help="another number gives other fine detail (default 0)")
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
    add_device(group)


def _request(args: argparse.Namespace, tools: Tools) -> Request:
    from ..sampling.options import SamplingOptions
    from ..sampling.target import Target
    from .enlarge import Request

    return Request(
        Target(args.scale, args.size, args.megapixels, args.stretch),
        SamplingOptions(
            nfe=args.nfe, solver=args.solver, noise_step=args.noise_step, tile=args.tile, tileable=args.tileable
        ).resolve(tools.model.spec),
        seed=args.seed,
        restore=args.restore,
        compare=args.compare,
    )


# --- the run


@dataclass
class Outcome:
    """What became of this process's pictures; existing: those whose file was there before."""

    existing: int = 0
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    from .device import load_tools
    from .jobs import check_comparison, plan_jobs, unfinished

    process = this_process(os.environ)
    tools = load_tools(args.model, args.codec, args.device, args.dtype)
    request = _request(args, tools)  # it refuses wrong options, before the output folder is made
    jobs = plan_jobs(args.input, args.output)
    if request.compare is not None:
        check_comparison(request.compare, jobs)
    # Share first, then skip: the share must not depend on what other processes have written meanwhile.
    mine = share(jobs)
    remaining = unfinished(mine) if args.skip_existing else mine
    outcome = Outcome(existing=len(mine) - len(remaining))
    try:
        for number, job in enumerate(remaining, start=1):
            prefix = f"{number}/{len(remaining)} " if len(jobs) > 1 else ""
            _enlarge_or_skip(job, prefix, tools, request, outcome)
    finally:
        if len(jobs) > 1 or not remaining:
            print(_summary(process, outcome, len(remaining), args.output))
    return SOME_SKIPPED if outcome.skipped and process.count == 1 else OK


def _enlarge_or_skip(job: Job, prefix: str, tools: Tools, request: Request, outcome: Outcome) -> None:
    """One of several pictures (those with a prefix) that fails is skipped; the error of a single one is raised."""
    from .enlarge import enlarge

    try:
        enlarge(job, prefix, tools, request)
        outcome.written.append(job.target)
    except Cancelled:
        raise
    except FMBoostError as error:
        if not prefix:
            raise
        print(f"skipped: {one_line(error)}", file=sys.stderr)
        outcome.skipped.append(job.source)


def _summary(process: Process, outcome: Outcome, remaining: int, output: str) -> str:
    who = f"Process {process.rank + 1} of {process.count}: " if process.count > 1 else ""
    existing = f", {outcome.existing} already there" if outcome.existing else ""
    if not remaining:
        return f"{who}nothing to do{existing}."
    skipped = f", {len(outcome.skipped)} skipped: {', '.join(map(str, outcome.skipped))}" if outcome.skipped else ""
    return f"{who}{len(outcome.written)} of {remaining} pictures written to {output}{existing}{skipped}."
