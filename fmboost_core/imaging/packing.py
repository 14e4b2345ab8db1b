"""`Metadata` in the form that each written format takes, and notes on what a format cannot keep."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from . import infotext
from .carried import JPEG_XMP
from .exif import ARTIST, COPYRIGHT, DESCRIPTION, JPEG_LIMIT, SOFTWARE, TITLE, Exif, resolution
from .ifd import BYTE, UNDEFINED, Field, Fields, Order
from .metadata import GRAPHS, Metadata
from .png import XMP_KEYWORD, Chunk, Text
from .tiff import PROFILE, XMP

_SEGMENT = 65533  # bytes that a JPEG segment holds
_LONGEST = 2**26  # bytes of EXIF data in other formats
_EXIF_TEXTS = {
    "Title": TITLE, "Description": DESCRIPTION, "Author": ARTIST, "Copyright": COPYRIGHT, "Software": SOFTWARE,
}  # fmt: skip
_COMMENT = "Comment"  # the keyword in PNG of what JPEG holds as its comment


@dataclass(frozen=True)
class Packed:
    """What a file is written with. options: of Pillow's writer. chunks: of a PNG. fields: of a TIFF, in an order."""

    options: dict[str, Any] = field(default_factory=dict)
    chunks: tuple[Chunk, ...] = ()
    fields: dict[int, Field | Fields] = field(default_factory=dict)
    order: Order = "<"
    notes: tuple[str, ...] = ()


def pack(metadata: Metadata, kind: str, grey: bool) -> Packed:
    """The metadata for a file of a kind ("PNG"), whose pixels are grey or in colour."""
    return {"PNG": _for_png, "JPEG": _for_jpeg, "WEBP": _for_webp, "TIFF": _for_tiff}[kind](metadata, grey)


def _for_png(m: Metadata, grey: bool) -> Packed:
    chunks = list(m.colour)
    if m.icc:
        # PNG holds either a profile or sRGB, and the profile says more.
        chunks = [chunk for chunk in chunks if chunk.kind != b"sRGB"]
        chunks.append(Chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(m.icc)))
    if m.dpi:
        x, y = (min(round(value / 0.0254), 2**31 - 1) for value in m.dpi)
        chunks.append(Chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if m.exif:
        chunks.append(Chunk(b"eXIf", m.exif.tobytes()[6:]))
    if m.xmp:
        chunks.append(Chunk(b"iTXt", XMP_KEYWORD.encode() + b"\0\0\0\0\0" + m.xmp))
    chunks += [text.to_chunk() for text in m.texts]
    chunks += [Text(_COMMENT, _decoded(comment)).to_chunk() for comment in m.comments]
    return Packed(chunks=tuple(chunks), notes=tuple(_left_out(replace(m, comments=()), "PNG")))


def _for_jpeg(m: Metadata, grey: bool) -> Packed:
    m, comments, notes = _texts_into_exif(m, "JPEG", JPEG_LIMIT)
    profile, more = m.profile(grey)
    segments = [(b"\xfe", comment) for comment in (*m.comments, *comments)]
    if m.xmp:
        segments.append((b"\xe1", JPEG_XMP + m.xmp))
    segments += [(b"\xe1", body) for body in m.more_xmp]
    if m.iptc:
        resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(m.iptc)) + m.iptc + b"\0" * (len(m.iptc) % 2)
        segments.append((b"\xed", b"Photoshop 3.0\0" + resource))
    if any(len(body) > _SEGMENT for _, body in segments):
        more += ("a comment, the XMP or the IPTC data is too long for JPEG and was left out",)
    extra = b"".join(
        b"\xff" + marker + struct.pack(">H", len(body) + 2) + body for marker, body in segments if len(body) <= _SEGMENT
    )
    options: dict[str, Any] = {"extra": extra}
    if m.dpi:
        options["dpi"] = tuple(min(max(round(value), 1), 65535) for value in m.dpi)
    if m.exif:
        options["exif"] = m.exif.tobytes()
    if profile:
        options["icc_profile"] = profile
    return Packed(options, notes=notes + more)


