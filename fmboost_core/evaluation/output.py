"""Text and JSON files of results, each written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files.atomic import replacing


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises `ConfigError` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be made ({error.strerror}); choose another --out.") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file, with escapes for the bytes of a name that are no UTF-8. Raises `FileError` where it fails."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON. Raises `ValueError` for NaN and infinity, which JSON lacks."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")
