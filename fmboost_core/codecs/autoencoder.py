"""Autoencoders of diffusers as codecs. diffusers itself is not imported here: who has an autoencoder has it already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LatentError
from ..families import FAMILIES, Party, family_of_space, family_of_tiny_vae, titles
from ..files.locate import bundled_models
from ..recognition import is_recognisable, recognise_codec
from .protocol import check_sides

KL, TINY = "AutoencoderKL", "AutoencoderTiny"


class AutoencoderCodec(nn.Module):
    """diffusers' AutoencoderKL or AutoencoderTiny as a `Codec`. The former encodes to the mean of the posterior."""

    def __init__(self, autoencoder: Any) -> None:
        """autoencoder: its configuration tells channels, scaling factor and shift."""
        super().__init__()
        config = autoencoder.config
        self.autoencoder = autoencoder
        self.is_tiny = TINY in _classes(autoencoder)
        self.name = TINY if self.is_tiny else KL
        self.channels: int = config.latent_channels
        levels = config.encoder_block_out_channels if self.is_tiny else config.down_block_types
        self.downscale_factor: int = 2 ** (len(levels) - 1)
        self.scaling_factor: float = config.scaling_factor
        self.shift: float = config.shift_factor or 0.0
        self.family = family_of_space(self.channels, self.scaling_factor, self.shift)

    def encode(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [-1,1] -> scaled latents. Raises `LatentError` for sides that the codec cannot take."""
        check_sides(images, self.downscale_factor)
        raw = self._run("encoding", self._encoded, images)
        return (raw - self.shift) * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> images, about in [-1,1]."""
        return self._run(
            "decoding", lambda x: self.autoencoder.decode(x).sample, latents / self.scaling_factor + self.shift
        )

    def _encoded(self, images: Tensor) -> Tensor:
        """The autoencoder's raw latents."""
        encoded = self.autoencoder.encode(images)
        raw: Tensor = encoded.latents if self.is_tiny else encoded.latent_dist.mean
        return raw

    def _run(self, step: str, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """part(x) in the weights' type and on their device; its result is of the input's type and device."""
        raise NotImplementedError


class DiffusersCodec(AutoencoderCodec):
    """The VAE of a diffusers pipeline as a `Codec`; its type, device, tiling, slicing and offloading stay as they are.

    A VAE in float16 that asks for it (`force_upcast`, as SDXL's does) works in float32 and is float16 afterwards, as in
    diffusers' own pipelines.
    """

    def __init__(self, vae: Any) -> None:
        """vae: an AutoencoderKL, whose scaling factor and shift tell its family, or an AutoencoderTiny.

        Raises `LatentError` for other kinds, and for a VAE that scales each channel by itself.
        """
        known, vae = titles(FAMILIES, "or"), getattr(vae, "_orig_mod", vae)  # the latter of one that is compiled
        if not _classes(vae) & {KL, TINY}:
            raise LatentError(f"The VAE is of the class {type(vae).__name__}; give an {KL} or {TINY} of {known}.")
        if getattr(vae.config, "latents_mean", None) or getattr(vae.config, "latents_std", None):
            raise LatentError(f"The VAE scales each channel of the latent by itself; give one of {known}.")
        super().__init__(vae)
        if self.is_tiny and self.family is None:
            found = family_of_tiny_vae(Path(str(getattr(vae.config, "_name_or_path", ""))).name)
            self.family = found if found and FAMILIES[found].channels == self.channels else None

    @cached_property
    def party(self) -> Party:
        """This VAE as an argument of `require_same_family`.

        A VAE that does not tell its family encodes a small test image, once, whose latent may be recognised.
        """
        seems = None
        if self.family is None and is_recognisable(self.channels):
            with torch.no_grad():
                seems = recognise_codec(self.encode)
        models = [name for name in bundled_models() if name.startswith(f"{self.family or seems}-")]
        instead = f"take a model of the VAE's family, such as {models[0]}" if models else ""
        return Party("the VAE", self.family, self.channels, instead, seems)

    def _run(self, step: str, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with _upcast(self.autoencoder):
            return part(x.to(_input_device(self.autoencoder), self.autoencoder.dtype)).to(x)


def _classes(vae: Any) -> set[str]:
    """The names of its class and of those that it is derived from."""
    return {kind.__name__ for kind in type(vae).__mro__}


@contextmanager
def _upcast(vae: Any) -> Iterator[None]:
    """Inside the block, a VAE in float16 that overflows there is in float32."""
    # Not diffusers' own `to`, which warns of every change of type.
    overflows = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if overflows:
        nn.Module.to(vae, dtype=torch.float32)
    try:
        yield
    finally:
        if overflows:
            nn.Module.to(vae, dtype=torch.float16)


def _input_device(vae: Any) -> torch.device:
    """Where the VAE's inputs have to be: with offloading its weights wait elsewhere."""
    tell = getattr(import_module("diffusers.utils.torch_utils"), "get_module_execution_device", None)
    if tell is not None:
        return torch.device(tell(vae))
    hook = getattr(vae, "_hf_hook", None)  # of versions that do not tell
    return torch.device(getattr(hook, "execution_device", None) or vae.device)
