"""Reading image files into a `Picture`.

Pixel values stay as they are, and the description of their colours goes with them. CMYK and Lab, which no network
here knows, become sRGB.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import ImageError, reason
from . import png, tiff
from .alpha import fill_hidden
from .carried import Carried, from_jpeg, from_other, from_png, from_tiff
from .colour import plain, straight, to_srgb, to_uint16, upright
from .formats import READ_FORMATS, listed
from .picture import Picture

_LOSSY_TIFF = (6, 7, 34892, 50001)  # compressions: JPEG, lossy DNG, WebP


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF, upright by its EXIF orientation.

    Raises `ImageError` for a file that is missing, locked, damaged, of another format, of several frames, or too
    large to open.
    """
    path = Path(path)
    with _faults_named(path):
        found = _read(path)
        return _to_picture(found)


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """What stops the reading of a file as an `ImageError` with its name."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder; name a picture in it.")
    if not path.exists():
        raise ImageError(f"{path} does not exist; check its name and folder.")
    if not path.is_file():
        raise ImageError(f"{path} is not a regular file; name a picture.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and untidy metadata; what matters is raised
            yield
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise ImageError(
            f"{path} claims more than {limit} million pixels, which is not opened for safety; take a smaller picture."
        ) from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        known = f"is not a picture of a known kind ({listed(READ_FORMATS)}); save it as one of them"
        what = "is empty; copy or download it again" if empty else known
        raise ImageError(f"{path} {what}.") from None
    except PermissionError:
        raise ImageError(f"{path} cannot be read: permission denied; check who may read it.") from None
    except MemoryError:
        raise ImageError(f"{path} does not fit into memory; take a smaller picture.") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise ImageError(f"{path} is damaged or cut short ({reason(error)}); copy or download it again.") from None


@dataclass(frozen=True)
class _Found:
    """A file's content. values: (H,W,1 to 4) in 0..1, upright: grey or RGB, and with them alpha, if there is one."""

    values: NDArray[np.float32]
    carried: Carried
    deep: bool
    lossless: bool


def _read(path: Path) -> _Found:
    data = path.read_bytes()
    parts = png.read_png(data)
    if parts is not None:
        return _read_png(parts, path)
    pages = tiff.read_pages(data)
    if pages:
        return _read_tiff(pages, data, path)
    return _read_other(data, path)


def _read_png(parts: png.PngFile, path: Path) -> _Found:
    animation = parts.find(b"acTL")
    if animation is not None:
        _refuse_frames(int.from_bytes(animation[:4], "big"), path)
    carried = from_png(parts)
    with Image.open(BytesIO(parts.pixels), formats=("PNG",)) as image:
        deep = parts.bits == 16
        if deep and parts.colour != png.GREY:
            values: NDArray[Any] = png.deep_values(parts)
            key = png.transparent_colour(parts)
        else:
            image.load()
            key = image.info.get("transparency") if deep else None
            key = (key,) if isinstance(key, int) else None
            values = _array(plain(image, path))
    scaled = _scaled(values)
    if key is not None:
        opacity = (values != np.array(key)).any(-1, keepdims=True)
        scaled = np.concatenate([scaled, opacity.astype(np.float32)], axis=-1)
    return _Found(upright(scaled, carried.orientation), carried, deep, lossless=True)


def _read_tiff(pages: list[tiff.Page], data: bytes, path: Path) -> _Found:
    full = tiff.pictures(pages)
    if len(full) > 1:
        raise ImageError(
            f"{path} has {len(full)} pages; save each page as a file of its own, and enlarge the folder of them."
        )
    page = full[0]
    carried = from_tiff(page)
    if len(pages) > 1:
        carried = _with_notes(
            carried, f"{len(pages) - 1} of its {len(pages)} pages, thumbnails or masks, were left out"
        )
    if page.is_wide:
        _check_size(page.size)
        values, notes = _wide(page, path)
        carried = _with_notes(carried, *notes)
        return _Found(upright(values, carried.orientation), carried, deep=True, lossless=True)
    with Image.open(BytesIO(data), formats=("TIFF",)) as image:
        image.seek(page.index)
        image.load()  # upright
        carried = _with_notes(carried, *_depth_notes(page.bits))
        values, carried = _converted(image, carried, path)
    lossless = page.compression not in _LOSSY_TIFF
    return _Found(_scaled(values), carried, values.dtype == np.uint16, lossless)


