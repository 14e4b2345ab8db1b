"""What a file carries, gathered from each format into `Metadata`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from PIL import Image

from .exif import FoundExif, from_directory, read_exif
from .metadata import Metadata, upright_xmp, with_recipe, xmp_orientation
from .png import XMP_KEYWORD, Chunk, PngFile, Text, profile_of, texts_of
from .tiff import PROFILE, XMP, Page

JPEG_XMP, JPEG_MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
COLOUR_CHUNKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI")
# Text, EXIF, profile and resolution are carried in another way; the others describe the old file.
_READ_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"pHYs")
_OF_THE_FILE = (b"sBIT", b"hIST", b"tIME", b"sPLT", b"bKGD", b"acTL", b"IDOT", b"iDOT")
_JPEG_OF_THE_FILE = {"APP0", "APP2", "APP12", "APP13", "APP14"}  # sizes, thumbnails, quality; ICC and IPTC are read
_RAW_EXIF = ("Raw profile type exif", "Raw profile type APP1")  # how ImageMagick writes EXIF data into a PNG


@dataclass(frozen=True)
class Carried:
    """A file's metadata, its orientation (1 to 8, 1 is upright), and notes on what was left out."""

    metadata: Metadata
    orientation: int = 1
    notes: tuple[str, ...] = ()


def from_png(png: PngFile) -> Carried:
    """What the chunks of a PNG hold."""
    texts, notes = list[Text](), list(png.notes)
    xmp, raw_exif = None, None
    for text in texts_of(png.chunks):
        if text.keyword == XMP_KEYWORD and text.value is not None:
            xmp = text.value.encode()
        elif text.keyword in _RAW_EXIF and text.value is not None:
            raw_exif = _from_hex(text.value)
        else:
            texts.append(text)
    profile = png.find(b"iCCP")
    icc = profile_of(profile) if profile is not None else None
    if profile is not None and icc is None:
        notes.append("the ICC profile is damaged and was left out")
    dpi, more = _png_dpi(png.find(b"pHYs"))
    others = {c.kind for c in png.chunks} - {*_READ_CHUNKS, *_OF_THE_FILE, *COLOUR_CHUNKS}
    if others:
        more += (f"the PNG chunks {', '.join(sorted(kind.decode('latin-1') for kind in others))} were left out",)
    colour = {c.kind: c for c in reversed(png.chunks) if c.kind in COLOUR_CHUNKS}
    metadata = Metadata(icc, xmp=xmp, texts=tuple(texts), dpi=dpi, colour=tuple(colour.values()))
    exif = png.find(b"eXIf") or raw_exif
    return _with_exif(metadata, read_exif(exif) if exif else FoundExif(), (*notes, *more))


def from_jpeg(image: Image.Image) -> Carried:
    """What the segments of a JPEG hold."""
    segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
    exif, xmp, more, comments, others = None, None, list[bytes](), list[bytes](), set[str]()
    for marker, body in segments:
        if marker == "COM":
            comments.append(body)
        elif marker == "APP1" and body.startswith(b"Exif\0"):
            exif = exif or body
        elif marker == "APP1" and body.startswith(JPEG_XMP):
            xmp = xmp or body[len(JPEG_XMP) :]
        elif marker == "APP1" and body.startswith(JPEG_MORE_XMP):
            more.append(body)
        elif marker not in _JPEG_OF_THE_FILE:
            others.add(marker)
    notes: tuple[str, ...] = (f"the JPEG segments {', '.join(sorted(others))} were left out",) if others else ()
    photoshop = image.info.get("photoshop")
    iptc = photoshop.get(0x0404) if isinstance(photoshop, dict) else None
    density, unit = image.info.get("jfif_density"), image.info.get("jfif_unit")
    dpi = None
    if density and unit in (1, 2) and min(density) > 0:
        dpi = (density[0] * (2.54 if unit == 2 else 1), density[1] * (2.54 if unit == 2 else 1))
    elif density and min(density) > 0 and density[0] != density[1]:
        notes += (f"the shape of its pixels, {density[0]}:{density[1]}, was left out",)
    metadata = Metadata(_profile(image), xmp=xmp, more_xmp=tuple(more), comments=tuple(comments), dpi=dpi)
    metadata = replace(metadata, iptc=iptc if isinstance(iptc, bytes) else None)
    return _with_exif(metadata, read_exif(exif) if exif else FoundExif(), notes)


def from_tiff(page: Page) -> Carried:
    """What the directory of a TIFF's page holds. Its orientation is told; Pillow has applied it where it loads."""
    icc = page.fields[PROFILE].data if PROFILE in page.fields else None
    xmp = page.fields[XMP].data if XMP in page.fields else None
    return _with_exif(Metadata(icc or None, xmp=xmp or None), from_directory(page.fields, page.reader), ())


def from_other(image: Image.Image, data: bytes) -> Carried:
    """What Pillow tells of a WebP, AVIF, GIF or BMP."""
    info = image.info
    xmp, exif, comment, dpi = (info.get(key) for key in ("xmp", "exif", "comment", "dpi"))
    plain = isinstance(dpi, tuple) and len(dpi) == 2 and min(dpi) > 0
    metadata = Metadata(
        _profile(image),
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        comments=(comment,) if isinstance(comment, bytes) and comment else (),
        dpi=(float(dpi[0]), float(dpi[1])) if plain and dpi else None,
        colour=_avif_colour(data) if image.format == "AVIF" else (),
    )
    found = read_exif(exif) if isinstance(exif, bytes) and exif else FoundExif()
    return _with_exif(metadata, found, ())


def _with_exif(metadata: Metadata, found: FoundExif, notes: tuple[str, ...]) -> Carried:
    """The metadata with EXIF data; recipes become texts, and the XMP packet is of an upright picture."""
    orientation = found.orientation if found.orientation != 1 else xmp_orientation(metadata.xmp)
    metadata = replace(metadata, exif=found.exif, dpi=metadata.dpi or found.dpi, xmp=upright_xmp(metadata.xmp))
    return Carried(with_recipe(metadata), orientation, notes + found.notes)


def _profile(image: Image.Image) -> bytes | None:
    found = image.info.get("icc_profile")
    return found if isinstance(found, bytes) and found else None


def _png_dpi(body: bytes | None) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Dots per inch of a pHYs chunk; without a unit it says the shape of a pixel, which is noted."""
    if body is None or len(body) != 9:
        return None, ()
    x, y, unit = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big"), body[8]
    if not x or not y:
        return None, ()
    if unit == 1:
        return (x * 0.0254, y * 0.0254), ()
    return None, () if x == y else (f"the shape of its pixels, {x}:{y}, was left out",)


def _from_hex(text: str) -> bytes | None:
    """The data of a "Raw profile": a name, a length and hexadecimal digits in lines."""
    parts = text.split(None, 2)
    try:
        return bytes.fromhex(parts[2]) if len(parts) == 3 else None
    except ValueError:
        return None


def _avif_colour(data: bytes) -> tuple[Chunk, ...]:
    """The colours that an AVIF names by numbers, as a PNG's chunk; without them, and for sRGB, none."""
    match = re.search(rb"colrnclx(.{7})", data[:65536], re.DOTALL)
    if match is None:
        return ()
    primaries, curve = match[1][1], match[1][3]
    return (
        ()
        if (primaries, curve) in ((1, 13), (2, 2), (1, 1), (1, 2))
        else (Chunk(b"cICP", bytes([primaries, curve, 0, 1])),)
    )
