"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ..errors import FileError, FMBoostError, reason


@contextmanager
def replacing(path: Path, error: type[FMBoostError] = FileError) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; the block writes it, and it replaces `path` at the end.

    If the block fails, an older file at `path` stays as it was and the temporary file is removed. A symbolic link
    stays a link, and the file that it points to is replaced.

    Raises `error`, which names the file and the reason, for an OSError or a ValueError of the block (a full disk, a
    writer that refuses the data). Other errors, FMBoost's own among them, pass through.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".fmboost-{uuid4().hex}.tmp"
    try:
        yield temporary
        temporary.replace(target)
    except FMBoostError:
        raise
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be written ({reason(cause)}).") from None
    finally:
        temporary.unlink(missing_ok=True)
