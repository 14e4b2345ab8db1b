"""The program `fmboost`: its commands, exit codes and errors.

Each command is a module of this package with a function `add_command(commands)`, which adds a parser to argparse's
subparsers and sets its default `run`: a function from the parsed arguments to an exit code, or to None for success.
A command can also set `stopped`, the sentence for Ctrl-C. PyTorch and Pillow are imported when a command runs, so
that help and mistyped options answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from ..errors import Cancelled, FMBoostError
from .console import INTERRUPTED, OK, REFUSED, escape_what_cannot_be_shown, one_line, silence_pillow, warnings_as_notes

COMMANDS = (
    "upscale", "info", "convert", "export", "models", "bench", "doctor", "completion", "encode", "train", "recipe",
    "evaluate", "ablate",
)  # fmt: skip

_STOPPED = "Stopped; no file was left half-written."
_EXAMPLES = """examples:
  fmboost upscale photo.jpg large.png                     twice as large
  fmboost upscale photo.jpg large.jpg --scale 4 --compare look.png
  fmboost upscale photo.jpg wall.png --size 3840x2160
  fmboost upscale holiday/ holiday-large/                 all pictures of a folder
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 done, 1 some pictures skipped, 2 refused, 130 interrupted."""
    stopped = _STOPPED
    escape_what_cannot_be_shown()
    silence_pillow()
    try:
        args = make_parser().parse_args(argv)
        stopped = args.stopped
        with warnings_as_notes():
            code: int = args.run(args) or OK
            if sys.stdout is not None:  # a program without a console has none
                sys.stdout.flush()  # a closed pipe is found here and not while Python exits
            return code
    except (KeyboardInterrupt, Cancelled):
        print(stopped, file=sys.stderr)
        return INTERRUPTED
    except FMBoostError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the program, with all its commands."""
    parser = _Parser(
        prog="fmboost",
        description="FMBoost enlarges photographs: a small network adds the detail that interpolation cannot.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(stopped=_STOPPED)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"{__package__}.{name}").add_command(commands)
    return parser
