"""Console output: exit codes, notes on stderr, errors as one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OK, SOME_SKIPPED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def note(text: object) -> None:
    """Print a note on stderr, above a progress bar if one is shown."""
    from tqdm import tqdm

    tqdm.write(f"note: {text}", file=sys.stderr)


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Show each warning once, as a note without its place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        note(message)

    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = show
        yield
