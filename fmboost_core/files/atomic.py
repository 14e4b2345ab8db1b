"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import os
import platform
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ..errors import FileError, FMBoostError, reason

_TEMPORARY = re.compile(r"\.fmboost-([0-9a-f]{8})-(\d+)-[0-9a-f]{32}\.tmp")
_LONG_AGO = 86_400  # seconds
_swept: set[Path] = set()  # the folders that this process has looked through


@contextmanager
def replacing(path: Path, error: type[FMBoostError] = FileError) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; the block writes it, and it replaces `path` at the end.

    If the block fails, an older file at `path` stays as it was and the temporary file is removed. A symbolic link
    stays a link, and the file that it points to is replaced. A missing folder is made. Temporary files of processes
    that were killed are removed.

    Raises `error`, which names the file and the reason, for an OSError or a ValueError of the block (a full disk, a
    writer that refuses the data). Other errors, FMBoost's own among them, pass through.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".fmboost-{_machine()}-{os.getpid()}-{uuid4().hex}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        yield temporary
        temporary.replace(target)
    except FMBoostError:
        raise
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be written ({reason(cause)}); choose another place, or make room there.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode(errors='replace')):08x}"


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, the first time that this process writes there."""
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for path in folder.glob(".fmboost-*.tmp"):
            if _is_abandoned(path):
                path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    """Whether the process that wrote a temporary file is gone."""
    match = _TEMPORARY.fullmatch(path.name)
    if match and match[1] == _machine() and os.name == "posix":
        return not _is_running(int(match[2]))
    # Of another machine's process, and on Windows, where asking a process for its life would end it.
    return time.time() - path.stat().st_mtime > _LONG_AGO


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        return True
    return True
