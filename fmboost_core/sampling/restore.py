"""Restoring: an enlarged image gets the small image's own content back."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ImageError
from ..imaging.resample import cover, resize


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
