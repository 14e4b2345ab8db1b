"""Picture files: what a photographer's file holds becomes a `Picture`, and back, without a half-written file.

Pixel values are kept as they are (display-referred) and an RGB or grey ICC profile goes with them into the output;
only CMYK and Lab, which no network here knows, are converted to sRGB.
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
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from ..errors import ImageError, NonFiniteError
from ..files.atomic import replacing

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
WRITE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LARGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as Pillow's own conversion to grey
_ORIENTATION = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What a file says about the photograph. All else in a TIFF's or JPEG's directory describes the old file itself.
_EXIF_KEPT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_EXIF_DIRECTORIES = (0x8769, 0x8825)  # of the shot, of the place
_EXIF_STALE = (0x927C, 0xA002, 0xA003, 0xA005)  # maker note (offsets into the old file), old width, height, interop
_EXIF_JPEG_LIMIT = 65533


@dataclass(frozen=True)
class Picture:
    """A picture as the core works on it, and what is needed to write it as it came.

    rgb: (1,3,H,W) float in [-1,1]. alpha: (1,1,H,W) in [0,1], or None for an opaque picture; the colours of
    invisible positions (alpha 0) are those of their visible neighbours.
    grey: the file had no colour; it is written without. deep: it is grey of 16 bits.
    icc: an ICC profile, exif: EXIF data (without orientation), both as stored. notes: what reading lost, for people.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    grey: bool = False
    deep: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return self.rgb.shape[-1]

    @property
    def height(self) -> int:
        return self.rgb.shape[-2]

    def with_pixels(self, rgb: Tensor, alpha: Tensor | None) -> Picture:
        """The same kind of picture with other pixels."""
        return replace(self, rgb=rgb, alpha=alpha)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read PNG, JPEG, WebP, TIFF, BMP or GIF, upright by its EXIF orientation. `ImageError` says what is wrong."""
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
        what = "is empty" if path.stat().st_size == 0 else f"is not a picture of a known kind ({_listed(READ_FORMATS)})"
        raise ImageError(f"{path} {what}.") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read: permission denied.") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise ImageError(f"{path} is damaged or cut short ({_clause(error)}).") from None
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


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]


def _clause(error: BaseException) -> str:
    """An exception's text as part of a sentence."""
    return str(error).strip().rstrip(".") or type(error).__name__


def _to_picture(image: Image.Image, path: Path) -> Picture:
    info, notes = image.info, _bit_depth_notes(image, path)
    orientation, exif = _exif(image)
    grey_alpha = _png_header(path)[1:] == (4,)  # Pillow reads 16-bit grey with alpha as colour with alpha
    icc = info.get("icc_profile") or None
    if image.mode in ("CMYK", "LAB"):
        image, more = _to_srgb(image, icc, path)
        icc, notes = None, notes + more
    image = _plain(image, path)
    key = info.get("transparency") if image.mode == "I;16" else None
    if orientation in _ORIENTATIONS:
        image = image.transpose(_ORIENTATIONS[orientation])
    values, deep = _values(image), image.mode == "I;16"
    opacity = values[..., -1:] if image.mode in ("LA", "RGBA") else None
    if isinstance(key, int):
        opacity = (np.asarray(image)[..., None] != key).astype(np.float32)
    grey = values.shape[-1] < 3 or grey_alpha
    colours = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, axis=-1)
    rgb, alpha = _to_tensor(colours) * 2 - 1, None if opacity is None else _to_tensor(opacity)
    if alpha is not None:
        rgb = _fill_hidden(rgb, alpha)
    return Picture(rgb, alpha, grey, deep, _fitting_profile(icc, grey), exif, notes)


def _plain(image: Image.Image, path: Path) -> Image.Image:
    """The image in mode L, LA, RGB, RGBA or I;16, whatever its own is."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        return Image.fromarray(_wide_to_uint16(np.asarray(image), path))
    transparent = "transparency" in image.info or image.mode in ("LA", "RGBA", "PA", "La", "RGBa")
    kind = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return image.convert(kind + "A" if transparent else kind)


def _wide_to_uint16(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """32-bit grey, whole numbers as 0..65535 and fractions as 0..1; their range is the file's secret otherwise."""
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise ImageError(f"{path} has 32-bit values outside 0..{top:g}; save it with 8 or 16 bits first.")
    return np.round(values * (65535.0 / top)).astype(np.uint16)


