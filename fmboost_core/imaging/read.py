"""Reading image files into a `Picture`.

Pixel values stay as they are, and an RGB or grey ICC profile goes with them. CMYK and Lab, which no network here
knows, become sRGB.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import ImageError, reason
from .colour import fill_hidden, plain, to_srgb
from .formats import READ_FORMATS, listed
from .metadata import bit_depth_notes, fitting_profile, png_header, read_exif, upright
from .picture import Picture


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, BMP or GIF, upright by its EXIF orientation.

    Raises `ImageError` for a file that is missing, locked, damaged, of another format, of several frames, or too
    large to open.
    """
    path = Path(path)
    with _opened(path) as image:
        try:
            return _to_picture(image, path)
        except MemoryError:
            raise ImageError(f"{path} ({image.width}x{image.height}) does not fit into memory.") from None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The loaded single frame of a file."""
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not a picture.")
    if not path.exists():
        raise ImageError(f"{path} does not exist.")
    if not path.is_file():
        raise ImageError(f"{path} is not a regular file.")
    try:
        image = _load(path)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise ImageError(f"{path} claims more than {limit} million pixels, which is not opened for safety.") from None
    except UnidentifiedImageError:
        what = "is empty" if path.stat().st_size == 0 else f"is not a picture of a known kind ({listed(READ_FORMATS)})"
        raise ImageError(f"{path} {what}.") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read: permission denied.") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise ImageError(f"{path} is damaged or cut short ({reason(error)}).") from None
    with image:
        yield image


def _load(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and untidy metadata; what matters is raised
        image = Image.open(path, formats=READ_FORMATS)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # phones' MPO is a JPEG with previews behind it
            raise ImageError(f"{path} has {frames} frames; take one out first.")
        image.load()
    return image


def _to_picture(image: Image.Image, path: Path) -> Picture:
    info, notes = image.info, bit_depth_notes(image, path)
    orientation, exif = read_exif(image)
    grey_alpha = png_header(path)[1:] == (4,)  # Pillow reads 16-bit grey with alpha as colour with alpha
    icc = info.get("icc_profile") or None
    if image.mode in ("CMYK", "LAB"):
        image, more = to_srgb(image, icc, path)
        icc, notes = None, notes + more
    image = upright(plain(image, path), orientation)
    deep = image.mode == "I;16"
    values = _values(image)
    grey = values.shape[-1] < 3 or grey_alpha
    colours = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, axis=-1)
    rgb, alpha = _to_tensor(colours) * 2 - 1, None
    opacity = _opacity(image, values, info.get("transparency") if deep else None)
    if opacity is not None:
        alpha = _to_tensor(opacity)
        rgb = fill_hidden(rgb, alpha)
    return Picture(rgb, alpha, grey, deep, fitting_profile(icc, grey), exif, notes)


def _opacity(image: Image.Image, values: NDArray[Any], key: object) -> NDArray[Any] | None:
    """(H,W,1) in 0..1: the alpha channel, or for 16-bit grey what is not its transparent value; None if opaque."""
    if isinstance(key, int):
        return (np.asarray(image)[..., None] != key).astype(np.float32)
    return values[..., -1:] if image.mode in ("LA", "RGBA") else None


def _values(image: Image.Image) -> NDArray[Any]:
    """(H,W,channels) in 0..1."""
    array = np.asarray(image)
    scaled = array.astype(np.float32) / (65535 if array.dtype == np.uint16 else 255)
    return scaled if scaled.ndim == 3 else scaled[..., None]


def _to_tensor(values: NDArray[Any]) -> Tensor:
    """(H,W,C) -> (1,C,H,W)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]
