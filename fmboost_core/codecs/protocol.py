"""The `Codec` protocol: from images to scaled latents and back."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..errors import ConfigError, LatentError
from ..families import Party, listed


class Codec(Protocol):
    """An autoencoder in a family's scaled latent space: ours, a tiny VAE, or a host's VAE behind an adapter.

    channels: of its latents. downscale_factor: pixels per latent along each side.
    family: its latent family, a key of `FAMILIES`; None, or no such attribute, where it is not known.
    Both methods pass gradients on; call them in `torch.no_grad()` where none are wanted.
    """

    channels: int
    downscale_factor: int

    def encode(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [-1,1], H and W multiples of downscale_factor -> scaled latents (B,C,h,w)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,C,h,w) -> images (B,3,H,W), about in [-1,1]; the caller clamps."""
        ...


def codec_party(codec: Codec) -> Party:
    """A codec as an argument of `require_same_family`: its own `party`, or one by its name and family.

    Raises `ConfigError` for what is no codec.
    """
    own = getattr(codec, "party", None)
    if isinstance(own, Party):
        return own
    missing = [name for name in ("channels", "downscale_factor", "encode", "decode") if not hasattr(codec, name)]
    if missing:
        raise ConfigError(
            f"A codec has channels, downscale_factor, encode and decode, but this {type(codec).__name__} lacks "
            f"{listed(missing)}; see `Codec`."
        )
    name = getattr(codec, "name", "")
    return Party(f"the codec {name}" if name else "the codec", getattr(codec, "family", None), codec.channels)


def check_sides(images: Tensor, downscale_factor: int) -> None:
    """Refuse images that are empty or whose sides are no multiples of the downscale factor: a `LatentError`."""
    if images.shape[-2] % downscale_factor or images.shape[-1] % downscale_factor or not images.numel():
        height, width = images.shape[-2:]
        raise LatentError(
            f"A codec takes images whose sides are multiples of {downscale_factor}, but got {width}x{height}; crop or "
            "pad them first."
        )
