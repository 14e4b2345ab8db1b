"""Guides: latents of the target's size without the target's detail, from a small latent or image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..codecs.protocol import Codec
from ..imaging.resample import pad_to, resize
from ..networks.guide import GuideNetwork, interpolated, places
from ..spec import GUIDES
from ..tiles import NOT_TILEABLE, Tileable
from .fast_guide import fitted_guide
from .fit import Axis, fit
from .upscale_model import UpscaleModel, enlarged

UPSAMPLERS = GUIDES


def latent_size(size: tuple[int, int], downscale_factor: int) -> tuple[int, int]:
    """The latent (height, width) that holds an image of (height, width) in pixels."""
    return math.ceil(size[0] / downscale_factor), math.ceil(size[1] / downscale_factor)


def image_guide(
    image: Tensor,
    codec: Codec,
    size: tuple[int, int],
    distort: bool = True,
    tileable: Tileable = NOT_TILEABLE,
    upscale_model: UpscaleModel | None = None,
) -> Tensor:
    """E(UP(image)): the scaled latent of an image (B,3,H,W) in [-1,1], upsampled to size (height, width) in pixels.

    distort: whether another aspect is distorted; otherwise the image covers the size and is cropped at the centre.
    tileable: the axes along which the image is; the codec must be `periodic` there. upscale_model: UP; None: bilinear
    interpolation, the paper's.
    """
    return encoded(enlarged(image, size, upscale_model, distort, tileable), codec)


def encoded(image: Tensor, codec: Codec) -> Tensor:
    """The scaled latent of an image (B,3,H,W) in [-1,1] of any size; the last edge fills up the last latents."""
    return codec.encode(pad_to(image, codec.downscale_factor))


def pixel_upsample(
    latent: Tensor,
    codec: Codec,
    size: tuple[int, int],
    distort: bool = True,
    tileable: Tileable = NOT_TILEABLE,
    upscale_model: UpscaleModel | None = None,
) -> Tensor:
    """Pixel-space upsampling (PSU), E(UP(D(latent))) (paper section 3.3), to size (height, width) in pixels."""
    return image_guide(codec.decode(latent).clamp(-1, 1), codec, size, distort, tileable, upscale_model)


@dataclass(frozen=True)
class LatentUpsampling:
    """How a guide is made of a scaled latent alone, without a codec: by a fast guide, or by interpolation.

    method: one of `UPSAMPLERS` but "psu"; "bilinear" and "nearest" interpolate (paper Table 4). unit: pixels per
    latent. network: the guide network of "fast". tile: side of its tiles in the guide's latents, or None. tileable: the
    axes along which the latent is.
    """

    method: str
    unit: int
    network: GuideNetwork | None = None
    tile: int | None = None
    tileable: Tileable = NOT_TILEABLE

    @property
    def kind(self) -> str:
        """The kind of these guides, one of `GUIDE_KINDS`: a fast guide stands for one that was encoded."""
        return "latent" if self.method == "fast" else "resized"

    def __call__(self, latent: Tensor, start: tuple[int, int], end: tuple[int, int], distort: bool = True) -> Tensor:
        """The guide of an image of end (height, width) in pixels, from the latent (B,C,h,w) of one of start.

        distort: as in `image_guide`.
        """
        axes = fit(start, end, self.unit, distort, self.tileable)
        if self.method != "fast":
            return self._interpolated(latent, axes)
        assert self.network is not None
        y, x = axes
        whole = (y.whole(latent.shape[-2]), x.whole(latent.shape[-1]))
        guide = fitted_guide(self.network, latent, whole, self.tile, self.tileable)
        return guide[..., y.cropped : y.cropped + y.length, x.cropped : x.cropped + x.length]

    def _interpolated(self, latent: Tensor, axes: tuple[Axis, Axis]) -> Tensor:
        sides = latent.shape[-2:]
        plain = [axis.is_plain(side) for axis, side in zip(axes, sides, strict=True)]
        size = [axis.length if ok else side for axis, side, ok in zip(axes, sides, plain, strict=True)]
        latent = resize(latent, (size[0], size[1]), self.method, self.tileable)
        if all(plain):
            return latent
        rows, columns = (
            places(1, 0, 0, axis.length) if ok else places(axis.ratio, axis.offset, 0, axis.length)
            for axis, ok in zip(axes, plain, strict=True)
        )
        if self.method == "nearest":
            rows, columns = (rows + 0.5).floor(), (columns + 0.5).floor()
        return interpolated(latent, rows, columns)
