"""Metadata of image files: EXIF data, orientation, ICC profiles, bit depth."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

EXIF_JPEG_LIMIT = 65533  # bytes

_ORIENTATION = 0x0112
# These tags describe the photograph. All others of the main directory describe the old file itself.
_EXIF_KEPT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_EXIF_DIRECTORIES = (0x8769, 0x8825)  # camera settings, GPS
# Maker note (it holds offsets into the old file), width, height, interoperability.
_EXIF_STALE = (0x927C, 0xA002, 0xA003, 0xA005)


def read_exif(image: Image.Image) -> tuple[int, bytes | None]:
    """The orientation (1 to 8, 1 is upright) and the EXIF data to keep; (1, None) for unreadable data."""
    try:
        old = image.getexif()
        # Pillow turns a TIFF upright while it loads, and older versions leave the tag as it was.
        orientation = 1 if image.format == "TIFF" else old.get(_ORIENTATION, 1)
        kept = Image.Exif()
        for tag in _EXIF_KEPT:
            if tag in old:
                kept[tag] = old[tag]
        for tag in _EXIF_DIRECTORIES:
            directory = {k: v for k, v in old.get_ifd(tag).items() if k not in _EXIF_STALE}
            if directory:
                kept[tag] = directory
        return orientation, kept.tobytes() if len(kept) else None
    except Exception:  # Pillow's EXIF parser and writer raise nearly anything on what cameras write
        return 1, None


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned and mirrored by its EXIF orientation; a value outside 2..8 changes nothing.

    Of the EXIF data Pillow is given the orientation alone, because it rewrites all that it finds, and fails on some.
    """
    if orientation not in range(2, 9):
        return image
    exif = Image.Exif()
    exif[_ORIENTATION] = int(orientation)
    tagged = image.copy()
    tagged.info = {"exif": exif.tobytes()}
    return ImageOps.exif_transpose(tagged)


def profile_space(icc: bytes) -> str:
    """The colour space in an ICC profile's header: "RGB", "GRAY", "CMYK"."""
    return icc[16:20].decode("ascii", "replace").strip()


def fitting_profile(icc: bytes | None, grey: bool) -> bytes | None:
    """The ICC profile if it describes grey, or RGB, as the pixels are; else None."""
    return icc if icc and profile_space(icc) == ("GRAY" if grey else "RGB") else None


def png_header(path: Path) -> tuple[int, ...]:
    """The bits of a channel and the colour type of a PNG; () for another file."""
    with path.open("rb") as file:
        head = file.read(26)
    return tuple(head[24:26]) if head[:8] == b"\x89PNG\r\n\x1a\n" else ()


def bit_depth_notes(image: Image.Image, path: Path) -> tuple[str, ...]:
    """A note where Pillow, which has no colour with 16 bits, reads 8 of them."""
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        bits = png_header(path)[:1]
        if image.format == "TIFF":
            bits = tuple(getattr(image, "tag_v2", {}).get(258, ()))[:1]
        if bits == (16,):
            return ("16 bits a channel were read as 8 (only grey without alpha keeps 16)",)
    return ()
