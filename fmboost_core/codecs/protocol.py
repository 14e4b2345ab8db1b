"""The `Codec` protocol: between images and scaled latents."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..errors import LatentError


class Codec(Protocol):
    """Whatever turns pictures into scaled latents and back: ours, a TAESD pair, a host's VAE behind an adapter."""

    channels: int
    factor: int

    def encode(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [-1,1] -> scaled latents (B,C,H/factor,W/factor)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> (B,3,H,W), about [-1,1]; the caller clamps."""
        ...


def check_sides(images: Tensor, factor: int) -> None:
    if images.shape[-2] % factor or images.shape[-1] % factor or not images.numel():
        height, width = images.shape[-2:]
        raise LatentError(f"A codec takes pictures whose sides are multiples of {factor}, but got {width}x{height}.")