def _wide(page: tiff.Page, path: Path) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The values of a page with more than 8 bits a channel, and notes on what of them is not kept."""
    numbers, notes = tiff.samples(page), list[str]()
    if numbers.shape[-1] > page.colours + bool(page.alpha):
        notes.append(f"{numbers.shape[-1] - page.colours - bool(page.alpha)} channels beyond colour were left out")
    numbers = numbers[..., : page.colours + bool(page.alpha)]
    if numbers.dtype != np.uint16:
        kind = "float" if numbers.dtype.kind == "f" else "integer"
        notes.append(f"its {page.bits}-bit {kind} values were read as 16-bit integers")
    values = _scaled(to_uint16(numbers, path))
    if page.is_inverted:
        values[..., :1] = 1 - values[..., :1]
    return straight(values) if page.alpha == "associated" else values, tuple(notes)


def _read_other(data: bytes, path: Path) -> _Found:
    formats = tuple(name for name in READ_FORMATS if name not in ("PNG", "TIFF"))
    with Image.open(BytesIO(data), formats=formats) as image:
        frames = getattr(image, "n_frames", 1)
        if image.format in ("JPEG", "MPO"):
            carried = from_jpeg(image)
            if frames > 1:  # phones' MPO is a JPEG with previews behind it
                more = f"{frames - 1} further pictures in the file (previews or an HDR gain map) were left out"
                carried = _with_notes(carried, more)
        else:
            _refuse_frames(frames, path)
            carried = from_other(image, data)
        if image.format == "AVIF":
            carried = _with_notes(carried, *_depth_notes(_avif_bits(data)))
        image.load()
        lossless = image.format in ("BMP", "GIF") or (image.format == "WEBP" and _is_lossless_webp(data))
        values, carried = _converted(image, carried, path)
    return _Found(upright(_scaled(values), carried.orientation), carried, values.dtype == np.uint16, lossless)


def _refuse_frames(frames: int, path: Path) -> None:
    if frames > 1:
        raise ImageError(
            f"{path} has {frames} frames, and only still pictures are enlarged; take them out into a folder "
            f"(ffmpeg -i {path.name} frames/%04d.png), enlarge the folder, and put them together again."
        )


def _check_size(size: tuple[int, int]) -> None:
    """As Pillow does for what it opens itself."""
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError


def _converted(image: Image.Image, carried: Carried, path: Path) -> tuple[NDArray[Any], Carried]:
    """The numbers (H,W,1 to 4) of a loaded image, in sRGB where it was CMYK or Lab."""
    if image.mode in ("CMYK", "LAB"):
        image, notes = to_srgb(image, carried.metadata.icc, path)
        carried = replace(_with_notes(carried, *notes), metadata=carried.metadata.without_colours())
    return _array(plain(image, path)), carried


def _to_picture(found: _Found) -> Picture:
    channels = found.values.shape[-1]
    grey, has_alpha = channels < 3, channels in (2, 4)
    colours = found.values[..., : 1 if grey else 3]
    rgb, alpha = _to_tensor(np.repeat(colours, 3, axis=-1) if grey else colours) * 2 - 1, None
    if has_alpha:
        alpha = _to_tensor(found.values[..., -1:])
        rgb = fill_hidden(rgb, alpha)
    metadata, notes = found.carried.metadata.fitting(grey)
    return Picture(rgb, alpha, grey, found.deep, found.lossless, metadata, found.carried.notes + notes)


def _with_notes(carried: Carried, *notes: str) -> Carried:
    return replace(carried, notes=carried.notes + notes)


def _depth_notes(bits: int) -> tuple[str, ...]:
    """A note where Pillow reads 8 bits of more."""
    return (f"{bits} bits a channel were read as 8",) if bits in (10, 12, 16) else ()


def _array(image: Image.Image) -> NDArray[Any]:
    """(H,W,channels)."""
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _scaled(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers of 8 or 16 bits in 0..1."""
    return values.astype(np.float32) / np.float32(65535 if values.dtype == np.uint16 else 255)


def _is_lossless_webp(data: bytes) -> bool:
    """Whether the file's picture is in a lossless chunk."""
    at = 12
    while at + 8 <= len(data):
        if data[at : at + 4] in (b"VP8L", b"VP8 "):
            return data[at : at + 4] == b"VP8L"
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        at += at % 2
    return False


def _avif_bits(data: bytes) -> int:
    """The bits of a channel that an AVIF's box of pixel information says; 8 without one."""
    at = data.find(b"pixi", 0, 65536)
    return data[at + 9] if 0 < at < len(data) - 9 else 8


def _to_tensor(values: NDArray[Any]) -> Tensor:
    """(H,W,C) -> (1,C,H,W)."""
    return torch.from_numpy(values.transpose(2, 0, 1).copy())[None]
