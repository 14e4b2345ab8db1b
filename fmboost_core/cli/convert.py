"""The command `convert`: a checkpoint of another program, or another number type, as a model file of FMBoost."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..families import FAMILIES
from .arguments import DTYPES, count, positive

_OPTIONS = ("weights", "heads", "attention", "layout", "family", "scale", "name", "noise_step")


def add_command(commands: Any) -> None:
    parser = commands.add_parser("convert", help="turn a checkpoint of another program into a model file")
    parser.description = (
        "Write any model that FMBoost can read as a model file of its own. All options but --dtype are for a "
        "checkpoint of the reference implementation (CompVis/fm-boosting): they give what its file does not say."
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="a checkpoint or model file")
    add("target", metavar="DST", help="the new file (.safetensors)")
    add("--weights", choices=("ema", "online"), help="which weights to take (default: EMA, or online without EMA)")
    add("--heads", type=count, metavar="N", help="number of attention heads (default 4)")
    add("--attention", choices=("full", "linear"), help="kind of attention (default full)")
    add("--layout", choices=("reference", "standard"), help="order of the attention's channels (default reference)")
    add("--family", metavar="NAME", help=f"latent space: {', '.join(FAMILIES)} (default sd15)")
    add("--scale", type=positive, metavar="S", help="upscale factor it was trained for (default 2)")
    add("--name", help="short name (default: the file's)")
    add("--noise-step", type=int, metavar="N", help="noise step it was trained at (default 400)")
    add("--dtype", choices=DTYPES, help="number type of the stored weights (default float32)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    import torch

    from ..files.checkpoint import convert

    options = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    dtype = getattr(torch, args.dtype) if args.dtype else None
    if os.path.realpath(args.source) == os.path.realpath(args.target):
        raise CheckpointError(f"{args.target} is the source itself; name another file.")
    model = convert(args.source, args.target, dtype=dtype, **options)
    print(f"{args.target}  {model.spec.name}  {Path(args.target).stat().st_size / 1e6:.1f} MB")
