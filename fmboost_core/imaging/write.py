"""Writing a `Picture`, or a Pillow image, as PNG, JPEG, WebP or TIFF."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import ImageError, NonFiniteError
from ..files.atomic import replacing
from . import png, tiff
from .formats import LARGEST_SIDE, WRITE_FORMATS, listed
from .luma import LUMA
from .packing import Packed, pack
from .picture import Picture

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
QUALITY = 95


@dataclass(frozen=True)
class Encoding:
    """How pictures are compressed.

    quality: of JPEG and WebP, 1 to 100; None: 95, and a WebP without loss where the picture came from a file without.
    subsampling: of the colours of a JPEG, one of `SUBSAMPLINGS`.
    """

    quality: int | None = None
    subsampling: str = SUBSAMPLINGS[0]


def check_output(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> None:
    """Refuse in advance what `write_picture` cannot write: suffix, folder, permission, size (width, height).

    Raises `ImageError`.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path} is a folder; name a file in it.")
    kind = WRITE_FORMATS.get(path.suffix.lower())
    if kind is None:
        known = listed(tuple(WRITE_FORMATS))
        raise ImageError(f"{path} has {path.suffix or 'no suffix'}, but pictures are written as {known}.")
    if not path.parent.is_dir():
        raise ImageError(f"{path} cannot be written: the folder {path.parent} does not exist; make it first.")
    if path.exists() and not path.is_file():
        raise ImageError(f"{path} cannot be written: it is not a regular file; choose another name.")
    if not os.access(path if path.exists() else path.parent, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path} cannot be written: permission denied; choose another place.")
    limit = LARGEST_SIDE.get(kind)
    if size and limit and max(size) > limit:
        raise ImageError(f"{path} would be {size[0]}x{size[1]}, but {kind} ends at {limit} a side; write a PNG.")


def write_picture(path: str | os.PathLike[str], picture: Picture, encoding: Encoding | None = None) -> tuple[str, ...]:
    """Write a picture in its suffix's format, whole or not at all.

    Returns notes on what the format cannot keep. Raises `ImageError`, or `NonFiniteError` for NaN and infinity; an
    older file of the name then stays as it was.
    """
    path = Path(path)
    check_output(path, (picture.width, picture.height))
    if not torch.isfinite(picture.rgb).all():
        raise NonFiniteError(f"The result for {path} holds NaN or infinity; try --dtype float32.")
    kind = WRITE_FORMATS[path.suffix.lower()]
    values, notes = _to_values(picture, kind)
    packed = pack(picture.metadata, kind, picture.grey)
    options = _options(picture, kind, encoding or Encoding())
    with replacing(path, ImageError) as temporary, temporary.open("xb") as file:
        _encode(file, values, kind, packed, options)
    return notes + packed.notes


def save_image(path: Path, image: Image.Image, **options: Any) -> None:
    """Save a Pillow image in its suffix's format, whole or not at all. Raises `ImageError`."""
    with replacing(path, ImageError) as temporary, temporary.open("xb") as file:
        image.save(file, format=WRITE_FORMATS[path.suffix.lower()], **options)


def preview(picture: Picture) -> Image.Image:
    """The picture as an RGB image of 8 bits, on white where it is transparent."""
    return _to_image(_to_values(replace(picture, deep=False), "JPEG")[0]).convert("RGB")


def _encode(file: BinaryIO, values: NDArray[Any], kind: str, packed: Packed, options: dict[str, Any]) -> None:
    if kind == "TIFF":
        file.write(tiff.encode(values, packed.fields, packed.order))
    elif kind != "PNG":
        _to_image(values).save(file, format=kind, **packed.options, **options)
    elif values.dtype == np.uint16:
        file.write(png.with_chunks(png.encode_deep(values), packed.chunks))
    else:
        whole = BytesIO()
        _to_image(values).save(whole, format=kind)
        file.write(png.with_chunks(whole.getvalue(), packed.chunks))


def _options(picture: Picture, kind: str, encoding: Encoding) -> dict[str, Any]:
    """Pillow's options for the pixels of a JPEG or WebP."""
    quality = encoding.quality or QUALITY
    if kind == "JPEG":
        return {"quality": quality, "subsampling": SUBSAMPLINGS.index(encoding.subsampling)}
    if kind != "WEBP":
        return {}
    # exact: the colours below transparent pixels too.
    lossless = {"lossless": True, "exact": True, "quality": 80}
    return lossless if picture.lossless and encoding.quality is None else {"quality": quality}


def _to_values(picture: Picture, kind: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The picture as numbers (H,W,channels) of a type that the format has, and notes on what that loses."""
    notes: tuple[str, ...] = ()
    colours, alpha = (picture.rgb.detach().float().cpu().clamp(-1, 1) + 1) / 2, picture.alpha
    if picture.grey:
        colours = (colours * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if kind == "JPEG" and alpha is not None:
        colours, alpha = colours * alpha + (1 - alpha), None
        notes += ("JPEG has no transparency, so the picture was laid on white",)
    if kind == "WEBP" and picture.grey:
        colours = colours.expand(-1, 3, -1, -1)
    if alpha is not None:
        colours = torch.cat([colours, alpha.to(colours)], dim=1)
    deep = picture.deep and kind in ("PNG", "TIFF")
    if picture.deep and not deep:
        notes += (f"16 bits were written as 8 ({kind} has no more)",)
    return _to_array(colours, np.uint16 if deep else np.uint8), notes


def _to_image(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def _to_array(values: Tensor, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    """(1,C,H,W) in [0,1] -> (H,W,C) over the whole range of an integer type."""
    scaled = (values[0] * np.iinfo(dtype).max).round().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(scaled.astype(dtype))