def _for_webp(m: Metadata, grey: bool) -> Packed:
    m, comments, notes = _texts_into_exif(m, "WebP", _LONGEST)
    profile, more = m.profile(grey=False)  # WebP has no grey
    exif, comments = m.exif, (*m.comments, *comments)
    if comments and not exif.comment:
        exif, comments = replace(exif, comment=_decoded(comments[0])), comments[1:]
    if m.dpi:
        exif = exif.with_dpi(m.dpi)
    options: dict[str, Any] = {"xmp": m.xmp or b"", "exif": exif.tobytes() if exif else b"", "icc_profile": profile}
    left = _left_out(replace(m, comments=comments), "WebP")
    return Packed(options, notes=(*notes, *more, *left))


def _for_tiff(m: Metadata, grey: bool) -> Packed:
    m, comments, notes = _texts_into_exif(m, "TIFF", _LONGEST)
    profile, more = m.profile(grey)
    exif, comments = m.exif, (*m.comments, *comments)
    if comments and not exif.comment:
        exif, comments = replace(exif, comment=_decoded(comments[0])), comments[1:]
    fields = exif.fields()
    if m.dpi:
        fields |= resolution(m.dpi, exif.order)
    if profile:
        fields[PROFILE] = Field(UNDEFINED, profile)
    if m.xmp:
        fields[XMP] = Field(BYTE, m.xmp)
    left = _left_out(replace(m, comments=comments), "TIFF")
    return Packed(fields=fields, order=exif.order, notes=(*notes, *more, *left))


def _texts_into_exif(m: Metadata, name: str, limit: int) -> tuple[Metadata, tuple[bytes, ...], tuple[str, ...]]:
    """PNG texts as EXIF data, as the hosts write them: the metadata, comments besides, and notes on the rest.

    limit: bytes of EXIF data that the format holds; what makes it too long is left out, texts first.
    """
    exif, comments, lost = m.exif, list[bytes](), list[str]()
    too_long = len(exif.tobytes()) > limit
    if too_long:
        exif = Exif()
    for text in m.texts:
        if text.keyword == _COMMENT and text.value:
            comments.append(text.value.encode("utf-8", "surrogateescape"))
            continue
        longer = _with_text(exif, text)
        if longer is None or len(longer.tobytes()) > limit:
            lost.append(text.keyword)
        else:
            exif = longer
    notes: tuple[str, ...] = (f"the EXIF data is too long for {name} and was left out",) if too_long else ()
    if lost:
        notes += (f"{name} has no place for the {'text' if len(lost) == 1 else 'texts'} {', '.join(lost)}",)
    return replace(m, exif=exif, texts=()), tuple(comments), notes


def _with_text(exif: Exif, text: Text) -> Exif | None:
    """EXIF data with a text; None where there is no place for it, or another text is there already."""
    if text.value is None:
        return None
    if text.keyword == infotext.KEYWORD:
        return replace(exif, comment=text.value) if exif.comment in ("", text.value) else None
    graph, tag = GRAPHS.get(text.keyword), _EXIF_TEXTS.get(text.keyword)
    if graph is not None:
        # A text that holds NUL would be cut when it is read.
        taken = graph in exif.main or "\0" in text.value
        return None if taken else exif.with_text(graph, f"{text.keyword}:{text.value}")
    if tag is None or "\0" in text.value:
        return None
    same = tag in exif.main and exif.with_text(tag, text.value).main[tag].data == exif.main[tag].data
    return exif if same else None if tag in exif.main else exif.with_text(tag, text.value)


def _left_out(m: Metadata, name: str) -> list[str]:
    """Notes on the parts that only JPEG has a place for."""
    parts = {"comment": m.comments, "extended XMP data": m.more_xmp, "IPTC data": m.iptc}
    return [f"{name} has no place for the {part}" for part, found in parts.items() if found]


def _decoded(comment: bytes) -> str:
    try:
        return comment.decode("utf-8").rstrip("\0")
    except UnicodeDecodeError:
        return comment.decode("latin-1").rstrip("\0")
