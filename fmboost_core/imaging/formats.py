"""File formats of images: those that are read, those that are written, and their limits."""

from __future__ import annotations

from PIL import features

_HAS_AVIF = "avif" in features.modules and features.check("avif")  # Pillow from 11.3, if it was built so

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF") + (("AVIF",) if _HAS_AVIF else ())
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif") + (
    (".avif",) if _HAS_AVIF else ()
)
WRITE_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
LARGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}  # pixels


def listed(names: tuple[str, ...]) -> str:
    """The names as part of a sentence: "PNG, JPEG or WEBP"."""
    return ", ".join(names[:-1]) + " or " + names[-1]
