"""`Metadata`: what an image file carries beside its pixels, in one form for all formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from . import icc, infotext
from .exif import Exif
from .png import Chunk, Text

# How the hosts write PNG texts into EXIF: AUTOMATIC1111 its recipe as the user's comment, ComfyUI its two graphs as
# the camera's maker and model, behind their names.
GRAPHS = {"workflow": 0x010F, "prompt": 0x0110}


@dataclass(frozen=True)
class Metadata:
    """What a file carries beside its pixels.

    icc: the ICC profile. exif: the EXIF data without orientation, resolution and thumbnails. xmp: the XMP packet, and
    more_xmp: its extension in JPEG segments. texts: PNG texts, those that other formats hold elsewhere among them.
    comments: of JPEG and GIF. dpi: dots per inch. iptc: captions of the press (IPTC-IIM).
    colour: the chunks of a PNG that describe its colours, instead of a profile or beside it.
    """

    icc: bytes | None = None
    exif: Exif = field(default_factory=Exif)
    xmp: bytes | None = None
    more_xmp: tuple[bytes, ...] = ()
    texts: tuple[Text, ...] = ()
    comments: tuple[bytes, ...] = ()
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    colour: tuple[Chunk, ...] = ()

    def with_step(self, step: Mapping[str, str]) -> Metadata:
        """A copy whose recipe, if there is one, names a further step, such as an enlargement, by settings."""

        def told(text: Text) -> Text:
            if text.keyword != infotext.KEYWORD or text.value is None:
                return text
            longer = infotext.with_step(text.value, step)
            return text if longer == text.value else Text(text.keyword, longer)

        return replace(self, texts=tuple(map(told, self.texts)))

    def without_colours(self) -> Metadata:
        """A copy without profile and colour chunks: for pixels that were converted to sRGB."""
        return replace(self, icc=None, colour=())

    def fitting(self, grey: bool) -> tuple[Metadata, tuple[str, ...]]:
        """A copy without a profile for other pixels than grey, or RGB, and a note on it."""
        if self.icc is None or icc.profile_space(self.icc) == ("GRAY" if grey else "RGB"):
            return self, ()
        space = icc.profile_space(self.icc)
        what = f"is for {space} and does not fit" if space.isalnum() else "is damaged"
        return replace(self, icc=None), (f"the ICC profile {what}, so it was left out",)

    def profile(self, grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
        """The profile for a format without colour chunks: grey or RGB, None for sRGB; and notes on what it loses."""
        chunks = dict(self.colour)
        coded = chunks.get(b"cICP", b"")
        found = icc.cicp_profile(coded, grey) if coded and not icc.is_srgb(coded) else None
        notes: tuple[str, ...] = ()
        if coded and not icc.is_srgb(coded) and found is None:
            notes = ("its colours (HDR, by cICP) have no profile, so only PNG keeps them",)
        if found or (coded and icc.is_srgb(coded)):
            return found, notes
        if self.icc:
            fits = icc.profile_space(self.icc) == ("GRAY" if grey else "RGB")
            return (self.icc, notes) if fits else (None, (*notes, "the grey ICC profile was left out"))
        if b"sRGB" in chunks:
            return None, notes
        return icc.chunk_profile(_gamma(chunks), _primaries(chunks), grey), notes


def _gamma(chunks: Mapping[bytes, bytes]) -> float | None:
    """The exponent of gAMA, in a plausible range."""
    body = chunks.get(b"gAMA", b"")
    gamma = int.from_bytes(body, "big") / 1e5 if len(body) == 4 else 0.0
    return gamma if 0.1 < gamma < 10 else None


def _primaries(chunks: Mapping[bytes, bytes]) -> tuple[float, ...] | None:
    """x, y of white, red, green and blue of cHRM."""
    body = chunks.get(b"cHRM", b"")
    return tuple(int.from_bytes(body[i : i + 4], "big") / 1e5 for i in range(0, 32, 4)) if len(body) == 32 else None


# --- recipes


def with_recipe(metadata: Metadata) -> Metadata:
    """A copy in which recipes that EXIF data or a comment holds as the hosts write them are PNG texts."""
    texts, exif, comments = list(metadata.texts), metadata.exif, list(metadata.comments)
    known = {text.keyword for text in texts}
    if infotext.is_infotext(exif.comment):
        if infotext.KEYWORD not in known:
            texts.append(Text(infotext.KEYWORD, exif.comment))
        exif = replace(exif, comment="")
    for keyword, tag in GRAPHS.items():
        found = exif.text(tag)
        if found.startswith((f"{keyword}:{{", f"{keyword}: {{")):
            if keyword not in known:
                texts.append(Text(keyword, found.partition(":")[2]))
            exif = exif.without(tag)
    for comment in comments:
        text = comment.decode("utf-8", "replace")
        if infotext.is_infotext(text) and infotext.KEYWORD not in {t.keyword for t in texts}:
            texts.append(Text(infotext.KEYWORD, text))
            comments.remove(comment)
            break
    return replace(metadata, texts=tuple(texts), exif=exif, comments=tuple(comments))


# --- XMP

_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))([1-8])""")


def xmp_orientation(xmp: bytes | None) -> int:
    """The orientation that an XMP packet says, 1 for none."""
    match = _XMP_ORIENTATION.search(xmp or b"")
    return int(match[2]) if match else 1


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """The packet for a picture that stands upright."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if xmp else None
