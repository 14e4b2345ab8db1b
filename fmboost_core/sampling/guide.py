"""From a small latent or picture to the guide: a latent of the target's size without the target's detail."""

from __future__ import annotations

import math

from torch import Tensor

from ..codecs.protocol import Codec
from ..imaging.resample import cover, pad_to, resize

UPSAMPLERS = ("psu", "bilinear", "nearest")


def latent_size(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """The latent (height, width) that holds pixels (height, width)."""
    return math.ceil(size[0] / factor), math.ceil(size[1] / factor)


def image_guide(image: Tensor, codec: Codec, size: tuple[int, int], stretch: bool = True) -> Tensor:
    """E(UP(image)): image (B,3,H,W) in [-1,1] -> scaled latent that holds size (height, width) in pixels."""
    fit = resize if stretch else cover
    return codec.encode(pad_to(fit(image, size), codec.factor))


def pixel_upsample(latent: Tensor, codec: Codec, size: tuple[int, int], stretch: bool = True) -> Tensor:
    """Pixel-space upsampling (PSU), E(UP(D(latent))) (paper section 3.3); size (height, width) in pixels."""
    return image_guide(codec.decode(latent).clamp(-1, 1), codec, size, stretch)


def latent_upsample(latent: Tensor, size: tuple[int, int], mode: str, stretch: bool = True) -> Tensor:
    """Bilinear or nearest in latent space, to size (height, width) in latents (the paper's baselines, Table 4)."""
    fit = resize if stretch else cover
    return fit(latent, size, mode)
