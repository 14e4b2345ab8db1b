"""EXIF data: what describes the photograph is kept byte for byte, what describes the old file is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .ifd import ASCII, RATIONAL, SHORT, UNDEFINED, Field, Fields, Order, Reader, build, header

MARK = b"Exif\0\0"
JPEG_LIMIT = 65533  # bytes, with the mark
DESCRIPTION, MAKE, MODEL, SOFTWARE, ARTIST, COPYRIGHT, TITLE = 0x010E, 0x010F, 0x0110, 0x0131, 0x013B, 0x8298, 0x9C9B

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_CAMERA, _GPS, _INTEROPERABILITY, _MAKER_NOTE, _COMMENT = 0x8769, 0x8825, 0xA005, 0x927C, 0x9286
# Document name to date, host computer, rating, copyright, the titles and keywords of Windows.
_KEPT = {0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298}
_KEPT |= set(range(0x9C9B, 0x9CA0))
# Layout, resolution and profile of the old file, its thumbnails, and packets that are carried by other means.
_OF_THE_FILE = set(range(0x00FE, 0x010D)) | set(range(0x0111, 0x011D)) | {0x011E, 0x011F, 0x0122, 0x0123, 0x0124}
_OF_THE_FILE |= {0x0125, 0x0128, 0x0129, 0x012D, *range(0x013D, 0x015C), *range(0x0200, 0x0215), 0x02BC}
_OF_THE_FILE |= {0x83BB, 0x8649, 0x8773, 0xA005, 0xC4A5, 0xEA1C, *range(0x5000, 0x5114), _CAMERA, _GPS}
_STALE = {0xA002, 0xA003, 0xA005, _COMMENT}  # width, height; the others are kept apart
_CODES = ((b"UNICODE\0", ""), (b"ASCII\0\0\0", "utf-8"), (b"\0" * 8, "utf-8"))


@dataclass(frozen=True)
class Exif:
    """EXIF data. order: of its bytes. main, camera, gps: the directories. comment: the user's comment."""

    order: Order = "<"
    main: Mapping[int, Field] = field(default_factory=dict)
    camera: Fields = field(default_factory=dict)
    gps: Mapping[int, Field] = field(default_factory=dict)
    comment: str = ""

    def __bool__(self) -> bool:
        return bool(self.main or self.camera or self.gps or self.comment)

    def text(self, tag: int) -> str:
        """A text of the main directory, "" if there is none."""
        return self.main[tag].text() if tag in self.main else ""

    def with_text(self, tag: int, text: str) -> Exif:
        """A copy with a text in the main directory; Windows' titles are UTF-16, the others UTF-8."""
        if tag in range(0x9C9B, 0x9CA0):
            found = Field(1, (text + "\0").encode("utf-16-le", "surrogatepass"))
        else:
            found = Field(ASCII, text.encode("utf-8", "surrogateescape") + b"\0")
        return replace(self, main={**self.main, tag: found})

    def without(self, *tags: int) -> Exif:
        """A copy without some fields of the main directory."""
        return replace(self, main={tag: f for tag, f in self.main.items() if tag not in tags})

    def with_dpi(self, dpi: tuple[float, float]) -> Exif:
        """A copy that says the dots per inch, for formats that say it nowhere else."""
        return replace(self, main={**self.main, **resolution(dpi, self.order)})

    def fields(self) -> dict[int, Field | Fields]:
        """The main directory with the others as its subdirectories."""
        camera = dict(self.camera)
        if self.comment:  # big-endian, whatever the rest is: as AUTOMATIC1111 writes and reads it
            camera[_COMMENT] = Field(UNDEFINED, b"UNICODE\0" + self.comment.encode("utf-16-be", "surrogatepass"))
        found: dict[int, Field | Fields] = dict(self.main)
        if camera:
            found[_CAMERA] = camera
        if self.gps:
            found[_GPS] = self.gps
        return found

    def tobytes(self) -> bytes:
        """The data with its mark, as JPEG holds it."""
        return MARK + header(self.order, 8) + build(self.fields(), self.order, 8)


