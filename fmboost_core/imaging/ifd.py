"""Image file directories (IFD): the tagged fields of TIFF files and of EXIF data, read and built byte for byte."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Order: TypeAlias = Literal["<", ">"]  # of the bytes, as in `struct`

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
_FORMATS = {  # of `struct`, by a field's type; rationals are pairs
    1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I",
    16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_MAX_DIRECTORIES = 4096


class Field(NamedTuple):
    """A field's type and its values as bytes, in the byte order of its directory."""

    kind: int
    data: bytes

    @classmethod
    def of(cls, kind: int, order: Order, *numbers: float) -> Field:
        """A field of numbers. A RATIONAL is given as two."""
        return cls(kind, struct.pack(f"{order}{len(numbers)}{_FORMATS[kind][0]}", *numbers))

    def numbers(self, order: Order) -> tuple[float, ...]:
        """The values; a rational counts as one, and one with the denominator 0 is 0."""
        code = _FORMATS[self.kind]
        values = struct.unpack(f"{order}{len(self.data) // struct.calcsize('=' + code[0])}{code[0]}", self.data)
        if len(code) == 1:
            return values
        return tuple(a / b if b else 0.0 for a, b in zip(values[::2], values[1::2], strict=True))

    def text(self) -> str:
        """The text up to its first NUL; bytes that are no UTF-8 are kept as surrogates."""
        return self.data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


Fields: TypeAlias = "Mapping[int, Field | Fields]"  # a mapping as the value is a directory that the tag points to


@dataclass(frozen=True)
class Reader:
    """The directories of TIFF data. big: BigTIFF, with 64-bit offsets."""

    data: bytes
    order: Order
    big: bool = False

    @classmethod
    def of(cls, data: bytes) -> Reader | None:
        """A reader by the data's header; None for other data."""
        orders: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
        order = orders.get(data[:2])
        if order is None or len(data) < 8:
            return None
        (version,) = struct.unpack_from(order + "H", data, 2)
        return cls(data, order, version == 43) if version in (42, 43) else None

    def chain(self) -> Iterator[dict[int, Field]]:
        """The directories that follow each other from the header; one that points back ends them."""
        (offset,) = struct.unpack_from(
            self.order + ("Q" if self.big else "I"), self.data.ljust(16, b"\0"), 8 if self.big else 4
        )
        seen: set[int] = set()
        while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(offset)
            fields, offset = self._directory(offset)
            if not fields:
                return
            yield fields

    def directory(self, offset: int) -> dict[int, Field]:
        """The directory at an offset, without the fields that do not lie within the data; {} for none."""
        return self._directory(offset)[0]

    def _directory(self, offset: int) -> tuple[dict[int, Field], int]:
        data, order = self.data, self.order
        head, size, word = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        wide = struct.calcsize("=" + word)
        start = offset + struct.calcsize("=" + head)
        if start > len(data):
            return {}, 0
        (count,) = struct.unpack_from(order + head, data, offset)
        fields: dict[int, Field] = {}
        for at in range(start, min(start + count * size, len(data) - size + 1), size):
            tag, kind, length = struct.unpack_from(f"{order}HH{word}", data, at)
            if kind not in _FORMATS:
                continue
            total = length * struct.calcsize("=" + _FORMATS[kind])
            place = at + 4 + wide
            if total > wide:
                (place,) = struct.unpack_from(order + word, data, place)
            if place + total <= len(data):
                fields[tag] = Field(kind, data[place : place + total])
        end = start + count * size
        return fields, struct.unpack_from(order + word, data, end)[0] if end + wide <= len(data) else 0


def build(fields: Fields, order: Order, at: int) -> bytes:
    """A directory with all its values and subdirectories, to be put at offset `at`, an even number."""
    entries, values = b"", b""
    after = at + 2 + 12 * len(fields) + 4
    for tag, field in sorted(fields.items()):
        place = after + len(values)
        if isinstance(field, Mapping):
            kind, count, body = LONG, 1, build(field, order, place)
            content = struct.pack(order + "I", place)
        else:
            kind, count, body = field.kind, len(field.data) // struct.calcsize("=" + _FORMATS[field.kind]), field.data
            content = struct.pack(order + "I", place)
            if len(body) <= 4:
                content, body = body.ljust(4, b"\0"), b""
        entries += struct.pack(order + "HHI", tag, kind, count) + content
        values += body + b"\0" * (len(body) % 2)
    return struct.pack(order + "H", len(fields)) + entries + b"\0\0\0\0" + values


def header(order: Order, offset: int) -> bytes:
    """The first 8 bytes of TIFF data whose first directory is at an offset."""
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, offset)
