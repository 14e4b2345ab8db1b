"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ..errors import ImageError, reason


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` for the body to write; it takes path's place only if the body succeeds."""
    target = Path(os.path.realpath(path))  # a link stays a link to the new content
    temporary = target.parent / f".fmboost-{uuid4().hex}.tmp"
    try:
        yield temporary
        temporary.replace(target)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be written ({reason(error)}).") from None
    finally:
        temporary.unlink(missing_ok=True)
