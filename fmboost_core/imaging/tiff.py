"""TIFF: its pages, and pixels with more than 8 bits a channel, which Pillow does not read in colour."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from .ifd import LONG, SHORT, Field, Fields, Order, Reader, build, header

XMP, PROFILE = 0x02BC, 0x8773

_KIND, _OLD_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANES, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # sample formats
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ASSOCIATED, _UNASSOCIATED = 1, 2  # alpha
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, deflate, LZMA, Zstandard
_PREDICTED = (5, 8, 32946, 34925, 50000)  # those that the predictor belongs to; with others it is ignored
_STRIP_SIZE = 2**18  # bytes, about
_LARGEST_TILE = 2**22  # pixels beyond those of the picture; larger ones only fill the memory


@dataclass(frozen=True)
class Page:
    """A page of a TIFF: its place among the pages, its directory, and what it was read with."""

    index: int
    fields: Mapping[int, Field]
    reader: Reader

    def number(self, tag: int, default: int) -> int:
        """A field's first value."""
        return self.numbers(tag, default)[0]

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """A field's values."""
        found = self.fields[tag].numbers(self.reader.order) if tag in self.fields else ()
        return tuple(map(int, found)) or default

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.number(_WIDTH, 0), self.number(_HEIGHT, 0)

    @property
    def bits(self) -> int:
        """Of the first channel."""
        return self.number(_BITS, 1)

    @property
    def compression(self) -> int:
        """Its number in the standard, 1 for none."""
        return self.number(_COMPRESSION, 1)

    @property
    def is_wide(self) -> bool:
        """Whether it is grey or RGB with 16, 32 or 64 bits a channel, in a form that `samples` decodes."""
        bits = set(self.numbers(_BITS, 1))
        return (
            len(bits) == 1
            and bits <= {16, 32, 64}
            and self.number(_PHOTOMETRIC, -1) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
            and self.compression in _LOSSLESS
            and self.number(_SAMPLES, 1) >= (3 if self.number(_PHOTOMETRIC, -1) == _RGB else 1)
            and len(set(self.numbers(_FORMAT, _UNSIGNED))) == 1
            and self.number(_FORMAT, _UNSIGNED) in (_UNSIGNED, _SIGNED, _FLOAT)
        )

    @property
    def is_inverted(self) -> bool:
        """Whether 0 is white."""
        return self.number(_PHOTOMETRIC, -1) == _WHITE_IS_ZERO

    @property
    def colours(self) -> int:
        """3 for RGB, 1 for grey."""
        return 3 if self.number(_PHOTOMETRIC, -1) == _RGB else 1

    @property
    def alpha(self) -> str:
        """What the channel behind the colours is: "", "associated" (multiplied into the colours) or "unassociated"."""
        extra = self.numbers(_EXTRA)
        return {_ASSOCIATED: "associated", _UNASSOCIATED: "unassociated"}.get(extra[0], "") if extra else ""


def read_pages(data: bytes) -> list[Page]:
    """The pages of a TIFF, [] for other data."""
    reader = Reader.of(data)
    return [Page(index, fields, reader) for index, fields in enumerate(reader.chain())] if reader else []


def pictures(pages: list[Page]) -> list[Page]:
    """The pages that are no thumbnail, reduced copy or mask of the first: those marked so, and those far smaller."""
    full = [p for p in pages if not p.number(_KIND, 0) & 5 and p.number(_OLD_KIND, 1) != 2] or pages[:1]
    return [p for p in full if p is full[0] or any(2 * a > b for a, b in zip(p.size, full[0].size, strict=True))]


def samples(page: Page) -> NDArray[Any]:
    """The numbers (H,W,channels) of a page with `is_wide`. Raises Pillow's errors and ValueError for damaged data."""
    channels, planar = page.number(_SAMPLES, 1), page.number(_PLANES, 1) == 2
    bits, kind = page.bits, page.number(_FORMAT, _UNSIGNED)
    dtype = np.dtype(f"{page.reader.order}{'fiu'[(_FLOAT, _SIGNED, _UNSIGNED).index(kind)]}{bits // 8}")
    if not planar:
        return _plane(page, slice(None), channels, dtype)
    blocks = len(page.numbers(_TILES if _TILES in page.fields else _STRIPS)) // channels
    planes = [_plane(page, slice(i * blocks, (i + 1) * blocks), 1, dtype) for i in range(channels)]
    return np.concatenate(planes, axis=-1)


