"""Writing a `Picture`, or a Pillow image, as PNG, JPEG or WebP."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import ImageError, NonFiniteError
from ..files.atomic import replacing
from .formats import LARGEST_SIDE, WRITE_FORMATS, listed
from .luma import LUMA
from .metadata import EXIF_JPEG_LIMIT, fitting_profile
from .picture import Picture


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
        raise ImageError(f"{path} cannot be written: the folder {path.parent} does not exist.")
    if path.exists() and not path.is_file():
        raise ImageError(f"{path} cannot be written: it is not a regular file.")
    if not os.access(path if path.exists() else path.parent, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path} cannot be written: permission denied.")
    limit = LARGEST_SIDE.get(kind)
    if size and limit and max(size) > limit:
        raise ImageError(f"{path} would be {size[0]}x{size[1]}, but {kind} ends at {limit} a side; write a PNG.")


def write_picture(path: str | os.PathLike[str], picture: Picture) -> tuple[str, ...]:
    """Write a picture in its suffix's format, JPEG and WebP with quality 95, whole or not at all.

    Returns notes on what the format cannot keep. Raises `ImageError`, or `NonFiniteError` for NaN and infinity; an
    older file of the name then stays as it was.
    """
    path = Path(path)
    check_output(path, (picture.width, picture.height))
    if not torch.isfinite(picture.rgb).all():
        raise NonFiniteError(f"The result for {path} holds NaN or infinity; try --dtype float32.")
    kind = WRITE_FORMATS[path.suffix.lower()]
    image, notes = _to_image(picture, kind)
    options, lost = _options(picture, kind, grey=image.mode not in ("RGB", "RGBA"))
    save_image(path, image, **options)
    return notes + lost


def save_image(path: Path, image: Image.Image, **options: Any) -> None:
    """Save a Pillow image in its suffix's format, whole or not at all. Raises `ImageError`."""
    with replacing(path, ImageError) as temporary, temporary.open("xb") as file:
        image.save(file, format=WRITE_FORMATS[path.suffix.lower()], **options)


def preview(picture: Picture) -> Image.Image:
    """The picture as an RGB image of 8 bits, on white where it is transparent."""
    return _to_image(replace(picture, deep=False), "JPEG")[0].convert("RGB")


def _options(picture: Picture, kind: str, grey: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Pillow's options for a format, metadata among them, and notes on the metadata that it cannot keep."""
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": 95}
    if kind == "JPEG":
        options["subsampling"] = 0
    icc = fitting_profile(picture.icc, grey)
    if icc:
        options["icc_profile"] = icc
    elif picture.icc:
        notes += (f"{kind} has no grey, so the grey ICC profile was left out",)
    if picture.exif and kind == "JPEG" and len(picture.exif) > EXIF_JPEG_LIMIT:
        notes += ("the EXIF data is too long for JPEG and was left out",)
    elif picture.exif:
        options["exif"] = picture.exif
    return options, notes


def _to_image(picture: Picture, kind: str) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in a Pillow mode that the format has, and notes on what that loses."""
    notes: tuple[str, ...] = ()
    colours, alpha = (picture.rgb.detach().float().cpu().clamp(-1, 1) + 1) / 2, picture.alpha
    if picture.grey:
        colours = (colours * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if kind == "JPEG" and alpha is not None:
        colours, alpha = colours * alpha + (1 - alpha), None
        notes += ("JPEG has no transparency, so the picture was laid on white",)
    if picture.deep and kind == "PNG" and alpha is None:
        return Image.fromarray(_to_array(colours, np.uint16)[..., 0]), notes
    if picture.deep:
        notes += (f"16 bits were written as 8 ({'grey with alpha' if kind == 'PNG' else kind} has no more here)",)
    if kind == "WEBP" and picture.grey:
        colours = colours.expand(-1, 3, -1, -1)
    array = _to_array(colours if alpha is None else torch.cat([colours, alpha.to(colours)], dim=1), np.uint8)
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array), notes


def _to_array(values: Tensor, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    """(1,C,H,W) in [0,1] -> (H,W,C) over the whole range of an integer type."""
    scaled = (values[0] * np.iinfo(dtype).max).round().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(scaled.astype(dtype))
