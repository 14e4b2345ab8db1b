"""Colour modes: every Pillow mode becomes grey or RGB."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ..errors import ImageError, reason
from .icc import profile_space


def plain(image: Image.Image, path: Path) -> Image.Image:
    """A copy of the image in mode L, LA, RGB, RGBA or I;16, whichever its own mode fits into."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        return Image.fromarray(to_uint16(np.asarray(image), path))
    transparent = "transparency" in image.info or image.mode in ("LA", "RGBA", "PA", "La", "RGBa")
    kind = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return image.convert(kind + "A" if transparent else kind)


def to_uint16(values: NDArray[Any], path: Path) -> NDArray[np.uint16]:
    """Numbers as 16 bits: integers from 0..65535, floats from 0..1. `ImageError` for any other range."""
    top, name = (1.0, "float") if values.dtype.kind == "f" else (65535.0, "integer")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ImageError(
            f"{path} has {values.dtype.itemsize * 8}-bit {name} values outside 0..{top:g}; save it with 8 or 16 bits "
            "first."
        )
    return np.round(values.astype(np.float64) * (65535.0 / top)).astype(np.uint16)


def straight(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H,W,channels) in 0..1 whose colours have alpha multiplied into them, the last channel, without that."""
    alpha = values[..., -1:]
    colours = np.minimum(values[..., :-1] / np.where(alpha > 0, alpha, 1), 1)
    return np.concatenate([colours, alpha], axis=-1)


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H,W,channels) turned and mirrored by an EXIF orientation, 1 to 8."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values


def to_srgb(image: Image.Image, icc: bytes | None, path: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """A CMYK or Lab image as sRGB, and notes on how; CMYK through the file's profile if it describes CMYK."""
    if image.mode == "CMYK" and (icc is None or profile_space(icc) != "CMYK"):
        return image.convert("RGB"), ("CMYK without a profile was converted to RGB by a plain formula",)
    try:
        lab = image.mode == "LAB"
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB") if lab else BytesIO(icc or b""))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImportError, OSError, ImageCms.PyCMSError) as error:  # a Pillow without littlecms, or a broken profile
        if image.mode == "LAB":
            raise ImageError(
                f"{path} is a Lab picture, which cannot be converted here ({reason(error)}); save it as RGB first."
            ) from None
        return image.convert("RGB"), ("the CMYK profile cannot be used, so a plain formula converted to RGB",)
    assert converted is not None  # only in-place conversion returns nothing
    return converted, (f"{image.mode} was converted to sRGB",)