def _plane(page: Page, blocks: slice, channels: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """(H,W,channels) of some of the page's strips or tiles.

    Pillow unpacks them as the bytes of a grey picture that is as many times as wide; the predictor is undone here.
    """
    width, height = page.size
    tiled = _TILES in page.fields
    tile = (page.number(_TILE_WIDTH, width), page.number(_TILE_HEIGHT, height)) if tiled else (width, height)
    if min(width, height, *tile) < 1:
        raise ValueError("it says that a side is 0")
    whole = (-(-width // tile[0]) * tile[0], -(-height // tile[1]) * tile[1]) if tiled else (width, height)
    if whole[0] * whole[1] > 4 * width * height + _LARGEST_TILE:
        raise ValueError(f"its tiles of {tile[0]}x{tile[1]} are far larger than the picture")
    pixel = channels * dtype.itemsize
    found = _unpacked(_grey_tiff(page, blocks, (whole[0] * pixel, whole[1]), tile[0] * pixel), whole[0] * pixel)
    columns = found.reshape(whole[1], -1, tile[0] * pixel)
    predictor = page.number(_PREDICTOR, 1) if page.compression in _PREDICTED else 1
    if predictor == 3:
        total = _accumulated(columns.reshape(*columns.shape[:2], -1, channels), axis=2)
        values = total.reshape(*columns.shape[:2], dtype.itemsize, -1).swapaxes(-1, -2)
        values = np.ascontiguousarray(values).view(dtype.newbyteorder(">"))
    else:
        values = columns.view(dtype)
        if predictor == 2:
            unsigned = values.view(dtype.str.replace("f", "u").replace("i", "u")).astype(f"u{dtype.itemsize}")
            total = _accumulated(unsigned.reshape(*columns.shape[:2], -1, channels), axis=2)
            values = total.view(dtype.newbyteorder("="))
    return values.reshape(whole[1], whole[0], channels)[:height, :width].astype(dtype.newbyteorder("="))


def _accumulated(values: NDArray[Any], axis: int) -> NDArray[Any]:
    return np.cumsum(values, axis=axis, dtype=values.dtype)


def _grey_tiff(page: Page, blocks: slice, size: tuple[int, int], tile_width: int) -> bytes:
    """A TIFF of some of a page's strips or tiles, as they are compressed, declared as bytes of grey."""
    tiled = _TILES in page.fields
    offsets = page.numbers(_TILES if tiled else _STRIPS)[blocks]
    rows = page.number(_TILE_HEIGHT, size[1]) if tiled else min(page.number(_ROWS, size[1]), size[1])
    lengths = page.numbers(_TILE_BYTES if tiled else _STRIP_BYTES)[blocks] or (rows * tile_width,) * len(offsets)
    data = [page.reader.data[offset : offset + n] for offset, n in zip(offsets, lengths, strict=True)]
    starts = np.cumsum([8, *map(len, data)]).tolist()
    body = b"".join(data)
    body += b"\0" * (len(body) % 2)
    order = page.reader.order
    fields: dict[int, Field | Fields] = {
        tag: Field.of(LONG, order, *values)
        for tag, values in {
            _WIDTH: (size[0],), _HEIGHT: (size[1],), _BITS: (8,), _COMPRESSION: (page.compression,),
            _PHOTOMETRIC: (_BLACK_IS_ZERO,), _SAMPLES: (1,), _TILES if tiled else _STRIPS: starts[:-1],
            _TILE_BYTES if tiled else _STRIP_BYTES: [len(d) for d in data],
            **({_TILE_WIDTH: (tile_width,), _TILE_HEIGHT: (rows,)} if tiled else {_ROWS: (rows,)}),
        }.items()
    }  # fmt: skip
    return header(order, 8 + len(body)) + body + build(fields, order, 8 + len(body))


def _unpacked(data: bytes, width: int) -> NDArray[np.uint8]:
    with TiffImagePlugin.TiffImageFile(BytesIO(data)) as image:
        image.load()
        return np.ascontiguousarray(np.asarray(image)).reshape(-1, width)


def encode(values: NDArray[Any], fields: Fields, order: Order) -> bytes:
    """(H,W,channels) of 8 or 16 bits as a TIFF in deflated strips. fields: those that do not describe the pixels."""
    height, width, channels = values.shape
    dtype = values.dtype.newbyteorder(order)
    rows = max(1, _STRIP_SIZE // (width * channels * dtype.itemsize))
    first = np.zeros_like(values[:, :1])
    differences = np.diff(values, axis=1, prepend=first).astype(dtype)
    strips = [zlib.compress(differences[top : top + rows].tobytes()) for top in range(0, height, rows)]
    body = b"".join(strips)
    body += b"\0" * (len(body) % 2)
    numbers: dict[int, tuple[int, list[int]]] = {
        _WIDTH: (LONG, [width]), _HEIGHT: (LONG, [height]), _BITS: (SHORT, [dtype.itemsize * 8] * channels),
        _COMPRESSION: (SHORT, [8]), _PHOTOMETRIC: (SHORT, [_RGB if channels > 2 else _BLACK_IS_ZERO]),
        _STRIPS: (LONG, np.cumsum([8, *map(len, strips)]).tolist()[:-1]), _SAMPLES: (SHORT, [channels]),
        _ROWS: (LONG, [rows]), _STRIP_BYTES: (LONG, [len(s) for s in strips]), _PREDICTOR: (SHORT, [2]),
        **({_EXTRA: (SHORT, [_UNASSOCIATED])} if channels in (2, 4) else {}),
    }  # fmt: skip
    of_pixels = {tag: Field.of(kind, order, *found) for tag, (kind, found) in numbers.items()}
    at = 8 + len(body)
    if at > 2**31:
        raise ValueError("a TIFF ends at 4 gigabytes")
    return header(order, at) + body + build({**fields, **of_pixels}, order, at)