def _to_srgb(image: Image.Image, icc: bytes | None, path: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """CMYK and Lab to sRGB, through the file's profile where it has one that fits."""
    if image.mode == "CMYK" and (icc is None or _profile_space(icc) != "CMYK"):
        return image.convert("RGB"), ("CMYK without a profile was converted to RGB by a plain formula",)
    try:
        lab = image.mode == "LAB"
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB") if lab else BytesIO(icc or b""))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImportError, OSError, ImageCms.PyCMSError) as error:  # a Pillow without littlecms, or a broken profile
        if image.mode == "LAB":
            raise ImageError(f"{path} is a Lab picture, which cannot be converted here ({_clause(error)}).") from None
        return image.convert("RGB"), ("the CMYK profile cannot be used, so a plain formula converted to RGB",)
    assert converted is not None  # only in-place conversion returns nothing
    return converted, (f"{image.mode} was converted to sRGB",)


def _profile_space(icc: bytes) -> str:
    """The colour space in an ICC profile's header: "RGB", "GRAY", "CMYK"."""
    return icc[16:20].decode("ascii", "replace").strip()


def _fitting_profile(icc: bytes | None, grey: bool) -> bytes | None:
    return icc if icc and _profile_space(icc) == ("GRAY" if grey else "RGB") else None


def _png_header(path: Path) -> tuple[int, ...]:
    """Bits a channel and colour type of a PNG; () for another file."""
    with path.open("rb") as file:
        head = file.read(26)
    return tuple(head[24:26]) if head[:8] == b"\x89PNG\r\n\x1a\n" else ()


def _bit_depth_notes(image: Image.Image, path: Path) -> tuple[str, ...]:
    """Says so where Pillow, which has no colour of 16 bits, reads 8 of them."""
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        bits = _png_header(path)[:1]
        if image.format == "TIFF":
            bits = tuple(getattr(image, "tag_v2", {}).get(258, ()))[:1]
        if bits == (16,):
            return ("16 bits a channel were read as 8 (only grey without alpha keeps 16)",)
    return ()


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Orientation, and the EXIF data worth keeping; unreadable data counts as none."""
    try:
        old = image.getexif()
        # Pillow turns TIFF upright by itself, and older versions forget to say so.
        orientation = 1 if image.format == "TIFF" else old.get(_ORIENTATION, 1)
        kept = Image.Exif()
        for tag in _EXIF_KEPT:
            if tag in old:
                kept[tag] = old[tag]
        for tag in _EXIF_DIRECTORIES:
            directory = {k: v for k, v in old.get_ifd(tag).items() if k not in _EXIF_STALE}
            if directory:
                kept[tag] = directory
        return orientation, kept.tobytes() if len(kept) else None
    except Exception:  # cameras write EXIF that Pillow's parser and writer stumble over in many ways
        return 1, None


def _values(image: Image.Image) -> NDArray[Any]:
    """(H,W,channels) in 0..1."""
    array = np.asarray(image)
    scaled = array.astype(np.float32) / (65535 if array.dtype == np.uint16 else 255)
    return scaled if scaled.ndim == 3 else scaled[..., None]


def _to_tensor(values: NDArray[Any]) -> Tensor:
    """(H,W,C) -> (1,C,H,W)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


def _fill_hidden(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Give invisible positions their visible neighbours' colours, so that no fringe of the hidden ones bleeds in.

    Averages weighted by alpha on ever coarser grids; each grid takes from the next coarser what it lacks.
    """
    if alpha.min() > 0 or alpha.max() == 0:
        return rgb
    grids = [(rgb * alpha, alpha)]
    while max(grids[-1][1].shape[-2:]) > 1:
        colours, weights = grids[-1]
        grids.append((F.avg_pool2d(colours, 2, ceil_mode=True), F.avg_pool2d(weights, 2, ceil_mode=True)))
    filled = grids[-1][0] / grids[-1][1]
    for colours, weights in reversed(grids[:-1]):
        coarse = F.interpolate(filled, size=weights.shape[-2:], mode="bilinear")
        filled = torch.where(weights > 0, colours / weights.clamp_min(1e-20), coarse)
    return torch.where(alpha > 0, rgb, filled)


def check_output(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> None:
    """`ImageError` now if `write_picture` would fail later: suffix, folder, permission, size (width, height)."""
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path} is a folder; name a file in it.")
    kind = WRITE_FORMATS.get(path.suffix.lower())
    if kind is None:
        known = _listed(tuple(WRITE_FORMATS))
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
    """Write a picture in its suffix's format, JPEG and WebP with quality 95; returns what the format could not keep.

    The file appears whole or not at all: an older one of the name stays untouched on any failure.
    Raises `ImageError`, or `NonFiniteError` for NaN and infinity.
    """
    path = Path(path)
    check_output(path, (picture.width, picture.height))
    if not torch.isfinite(picture.rgb).all():
        raise NonFiniteError(f"The result for {path} holds NaN or infinity; try --dtype float32.")
    kind = WRITE_FORMATS[path.suffix.lower()]
    image, notes = _to_image(picture, kind)
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": 95}
    if kind == "JPEG":
        options["subsampling"] = 0
    icc = _fitting_profile(picture.icc, grey=image.mode not in ("RGB", "RGBA"))
    if icc:
        options["icc_profile"] = icc
    elif picture.icc:
        notes += (f"{kind} has no grey, so the grey ICC profile was left out",)
    if picture.exif and kind == "JPEG" and len(picture.exif) > _EXIF_JPEG_LIMIT:
        notes += ("the EXIF data is too long for JPEG and was left out",)
    elif picture.exif:
        options["exif"] = picture.exif
    save_image(path, image, **options)
    return notes


def preview(picture: Picture) -> Image.Image:
    """The picture as an RGB image of 8 bits, on white where it is transparent."""
    return _to_image(replace(picture, deep=False), "JPEG")[0].convert("RGB")


def _to_image(picture: Picture, kind: str) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in a Pillow mode that the format has, and what that lost."""
    notes: tuple[str, ...] = ()
    colours, alpha = (picture.rgb.detach().float().cpu().clamp(-1, 1) + 1) / 2, picture.alpha
    if picture.grey:
        colours = (colours * torch.tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
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
    """(1,C,H,W) in [0,1] -> (H,W,C) of all the type's range."""
    scaled = (values[0] * np.iinfo(dtype).max).round().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(scaled.astype(dtype))


def save_image(path: Path, image: Image.Image, **options: Any) -> None:
    """Save a Pillow image in its suffix's format, whole or not at all; `ImageError` says why not."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        image.save(file, format=WRITE_FORMATS[path.suffix.lower()], **options)
