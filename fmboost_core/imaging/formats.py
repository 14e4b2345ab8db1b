"""File formats of images: those that are read, those that are written, and their limits."""

from __future__ import annotations

from PIL import features

_AVIF = features.check("avif")  # Pillow before 11.3 and some builds of it do not read it
READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", *(["AVIF"] if _AVIF else []))
READ_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", *([".avif"] if _AVIF else []),
)  # fmt: skip
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".webp": "WEBP"}
LARGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}  # pixels


def listed(names: tuple[str, ...]) -> str:
    """The names as part of a sentence: "PNG, JPEG or WEBP"."""
    return ", ".join(names[:-1]) + " or " + names[-1]
