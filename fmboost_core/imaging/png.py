"""PNG: chunks, texts, and pixels with 16 bits a channel, of which Pillow reads and writes 8."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # colour types
XMP_KEYWORD = "XML:com.adobe.xmp"
MAX_INFLATED = 2**26  # bytes of a text or a profile; pictures claim more only to fill the memory

_PIXEL_KINDS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_HEAD = len(SIGNATURE) + 25  # bytes, with IHDR
_ROWS = 64  # filtered and compressed at a time


class Chunk(NamedTuple):
    """A chunk's type and its body."""

    kind: bytes
    body: bytes

    def tobytes(self) -> bytes:
        crc = zlib.crc32(self.kind + self.body)
        return struct.pack(">I", len(self.body)) + self.kind + self.body + struct.pack(">I", crc)


class Text(NamedTuple):
    """A text. value: None for one that cannot be read. chunk: as it was in the file; None for one of another format."""

    keyword: str
    value: str | None
    chunk: Chunk | None = None

    def to_chunk(self) -> Chunk:
        """The chunk of the file byte for byte, or a new one: Latin-1 where that is enough, else UTF-8."""
        if self.chunk is not None:
            return self.chunk
        keyword, value = self.keyword.encode("latin-1", "replace")[:79], self.value or ""
        try:
            return Chunk(b"tEXt", keyword + b"\0" + value.encode("latin-1"))
        except UnicodeEncodeError:
            return Chunk(b"iTXt", keyword + b"\0\0\0\0\0" + value.encode("utf-8", "replace"))


@dataclass(frozen=True)
class PngFile:
    """A PNG in parts. bits, colour: depth and colour type. pixels: a PNG of the pixels alone. chunks: all others.

    notes: what was damaged.
    """

    bits: int
    colour: int
    pixels: bytes
    chunks: tuple[Chunk, ...]
    notes: tuple[str, ...]

    def find(self, kind: bytes) -> bytes | None:
        """The body of the first chunk of a kind."""
        return next((chunk.body for chunk in self.chunks if chunk.kind == kind), None)


def read_png(data: bytes) -> PngFile | None:
    """Take a PNG apart; None for other data. A file that was cut short keeps what pixels it has."""
    if not data.startswith(SIGNATURE) or len(data) < _HEAD or data[12:16] != b"IHDR":
        return None
    pixels, chunks, broken = [SIGNATURE], list[Chunk](), set[str]()
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind == b"IEND":
            break
        if kind in _PIXEL_KINDS:
            pixels.append(data[at:end])  # Pillow checks these, and says what is cut
        elif end <= len(data):
            chunk = Chunk(kind, data[at + 8 : end - 4])
            if data[end - 4 : end] == struct.pack(">I", zlib.crc32(kind + chunk.body)):
                chunks.append(chunk)
            else:
                broken.add(kind.decode("latin-1"))
        at = end
    notes = (f"the damaged PNG chunks {', '.join(sorted(broken))} were left out",) if broken else ()
    if at <= len(data):
        pixels.append(Chunk(b"IEND", b"").tobytes())
    return PngFile(data[24], data[25], b"".join(pixels), tuple(chunks), notes)


def texts_of(chunks: Iterable[Chunk]) -> Iterator[Text]:
    """The texts among chunks, in their order; XMP is one of them."""
    for chunk in chunks:
        keyword, _, rest = chunk.body.partition(b"\0")
        name = keyword.decode("latin-1")
        if chunk.kind == b"tEXt":
            yield Text(name, rest.decode("latin-1"), chunk)
        elif chunk.kind == b"zTXt":
            found = inflate(rest[1:])
            yield Text(name, None if found is None else found.decode("latin-1"), chunk)
        elif chunk.kind == b"iTXt":
            yield Text(name, _international(rest), chunk)


def _international(rest: bytes) -> str | None:
    """The text of an iTXt behind its keyword."""
    body = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    found = inflate(body) if rest[:1] == b"\1" else body
    try:
        return None if found is None else found.decode("utf-8")
    except UnicodeDecodeError:
        return None


def inflate(data: bytes) -> bytes | None:
    """What zlib data holds; None for damaged data, and for more than `MAX_INFLATED`."""
    try:
        stream = zlib.decompressobj()
        found = stream.decompress(data, MAX_INFLATED)
    except zlib.error:
        return None
    return found if stream.eof else None


