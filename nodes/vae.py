"""The host's VAE as the core's `Codec`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from ..fmboost_core.families import FAMILIES, LatentFamily, Party, families_with, family_of_space
from ..fmboost_core.foreign import SOUND, VIDEO, space_of_class
from ..fmboost_core.recognition import is_recognisable, recognise_codec

_SEEMS: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()  # by the host's VAE


class HostVAE:
    """The host's VAE as the core's `Codec`."""

    def __init__(self, vae: Any, family: str | None, tiled: bool = False, whose: str = "latent") -> None:
        """family: whose scaled latents the codec takes and gives; None: the VAE's own raw ones.

        tiled: always in tiles; otherwise the host works in tiles when memory runs out.
        whose: of whose family it has to be, for messages.
        """
        self._vae, self._tiled = vae, tiled
        self._space = LatentFamily("raw", "raw", vae.latent_channels, 1.0) if family is None else FAMILIES[family]
        self.channels: int = vae.latent_channels
        self.downscale_factor: int = vae.spacial_compression_encode()
        foreign = _foreign_space(vae, self.channels, self.downscale_factor)
        self.family = None if foreign else _family_of_vae(vae)
        instead = f"connect the VAE of the {whose}'s family"
        self.party = Party("the VAE", self.family, self.channels, instead, foreign=foreign)

    def examined(self) -> Party:
        """The party, where the VAE does not tell its family with the one that it seems to be of.

        Once for each VAE: it encodes a small test image, whose latent is recognised.
        """
        if self.party.space is not None or not is_recognisable(self.channels):
            return self.party
        if self._vae not in _SEEMS:
            _SEEMS[self._vae] = recognise_codec(self._raw)
        return replace(self.party, seems=_SEEMS[self._vae])

    def encode(self, images: Tensor) -> Tensor:
        return self._space.to_scaled(self._raw(images)).to(images.device)

    def _raw(self, images: Tensor) -> Tensor:
        pixels = images.movedim(1, -1) / 2 + 0.5
        raw: Tensor = self._vae.encode_tiled(pixels) if self._tiled else self._vae.encode(pixels)
        return raw.float()

    def decode(self, latents: Tensor) -> Tensor:
        raw = self._space.to_raw(latents)
        pixels = self._vae.decode_tiled(raw) if self._tiled else self._vae.decode(raw)
        return pixels.movedim(-1, 1).to(latents) * 2 - 1


def _foreign_space(vae: Any, channels: int, unit: int) -> str:
    """The name of a VAE's space that no family has, by its class, its axes and the size of a latent; "" for others.

    unit: pixels per latent along each side.
    """
    space = space_of_class(type(getattr(vae, "first_stage_model", None)).__name__)
    if space is not None and space.channels == channels:  # Wan 2.1's and Wan 2.2's VAEs have one name
        return space.title
    axes = getattr(vae, "latent_dim", 2)
    if axes != 2:
        return families_with(channels, VIDEO if axes == 3 else SOUND)
    units = {family.downscale_factor for family in FAMILIES.values() if family.channels == channels}
    return f"{unit}x{unit}-pixel" if units and unit not in units else ""


def _family_of_vae(vae: Any) -> str | None:
    """The family of a VAE: a tiny VAE carries its scaling factor and shift, other VAEs do not tell."""
    network: Any = getattr(vae, "first_stage_model", None)
    if not hasattr(network, "vae_scale") or not hasattr(network, "vae_shift"):
        return None
    return family_of_space(vae.latent_channels, float(network.vae_scale), float(network.vae_shift))
