"""What a velocity network is conditioned on, besides its state and the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

# What a guide was made from, in the order of the networks' classes. "latent" is E(UP(D(z))), which has lost what the
# codec loses; "image" is E(UP(x)), of the image itself; "resized" is UP(z), the small latent itself, without a codec;
# "enlarged" is E(U(x)), of an image that an upscale model U has enlarged. Networks of two classes know the first two,
# those of three the first three.
GUIDE_KINDS = ("latent", "image", "resized", "enlarged")
ENCODED_KINDS = ("latent", "image", "enlarged")  # those that a codec makes
# What a kind counts as in a network that does not know it; the others count as encoded from a latent. Enlarged images
# count as images: like these, they have fine detail.
STANDS_FOR = {"enlarged": "image"}


def class_of(kind: str, classes: int) -> int:
    """The class of a guide kind in a network of so many (`STANDS_FOR`)."""
    for known in (kind, STANDS_FOR.get(kind, kind)):
        if GUIDE_KINDS.index(known) < classes:
            return GUIDE_KINDS.index(known)
    return 0


class Conditioning(NamedTuple):
    """The conditioning of a batch.

    guide: the upsampled latent (B,C,h,w), of the state's size.
    kind: classes of the guides (`class_of`), (B,) whole numbers; None for networks without classes.
    noise_level: the standard deviation of the noise in each start, (B,) in [0,1]; None for networks without it.
    """

    guide: Tensor
    kind: Tensor | None = None
    noise_level: Tensor | None = None
