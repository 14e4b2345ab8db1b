"""`python -m fmboost_core.evaluation run | ablate | latents | floor | stability`: how good models, or pictures, are.

Tables and plots come out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import FMBoostError
from ..evaluation import ablate, latents, run, stability

COMMANDS = (
    run.add_command,
    ablate.add_command,
    latents.add_command,
    stability.add_command,
)  # each adds subcommands and sets their `run`


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fmboost_core.evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for add_command in COMMANDS:
        add_command(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except FMBoostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
