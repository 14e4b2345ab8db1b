"""What a velocity network is conditioned on, besides its state and the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

# What a guide was encoded from, in the order of the networks' classes. "latent" is E(UP(D(z))), which has lost what the
# codec loses; "image" is E(UP(x)), of the image itself.
GUIDE_KINDS = ("latent", "image")


class Conditioning(NamedTuple):
    """The conditioning of a batch.

    guide: the upsampled latent (B,C,h,w), of the state's size.
    kind: indices into `GUIDE_KINDS`, (B,) whole numbers; None for networks without classes.
    noise_level: the standard deviation of the noise in each start, (B,) in [0,1]; None for networks without it.
    """

    guide: Tensor
    kind: Tensor | None = None
    noise_level: Tensor | None = None