def profile_of(body: bytes) -> bytes | None:
    """The ICC profile of an iCCP chunk; None for a damaged one."""
    return inflate(body.partition(b"\0")[2][1:])


def with_chunks(png: bytes, chunks: Iterable[Chunk]) -> bytes:
    """A PNG with more chunks behind its header."""
    return png[:_HEAD] + b"".join(chunk.tobytes() for chunk in chunks) + png[_HEAD:]


# --- 16 bits a channel


def deep_values(png: PngFile) -> NDArray[np.uint16]:
    """The pixels (H,W,channels) of a PNG with 16 bits of grey with alpha, RGB or RGB with alpha.

    Pillow unpacks one byte of two, and either of them: of RGB the high bytes as RGB;16B, the low ones as RGB;16L.
    Grey with alpha is four bytes a pixel, as RGBA of 8 bits is. Raises Pillow's errors for damaged data.
    """
    if png.colour == GREY_ALPHA:
        header = bytearray(png.pixels[16 : _HEAD - 4])
        header[8:10] = (8, RGB_ALPHA)
        data = SIGNATURE + Chunk(b"IHDR", bytes(header)).tobytes() + png.pixels[_HEAD:]
        return np.ascontiguousarray(_decoded(data)).view(">u2").astype(np.uint16)
    name = "RGB" if png.colour == RGB else "RGBA"
    high = _decoded(png.pixels, f"{name};16B").astype(np.uint16)
    return ((high << 8) | _decoded(png.pixels, f"{name};16L")).astype(np.uint16)


def _decoded(data: bytes, rawmode: str | None = None) -> NDArray[np.uint8]:
    """A PNG's pixels in 8 bits, unpacked by Pillow's own way or another one."""
    with Image.open(BytesIO(data), formats=("PNG",)) as image:
        if rawmode:
            image.tile = [(*tile[:3], rawmode) for tile in image.tile]
            image.info.pop("transparency", None)
        return np.asarray(image)


def transparent_colour(png: PngFile) -> tuple[int, ...] | None:
    """The colour that a PNG of grey or RGB calls transparent, in the file's depth."""
    start = png.pixels.find(b"tRNS", _HEAD, png.pixels.find(b"IDAT", _HEAD))
    count = {GREY: 1, RGB: 3}.get(png.colour)
    return struct.unpack_from(f">{count}H", png.pixels, start + 4) if start > 0 and count else None


def encode_deep(values: NDArray[np.uint16], level: int = 6) -> bytes:
    """(H,W,channels) with 16 bits as a PNG, each row with the filter that leaves the smallest differences."""
    height, width, channels = values.shape
    colour = {1: GREY, 2: GREY_ALPHA, 3: RGB, 4: RGB_ALPHA}[channels]
    stream, packed = zlib.compressobj(level), list[bytes]()
    above = np.zeros((1, width * channels * 2), np.uint8)
    for top in range(0, height, _ROWS):
        rows = values[top : top + _ROWS].astype(">u2").view(np.uint8).reshape(-1, width * channels * 2)
        packed.append(stream.compress(_filtered(rows, np.concatenate([above, rows[:-1]]), channels * 2)))
        above = rows[-1:]
    packed.append(stream.flush())
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = Chunk(b"IHDR", header), Chunk(b"IDAT", b"".join(packed)), Chunk(b"IEND", b"")
    return SIGNATURE + b"".join(chunk.tobytes() for chunk in chunks)


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Rows of bytes behind their filter types. above: the row over each. step: bytes of a pixel."""
    left, corner = (np.pad(x, ((0, 0), (step, 0)))[:, :-step] for x in (rows, above))
    average = ((left.astype(np.uint16) + above) >> 1).astype(np.uint8)
    differences = [rows, rows - left, rows - above, rows - average, rows - _paeth(left, above, corner)]
    costs = [np.abs(d.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64) for d in differences]
    best = np.argmin(costs, axis=0)
    chosen = np.stack(differences)[best, np.arange(len(rows))]
    return np.concatenate([best.astype(np.uint8)[:, None], chosen], axis=1).tobytes()


def _paeth(left: NDArray[Any], above: NDArray[Any], corner: NDArray[Any]) -> NDArray[np.uint8]:
    """The neighbour that is nearest to left + above - corner."""
    a, b, c = (x.astype(np.int16) for x in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
    return nearest.astype(np.uint8)
