"""`python -m fmboost_core.evaluation run|latents|floor|stability|ablate`: ways to `fmboost evaluate` and `ablate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..cli import app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of `fmboost`; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return app.main(words if words[:1] == ["ablate"] else ["evaluate", *words])


if __name__ == "__main__":
    sys.exit(main())
