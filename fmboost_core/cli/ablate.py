"""The command `ablate`: the paper's comparisons at the scale of one machine."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..evaluation.paper.tables import TABLES

if TYPE_CHECKING:
    from ..evaluation.paper.setup import AblationSetup


def add_command(commands: Any) -> None:
    """Add `ablate` to a parser's subcommands."""
    parser: argparse.ArgumentParser = commands.add_parser("ablate", help="the paper's comparisons, on this machine")
    parser.description = "Train the networks of the paper's comparisons, evaluate them, and write tables and plots."
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help=f"{', '.join(TABLES)}, codec, timing, pictures, trajectory")
    add("--data", type=Path, required=True, help="folder of shards: x2, x4 and x4-degraded (see docs)")
    add("--photos", nargs="+", type=Path, required=True, help="photographs to evaluate on, never trained on")
    add("--codec", default="builtin", help="the one that made the shards")
    add("--work", type=Path, required=True, help="folder of networks and figures, which later runs continue from")
    add("--out", type=Path, required=True, help="folder of the tables and plots")
    add("--size", type=int, default=512, help="largest side of the centre crops, in pixels (default 512)")
    add("--bf16", action="store_true", help="the codec in bf16, faster where the processor has it")
    add("--every", type=int, default=1, metavar="N", help="only each N-th photograph")
    add("--samples", type=int, help="training samples of each network, instead of the table's")
    add("--compile", action="store_true", help="train with torch.compile: faster, needs a C++ compiler")
    add("--train-only", action="store_true", help="train the networks and stop")
    parser.set_defaults(run=_ablate, stopped="Stopped; the same command continues.")


def _ablate(args: argparse.Namespace) -> None:
    from ..evaluation.paper.studies import STUDIES

    unknown = [name for name in args.names if name not in TABLES and name not in STUDIES]
    if unknown:
        raise ConfigError(f"There is no ablation {', '.join(unknown)}; choose from {', '.join([*TABLES, *STUDIES])}.")
    setup = _setup(args)
    for name in args.names:
        if name in STUDIES:
            STUDIES[name](setup)
        else:
            _make_table(name, setup, args.train_only)
        if name in STUDIES or not args.train_only:
            print(args.out / f"{name}.md")


def _setup(args: argparse.Namespace) -> AblationSetup:
    import torch

    from ..codecs.kl import open_codec
    from ..evaluation.output import make_folder
    from ..evaluation.paper.setup import AblationSetup
    from ..evaluation.photographs import every_nth, find_named

    make_folder(args.work)
    make_folder(args.out)
    return AblationSetup(
        args.data, args.work, args.out,
        photos=every_nth(find_named(args.photos), args.every),
        codec=open_codec(args.codec).to(torch.bfloat16 if args.bf16 else torch.float32),
        codec_name=args.codec, bf16=args.bf16, size=args.size, samples=args.samples, compiled=args.compile,
        report=partial(print, file=sys.stderr),
    )  # fmt: skip


def _make_table(name: str, setup: AblationSetup, train_only: bool) -> None:
    from ..evaluation.paper.ablate import evaluate_table, write_table
    from ..evaluation.paper.networks import trained_networks
    from .progress import ProgressBar

    networks = trained_networks(TABLES[name], setup)
    if train_only:
        return
    with ProgressBar(f"Evaluating {name}") as bar:
        summary = evaluate_table(name, networks, setup, bar)
    write_table(name, summary, setup)
