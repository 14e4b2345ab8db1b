"""The files below a folder, also behind symbolic links, and what paths are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walk(folder: Path, depth: int | None = None, without: Path | None = None) -> Iterator[Path]:
    """Yield what is below a folder and is no folder itself, in no order. Hidden folders are not entered.

    Links to folders are followed, except to a folder that the link itself is in, which has no end. depth: how many
    levels of names there are at most, 1 for the folder's own files; None: any number. without: a folder that is left
    out. A folder below that cannot be read is yielded itself. Raises `OSError` where the folder itself cannot be read.
    """
    left_out = None if without is None else os.path.realpath(without)
    pending = [(folder, 1, frozenset({os.path.realpath(folder)}))]
    while pending:
        place, level, above = pending.pop()
        try:
            entries = list(place.iterdir())
        except OSError:
            if place == folder:
                raise
            yield place
            continue
        for entry in entries:
            if not is_folder(entry):
                yield entry
                continue
            real = os.path.realpath(entry)
            enters = (depth is None or level < depth) and not entry.name.startswith(".")
            if enters and real not in above and real != left_out:
                pending.append((entry, level + 1, above | {real}))


# Path's own tests raise where a folder may not be looked into, and for what no file can be called.


def is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


def is_text(path: Path) -> bool:
    """Whether a path's names are text, and not bytes that the system's encoding does not know."""
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def as_text(name: str) -> str:
    """A file's name with escapes in place of the bytes that are no text, for tables and drawings."""
    return name.encode(errors="backslashreplace").decode()
