"""Colour modes: every Pillow mode becomes grey or RGB, and transparent positions get a colour."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

from ..errors import ImageError, reason
from .metadata import profile_space


def plain(image: Image.Image, path: Path) -> Image.Image:
    """A copy of the image in mode L, LA, RGB, RGBA or I;16, whichever its own mode fits into."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        return Image.fromarray(_wide_to_uint16(np.asarray(image), path))
    transparent = "transparency" in image.info or image.mode in ("LA", "RGBA", "PA", "La", "RGBa")
    kind = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return image.convert(kind + "A" if transparent else kind)


def _wide_to_uint16(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """32-bit grey as 16 bits: integers from 0..65535, floats from 0..1. `ImageError` for any other range."""
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ImageError(f"{path} has 32-bit values outside 0..{top:g}; save it with 8 or 16 bits first.")
    return np.round(values * (65535.0 / top)).astype(np.uint16)


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
            raise ImageError(f"{path} is a Lab picture, which cannot be converted here ({reason(error)}).") from None
        return image.convert("RGB"), ("the CMYK profile cannot be used, so a plain formula converted to RGB",)
    assert converted is not None  # only in-place conversion returns nothing
    return converted, (f"{image.mode} was converted to sRGB",)


def fill_hidden(rgb: Tensor, alpha: Tensor) -> Tensor:
    """`rgb` with the colours of visible neighbours where alpha is 0, so that no hidden colour bleeds into the edge.

    rgb (1,3,H,W), alpha (1,1,H,W) in [0,1]. A pyramid of averages weighted by alpha: each level takes from the next
    coarser one what it lacks.
    """
    if alpha.min() > 0 or alpha.max() == 0:
        return rgb
    levels = [(rgb * alpha, alpha)]
    while max(levels[-1][1].shape[-2:]) > 1:
        colours, weights = levels[-1]
        levels.append((F.avg_pool2d(colours, 2, ceil_mode=True), F.avg_pool2d(weights, 2, ceil_mode=True)))
    filled = levels[-1][0] / levels[-1][1]
    for colours, weights in reversed(levels[:-1]):
        coarse = F.interpolate(filled, size=weights.shape[-2:], mode="bilinear")
        filled = torch.where(weights > 0, colours / weights.clamp_min(1e-20), coarse)
    return torch.where(alpha > 0, rgb, filled)
