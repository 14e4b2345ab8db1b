"""Random picture files for the campaign: sizes, modes, formats, metadata, names, and files that are no good."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

Random = np.random.Generator

READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "MPO")
SUFFIXES = {
    "PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "AVIF": ".avif",
    "MPO": ".jpg",
}  # fmt: skip
OTHERS = ("PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "DDS", "PDF", "EPS", "IM", "MSP", "XBM", "SPIDER", "QOI")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WORDS = "tea ☕|Müller|テスト|a b|x" * 3
NAMES = (
    "photo", "IMG_0001", "a b", "テスト", "é́", "🙂", "odd[1]", "100%", "a'b", "semi;colon", "-dash", ".dot", "x.y.z",
    "new\nline", "tab\t", "quote\"d", "*", "a" * 120, "CON", "ﬁ", "\udcff",
)  # fmt: skip


@dataclass
class Source:
    """A picture file that was made. size: (width, height) as it is shown; None where nobody can say.

    good: it is intact, and of a form that is enlarged. carried: what it carries, by name, as any of some bytes that a
    file with it holds.
    """

    path: Path
    size: tuple[int, int] | None = None
    good: bool = False
    carried: dict[str, list[bytes]] = field(default_factory=dict)
    kind: str = ""


def one_of(random: Random, choices: tuple | list):
    return choices[int(random.integers(len(choices)))]


def make(random: Random, folder: Path) -> Source:
    """A file in a folder, by chance good, in an unusual form, damaged or hostile."""
    chance = random.random()
    if chance < 0.7:
        source = picture(random, folder)
    elif chance < 0.78:
        source = deep_png(random, folder)
    elif chance < 0.83:
        source = moving(random, folder)
    elif chance < 0.87:
        source = foreign(random, folder)
    else:
        return hostile(random, folder)
    return damaged(random, source) if source.good and random.random() < 0.15 else source


def place(random: Random, folder: Path, suffix: str) -> Path:
    """A path by a random name; now and then the suffix is in capitals."""
    name = one_of(random, NAMES) if random.random() < 0.3 else f"picture{random.integers(1000)}"
    return folder / (name + (suffix.upper() if random.random() < 0.1 else suffix))


def side(random: Random) -> int:
    """1 to 300, small ones more often."""
    return int(np.exp(random.uniform(0, np.log(301))))


def pixels(random: Random, width: int, height: int, mode: str) -> Image.Image:
    """An image of noise, of one colour or of a gradient, in a mode."""
    kind = random.integers(3)
    values = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if kind == 1:
        values[:] = values[0, 0]
    elif kind == 2:
        values = (np.indices((height, width)).sum(0)[..., None] * random.integers(1, 9, 4)).astype(np.uint8)
    if random.random() < 0.3:
        values[..., 3] = np.where(values[..., 3] < 128, 0, 255)
    grey = np.ascontiguousarray(values[..., 0])
    if mode in ("I", "F", "I;16"):
        deep = grey.astype(np.uint16) * 257
        if mode == "I;16":
            return Image.fromarray(deep)
        return Image.fromarray(deep.astype(np.int32) if mode == "I" else (grey / 255).astype(np.float32))
    image = Image.fromarray(values)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        found = ImageCms.profileToProfile(image.convert("RGB"), *profiles, outputMode="LAB")
        assert found is not None
        return found
    if mode in ("La", "PA"):
        return image.convert("LA").convert(mode)
    return image.convert(mode) if mode != "HSV" else image.convert("RGB").convert(mode)


def exif_of(random: Random, carried: dict[str, list[bytes]], turned: bool) -> tuple[Image.Exif, int]:
    """EXIF data with some fields, and its orientation."""
    exif, orientation = Image.Exif(), 1
    if turned and random.random() < 0.5:
        orientation = int(random.integers(1, 9))
        exif[0x0112] = orientation
    for tag, name in ((0x010E, "description"), (0x013B, "artist"), (0x8298, "copyright"), (0x010F, "make")):
        if random.random() < 0.3:
            exif[tag] = f"{name} {random.integers(10**9)}"
            carried[f"EXIF {name}"] = [exif[tag].encode(), exif[tag].encode("utf-16-le")]
    if random.random() < 0.3:
        lens = f"lens {random.integers(10**9)}"
        exif[0x8769] = {0x829A: 0.02, 0xA434: lens}
        carried["EXIF lens"] = [lens.encode()]
    if random.random() < 0.1:
        day = f"2020:01:{random.integers(10, 28)}"
        exif[0x8825] = {0x0001: "N", 0x001D: day}
        carried["EXIF place"] = [day.encode()]
    return exif, orientation


def texts_of(random: Random, carried: dict[str, list[bytes]]) -> PngImagePlugin.PngInfo:
    """PNG texts of the hosts and others, and chunks of colour."""
    info = PngImagePlugin.PngInfo()

    def add(keyword: str, value: str, **how: bool) -> None:
        before = len(info.chunks)
        if how.pop("international", False):
            info.add_itxt(keyword, value, zip=how.get("zip", False))
        else:
            info.add_text(keyword, value, **how)
        bodies = [chunk[1] for chunk in info.chunks[before:]]
        encodings = [value.encode(name, "replace") for name in ("utf-8", "latin-1", "utf-16-be", "utf-16-le")]
        carried[f"text {keyword}"] = bodies + encodings

    number = int(random.integers(10**9))
    if random.random() < 0.4:
        words = one_of(random, WORDS.split("|"))
        recipe = f"{words} {number}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: {number}, Size: 64x64"
        add("parameters", recipe if random.random() < 0.8 else words)
    for keyword in ("prompt", "workflow"):
        if random.random() < 0.3:
            size = int(np.exp(random.uniform(0, 12)))
            zipped = bool(random.random() < 0.3)
            add(keyword, f'{{"{number}": "{"x" * size}"}}', zip=zipped, international=bool(random.random() < 0.3))
    for keyword in ("Title", "Author", "Description", "Comment", "Software", "Odd", "Creation Time"):
        if random.random() < 0.15:
            add(keyword, f"{one_of(random, WORDS.split('|'))} {number}")
    for kind, body in (
        (b"gAMA", struct.pack(">I", int(random.integers(20_000, 200_000)))), (b"cICP", bytes([9, 16, 0, 1])),
        (b"cICP", bytes([12, 13, 0, 1])), (b"caBX", f"credentials {number}".encode()),
    ):  # fmt: skip
        if random.random() < 0.05 and f"chunk {kind.decode()}" not in carried:
            info.add(kind, body)
            carried[f"chunk {kind.decode()}"] = [kind + body]
    return info


def options_of(random: Random, kind: str, mode: str, source: Source) -> dict[str, object]:
    """Pillow's options for a format, with random metadata."""
    options: dict[str, object] = {}
    if kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF") and random.random() < 0.6:
        exif, orientation = exif_of(random, source.carried, turned=kind != "AVIF")
        if len(exif):
            options["exif"] = exif
        if orientation > 4 and source.size:
            source.size = source.size[::-1]
    if random.random() < 0.3 and kind in ("PNG", "JPEG", "TIFF", "BMP"):
        options["dpi"] = (int(random.integers(1, 1200)),) * 2
        source.carried["resolution"] = []
    if random.random() < 0.3 and kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        fits = mode not in ("1", "L", "LA", "La", "I", "F", "I;16", "CMYK", "LAB")
        options["icc_profile"] = SRGB if random.random() < 0.8 else random.bytes(200)
        source.carried["ICC"] = [SRGB] if fits and options["icc_profile"] is SRGB else []
    if random.random() < 0.3 and kind in ("JPEG", "WEBP", "AVIF"):
        xmp = f"<x:xmpmeta>{random.integers(10**9)}</x:xmpmeta>".encode()
        options["xmp"] = xmp
        source.carried["XMP"] = [xmp]
    if random.random() < 0.3 and kind in ("JPEG", "GIF"):
        options["comment"] = f"comment {random.integers(10**9)}".encode()
        source.carried["comment"] = [options["comment"], options["comment"].decode().encode("utf-16-be")]
    if kind == "PNG":
        options["pnginfo"] = texts_of(random, source.carried)
    elif kind == "JPEG":
        options |= {"quality": int(random.integers(1, 101)), "progressive": bool(random.random() < 0.3)}
    elif kind == "WEBP":
        options["lossless"] = bool(random.random() < 0.5)
    elif kind == "TIFF":
        choices = (None, "raw", "tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate", "jpeg", "group4")
        options["compression"] = one_of(random, choices)
    return {key: value for key, value in options.items() if value is not None}


