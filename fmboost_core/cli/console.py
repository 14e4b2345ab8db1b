"""Console output: exit codes, notes on stderr, errors as one line."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OK, SOME_SKIPPED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def escape_what_cannot_be_shown() -> None:
    """Let stdout and stderr write characters that the console's encoding lacks as escapes, such as \\u30c6.

    Names of files can hold any character, and bytes that are none. A name must not end a run.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_pillow() -> None:
    """Pillow logs what it finds in damaged files; without a handler Python prints that above the error of ours."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())


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
