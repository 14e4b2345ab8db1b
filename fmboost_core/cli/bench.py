"""The command `bench`: time, memory and FLOP on this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import FileError
from .arguments import add_compute, add_model, add_tile, count


def add_command(commands: Any) -> None:
    parser = commands.add_parser("bench", help="measure time and memory on this machine")
    parser.description = "Measure enlarging to square pictures, each in a process of its own."
    add = parser.add_argument
    add(
        "--sizes",
        type=count,
        nargs="+",
        default=[512, 1024],
        metavar="N",
        help="sides of the results in pixels (default 512 1024)",
    )
    add(
        "--nfe",
        type=count,
        nargs="+",
        default=[1, 4],
        metavar="N",
        help="numbers of function evaluations of the network (default 1 4)",
    )
    add("--repeat", type=count, default=3, metavar="N", help="take the median of N runs (default 3)")
    add("--parts", action="store_true", help="measure the parts of upscaling a latent instead, each alone")
    add("--json", type=Path, metavar="FILE", help="also write the numbers to this file")
    add_model(parser)
    add_tile(parser)
    add_compute(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from ..files.atomic import replacing
    from .device import default_model
    from .measure import BenchSettings, as_json, measure_all, measure_parts, parts_table, table
    from .progress import ProgressBar

    model = args.model or default_model(args.codec)
    settings = BenchSettings(model, args.codec, args.device, args.dtype, args.tile, args.repeat)
    _check_json(args.json)
    with ProgressBar("bench") as bar:
        if args.parts:
            report, text = measure_parts(settings, args.sizes, bar), parts_table
        else:
            report, text = measure_all(settings, args.sizes, args.nfe, bar), table
    print(text(report))
    if args.json is not None:
        with replacing(args.json) as temporary:
            temporary.write_text(as_json(report), encoding="utf-8")
        print(args.json)


def _check_json(path: Path | None) -> None:
    """Refuse a file that cannot be written before minutes of measuring."""
    if path is None:
        return
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not there.is_dir() or not os.access(there, os.W_OK):
        raise FileError(f"{path} cannot be written, as it is a folder or {there} is no open one; name another file.")