def picture(random: Random, folder: Path) -> Source:
    """A picture that Pillow writes, in any mode and readable format."""
    kind, mode = one_of(random, READABLE), one_of(random, MODES)
    source = Source(place(random, folder, SUFFIXES[kind]), (side(random), side(random)), kind=f"{kind} {mode}")
    assert source.size
    image = pixels(random, *source.size, mode)
    options = options_of(random, kind, mode, source)
    if random.random() < 0.1 and mode in ("L", "RGB", "P") and kind in ("PNG", "GIF"):
        options["transparency"] = 0 if mode != "RGB" else (0, 0, 0)
    try:
        written = BytesIO()
        image.save(written, kind, **options)
    except Exception:  # Pillow does not write this mode in this format, or not so
        source = Source(source.path, source.size, kind=f"{kind} RGB")
        assert source.size
        written = BytesIO()
        pixels(random, *source.size, "RGB").save(written, kind)
    source.path.write_bytes(written.getvalue())
    source.good = True
    return source


def deep_png(random: Random, folder: Path) -> Source:
    """A PNG with 16 bits a channel."""
    width, height, channels = side(random), side(random), int(random.integers(1, 5))
    rows = b"".join(b"\0" + random.bytes(width * channels * 2) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    path = place(random, folder, ".png")
    path.write_bytes(png_of((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")))
    return Source(path, (width, height), good=True, kind=f"PNG 16x{channels}")


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def moving(random: Random, folder: Path) -> Source:
    """A file of several frames or pages."""
    kind = one_of(random, ("GIF", "WEBP", "PNG", "TIFF", "MPO"))
    frames = [pixels(random, 20, 30, "RGB") for _ in range(int(random.integers(2, 5)))]
    path = place(random, folder, SUFFIXES[kind])
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    return Source(path, (20, 30) if kind == "MPO" else None, good=kind == "MPO", kind=f"{kind} of frames")


def foreign(random: Random, folder: Path) -> Source:
    """A picture of a format that is not read, often under the suffix of one that is."""
    kind, written = one_of(random, OTHERS), BytesIO()
    try:
        pixels(random, side(random), side(random), "RGB").save(written, kind)
    except Exception:  # Pillow does not write RGB so
        written.write(b"%!PS")
    path = place(random, folder, one_of(random, list(SUFFIXES.values())))
    path.write_bytes(written.getvalue())
    return Source(path, kind=kind)


def damaged(random: Random, source: Source) -> Source:
    """The file cut short, with changed bytes, or under another suffix. It may still be read."""
    data = bytearray(source.path.read_bytes())
    chance = random.random()
    if chance < 0.4:
        del data[int(random.integers(len(data))) :]
    elif chance < 0.8:
        for _ in range(int(random.integers(1, 20))):
            data[int(random.integers(len(data)))] = int(random.integers(256))
    else:
        other = source.path.with_suffix(one_of(random, list(SUFFIXES.values())))
        source.path.unlink()
        other.write_bytes(data)
        return Source(other, source.size, True, source.carried, f"{source.kind} under another suffix")
    source.path.write_bytes(data)
    return Source(source.path, kind=f"{source.kind} damaged")


def hostile(random: Random, folder: Path) -> Source:
    """A file that is made to do harm, or that is none."""
    bomb = zlib.compress(b"\0" * 2**24)
    small = (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 20))
    huge = (b"IHDR", struct.pack(">IIBBBBB", 2**30, 2**30, int(one_of(random, (8, 16))), 2, 0, 0, 0))
    directory = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    tags = struct.pack("<HHII", 256, 4, 1, 2**31) + struct.pack("<HHII", 257, 4, 1, 2**31)
    tags += struct.pack("<HHII", 258, 3, 1, 16) + struct.pack("<HHII", 262, 3, 1, 1)
    kinds = {
        "empty": b"", "zeros": bytes(5000), "noise": random.bytes(2000), "text": b"no picture\n" * 20,
        "bomb by header": png_of(huge, (b"IDAT", bomb), (b"IEND", b"")),
        "bomb of text": png_of(small[0], (b"zTXt", b"parameters\0\0" + bomb), small[1], (b"IEND", b"")),
        "bomb of profile": png_of(small[0], (b"iCCP", b"p\0\0" + bomb), small[1], (b"IEND", b"")),
        "many chunks": png_of(small[0], *((b"tEXt", b"a\0b"),) * 5000, small[1], (b"IEND", b"")),
        "length beyond the end": png_of(*small)[:33] + b"\xff\xff\xff\xff" + b"tEXt" + b"x" * 20,
        "directory that is its own": directory,
        "exif that is its own": png_of(small[0], (b"eXIf", directory), small[1]),
        "huge tiff": b"II*\0\x08\0\0\0\x04\0" + tags + b"\0\0\0\0",
        "huge exif": png_of(small[0], (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(2**20)), small[1], (b"IEND", b"")),
        "jpeg of nothing": b"\xff\xd8\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(70_000) + b"\xff\xd9",
    }  # fmt: skip
    kind = one_of(random, [*kinds, "folder", "dangling link"])
    path = place(random, folder, one_of(random, list(SUFFIXES.values())))
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(folder / "nowhere")
    else:
        path.write_bytes(kinds[kind])
    return Source(path, kind=f"hostile: {kind}")
