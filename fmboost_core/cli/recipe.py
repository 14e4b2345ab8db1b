"""The command `recipe`: prints a bundled recipe."""

from __future__ import annotations

import argparse
from typing import Any

from ..training.recipes import recipe_names, recipe_text


def add_command(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = commands.add_parser("recipe", help="print a recipe of a training, to change it")
    parser.description = "Print a bundled recipe as TOML. train --recipe FILE takes a changed copy."
    parser.add_argument("name", choices=recipe_names())
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(recipe_text(args.name), end="")
    return 0