@dataclass(frozen=True)
class FoundExif:
    """What EXIF data says. orientation: 1 to 8, 1 is upright. dpi: dots per inch. notes: what was left out."""

    exif: Exif = field(default_factory=Exif)
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def read_exif(data: bytes) -> FoundExif:
    """Read EXIF data, with its mark or without."""
    reader = Reader.of(data[len(MARK) :] if data.startswith(MARK) else data)
    main = next(reader.chain(), None) if reader else None
    if reader is None or main is None:
        return FoundExif(notes=("the EXIF data is damaged and was left out",))
    return from_directory(main, reader)


def from_directory(main: Mapping[int, Field], reader: Reader) -> FoundExif:
    """The EXIF data of a main directory, which is also the directory of a TIFF's page."""
    order, notes = reader.order, list[str]()
    camera, gps = (_subdirectory(main, tag, reader) for tag in (_CAMERA, _GPS))
    kept: dict[int, Field | Fields] = {t: f for t, f in camera.items() if t not in _STALE and t != _MAKER_NOTE}
    interoperability = _subdirectory(camera, _INTEROPERABILITY, reader)
    if interoperability:
        kept[_INTEROPERABILITY] = interoperability
    if _MAKER_NOTE in camera:
        notes.append("the camera's own maker note was left out, because it cannot be moved to another file")
    others = sorted(tag for tag in main if tag not in _KEPT and tag not in _OF_THE_FILE)
    if others:
        notes.append(f"the EXIF or TIFF tags {', '.join(f'0x{tag:04X}' for tag in others)} were left out")
    exif = Exif(order, {t: f for t, f in main.items() if t in _KEPT}, kept, gps, _comment(camera, order))
    if (_CAMERA in main and not camera) or (_GPS in main and not gps):
        notes.append("a part of the EXIF data is damaged and was left out")
    return FoundExif(exif, _orientation(main, order), _dpi(main, order), tuple(notes))


def resolution(dpi: tuple[float, float], order: Order) -> dict[int, Field]:
    """The fields that say dots per inch."""
    x, y = (Field.of(RATIONAL, order, min(round(value * 1000), 2**32 - 1), 1000) for value in dpi)
    return {_X_RESOLUTION: x, _Y_RESOLUTION: y, _UNIT: Field.of(SHORT, order, 2)}


def _subdirectory(fields: Mapping[int, Field], tag: int, reader: Reader) -> dict[int, Field]:
    offsets = fields[tag].numbers(reader.order) if tag in fields else ()
    return reader.directory(int(offsets[0])) if offsets and offsets[0] >= 0 else {}


def _orientation(main: Mapping[int, Field], order: Order) -> int:
    found = main[_ORIENTATION].numbers(order) if _ORIENTATION in main else ()
    return int(found[0]) if found and found[0] in range(2, 9) else 1


def _dpi(main: Mapping[int, Field], order: Order) -> tuple[float, float] | None:
    """Dots per inch; None where there is no unit, and for impossible values."""
    values = [main[tag].numbers(order) if tag in main else () for tag in (_X_RESOLUTION, _Y_RESOLUTION, _UNIT)]
    unit = values[2][0] if values[2] else 2
    if not values[0] or not values[1] or unit not in (2, 3):
        return None
    x, y = (value[0] * (2.54 if unit == 3 else 1) for value in values[:2])
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def _comment(camera: Mapping[int, Field], order: Order) -> str:
    """The user's comment, whose first 8 bytes name its encoding."""
    if _COMMENT not in camera:
        return ""
    data = camera[_COMMENT].data
    encoding = next((encoding for mark, encoding in _CODES if data.startswith(mark)), "utf-8")
    body = data[8:] if any(data.startswith(mark) for mark, _ in _CODES) else data
    if encoding:
        return body.decode(encoding, "replace").strip("\0 ")
    # Some write UTF-16 in the order of the file and some always big-endian: the right one has more of ASCII.
    body = body[: len(body) // 2 * 2]
    texts = [body.decode(name, "replace") for name in ("utf-16-be", "utf-16-le")]
    return max(texts, key=lambda text: sum(c < "\x80" for c in text)).strip("\0")
