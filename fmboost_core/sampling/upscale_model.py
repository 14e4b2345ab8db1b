"""Upscale models: networks that enlarge images, such as Real-ESRGAN, in the place of interpolation."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..errors import ConfigError
from ..imaging.resample import cover, resize
from ..tiles import NOT_TILEABLE, Tileable, with_margins, without_margins
from .checks import check_finite
from .restore import each_back_projected, recoloured

# Pixels by which a tileable image continues at its ends before it is enlarged, about as far as RRDB networks look.
MARGIN = 96


class UpscaleModel(Protocol):
    """A function that enlarges images by a whole number, such as a model that spandrel has loaded."""

    def __call__(self, image: Tensor, /) -> Tensor:
        """(B,3,h,w) in [0,1] -> (B,3,kh,kw), about in [0,1], with the same whole k >= 1 at each call."""
        ...


def enlarged(
    image: Tensor,
    size: tuple[int, int],
    model: UpscaleModel | None,
    distort: bool = True,
    tileable: Tileable = NOT_TILEABLE,
    restore: bool = False,
) -> Tensor:
    """An image (B,3,h,w) in [-1,1] at a size (height, width): by bilinear interpolation, or by an upscale model.

    An upscale model is applied until the image is large enough, which it may be already, then the image is reduced.
    Most shift all colours by a few of 255, so the mean colour stays, and from the second time on all broad colours do,
    which would drift (`recoloured`). The first time those are left: the codec has taken contrast from them.
    distort: whether another aspect is distorted; otherwise the image covers the size and is cropped at the centre.
    tileable: the axes along which the image is. restore: whether what the model makes gets the content back of what it
    was made from (`back_projected`), for images that no codec has decoded. Raises `ConfigError` for what does not
    enlarge as an `UpscaleModel`.
    """
    fit = resize if distort else cover
    if model is None:
        return fit(image, size, tileable=tileable)
    came_in, grows = image, True
    while grows and _is_smaller(image, size):
        larger = _applied(image, model, tileable)
        grows, distorts = larger.shape[-1] > image.shape[-1], True
        if not grows or not _is_smaller(larger, size):
            # Reduced first: a model for 4x makes four times the pixels of 2x.
            larger, distorts = fit(larger, size, "bicubic", tileable).clamp(-1, 1), distort
        if restore and grows:  # a model that does not enlarge changes the image itself, as one against noise
            larger = each_back_projected(larger, image, distorts, tileable)
        else:
            larger = recoloured(larger, image, image is not came_in, distorts, tileable)
        image = larger
    return fit(image, size, "bicubic", tileable).clamp(-1, 1)


def _is_smaller(image: Tensor, size: tuple[int, int]) -> bool:
    return image.shape[-2] < size[0] or image.shape[-1] < size[1]


def _applied(image: Tensor, model: UpscaleModel, tileable: Tileable) -> Tensor:
    """An image (B,3,h,w) in [-1,1], enlarged once. One by one: a batch then equals its singles."""
    margins = tileable.margins(MARGIN)
    wide = with_margins(image, margins)
    large = torch.cat([model(single / 2 + 0.5).to(image) for single in wide.split(1)])
    factor = large.shape[-1] // wide.shape[-1]
    expected = (*wide.shape[:2], factor * wide.shape[-2], factor * wide.shape[-1])
    if factor < 1 or large.shape != expected:
        raise ConfigError(
            f"An upscale model enlarges both sides of an image by one whole number, but this one made "
            f"{tuple(large.shape)} of {tuple(wide.shape)}; choose another one."
        )
    check_finite(large, "The image that the upscale model made")
    return (without_margins(large, (factor * margins[0], factor * margins[1])) * 2 - 1).clamp(-1, 1)
