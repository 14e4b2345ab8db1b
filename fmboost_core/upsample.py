"""From a small latent or picture to the guide: a latent of the target's size without the target's detail."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .codec import Codec
from .errors import ImageError

UPSAMPLERS = ("psu", "bilinear", "nearest")


def resize(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """(B,C,H,W) to size (height, width), half-pixel centres; bilinear and bicubic are antialiased where they reduce."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if mode == "nearest":
        return F.interpolate(x, size=size, mode="nearest-exact")
    reduces = size[0] < x.shape[-2] or size[1] < x.shape[-1]
    return F.interpolate(x, size=size, mode=mode, antialias=reduces)


def cover(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Like `resize`, but keeps the aspect: as small as covers size, cut at the centre."""
    height, width = x.shape[-2:]
    ratio = max(size[0] / height, size[1] / width)
    full = (max(size[0], round(height * ratio)), max(size[1], round(width * ratio)))
    top, left = (full[0] - size[0]) // 2, (full[1] - size[1]) // 2
    return resize(x, full, mode)[..., top : top + size[0], left : left + size[1]]


def pad_to(images: Tensor, unit: int) -> Tensor:
    """Repeat the right and the bottom edge until both sides are multiples of unit."""
    bottom, right = -images.shape[-2] % unit, -images.shape[-1] % unit
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


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


def restored(picture: Tensor, small: Tensor, stretch: bool = True) -> Tensor:
    """An enlarged picture with the small one's own content: what is coarse enough for the small one comes from it.

    One step of iterative back-projection (Irani and Peleg, 1991), picture + U(small - R(picture)), with U bicubic
    and R the reduction. picture (B,3,H,W), small (B,3,h,w), `stretch` as it was enlarged. More steps sharpen more,
    too much where the small picture was sharp already.
    """
    size = (picture.shape[-2], picture.shape[-1])
    ratio = max(size[0] / small.shape[-2], size[1] / small.shape[-1])
    reduced = (max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio)))
    if stretch:
        reduced = (small.shape[-2], small.shape[-1])
    fit = resize if stretch else cover
    fine = picture - resize(resize(picture, reduced), size, "bicubic")
    return fine.add_(fit(small, size, "bicubic"))


def restore(pictures: Tensor, small: Tensor) -> Tensor:
    """`restored` for decoded pictures (B,3,H,W) in [-1,1] and the small ones (B or 1,3,h,w) that they were made from.

    Where the aspects differ the large ones are taken for cut at the centre. Raises `ImageError` for a small picture
    that is larger, and for batches that do not go together.
    """
    (height, width), (low, narrow) = pictures.shape[-2:], small.shape[-2:]
    if low > height or narrow > width:
        raise ImageError(
            f"The small picture is {narrow}x{low} and the large one {width}x{height}; connect them the other way round."
        )
    if small.shape[0] not in (1, pictures.shape[0]):
        raise ImageError(f"There are {pictures.shape[0]} large pictures and {small.shape[0]} small ones.")
    stretch = abs(width / narrow - height / low) * min(low, narrow) < 1  # less than a pixel of rounding
    small = small.to(pictures.device).expand(pictures.shape[0], -1, -1, -1)

    def one(large: Tensor, low: Tensor) -> Tensor:
        """In single precision, for a CPU cannot resize in half, and hosts decode on the GPU and hand on to the CPU."""
        return restored(large.float().clamp(-1, 1), low.float().clamp(-1, 1), stretch).clamp(-1, 1).to(pictures)

    # One by one: a batch may be a film, and each takes a few times its own memory.
    return torch.cat(list(map(one, pictures.split(1), small.split(1))))
