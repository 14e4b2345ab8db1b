"""File formats of images: those that are read, those that are written, and their limits."""

from __future__ import annotations

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LARGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}  # pixels


def listed(names: tuple[str, ...]) -> str:
    """The names as part of a sentence: "PNG, JPEG or WEBP"."""
    return ", ".join(names[:-1]) + " or " + names[-1]
