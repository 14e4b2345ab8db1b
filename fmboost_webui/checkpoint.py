"""A host's checkpoint: its latent family, and its VAE as the core's `Codec`.

The hosts hold the parts of a checkpoint in different places, but all of them encode by `encode_first_stage` and decode
by `decode_first_stage`. Those with `forge_objects` (Forge and its forks) move and cast the VAE by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import devices, processing, sd_models, sd_samplers_common, shared
from torch import Tensor

from fmboost_core.codecs.protocol import Codec
from fmboost_core.errors import LatentError
from fmboost_core.families import FAMILIES, LatentFamily, Party, family_of_space

NO_VARIANCE = -30.0  # the least logarithm of a variance in all hosts: a standard deviation of 3e-7


def family_of(checkpoint: Any) -> str | None:
    """The latent family of a checkpoint; None for one of no known family.

    Forge and its forks hold the numbers of the latent space, and have no attribute for FLUX.1 and Chroma.
    AUTOMATIC1111 has attributes (`LatentFamily.webui`).
    """
    space = _latent_space(checkpoint)
    if space is not None:
        return family_of_space(*space)
    families = (f.name for f in FAMILIES.values() if any(getattr(checkpoint, name, False) for name in f.webui))
    return next(families, None)


def _latent_space(checkpoint: Any) -> tuple[int, float, float] | None:
    """(channels, scaling factor, shift) where the host holds them.

    Forge Neo holds them at the VAE, reForge and Forge Classic at the diffusion model, Forge in the VAE itself.
    """
    parts = getattr(checkpoint, "forge_objects", None)
    if parts is None:
        return None
    network, diffusion = parts.vae.first_stage_model, getattr(parts.unet, "model", None)
    space = getattr(network, "latent_format", None) or getattr(diffusion, "latent_format", None)
    if space is None:
        return parts.vae.latent_channels, network.scaling_factor, network.shift_factor
    return parts.vae.latent_channels, space.scale_factor, getattr(space, "shift_factor", 0.0)


def party_of(checkpoint: Any) -> Party:
    """The checkpoint in `require_same_family`."""
    return Party("the checkpoint", family_of(checkpoint))


def loaded_party() -> Party | None:
    """The checkpoint in memory; None where there is none yet. `shared.sd_model` would load one."""
    checkpoint = sd_models.model_data.sd_model
    is_loaded = any(hasattr(checkpoint, name) for f in FAMILIES.values() for name in f.webui)
    return party_of(checkpoint) if is_loaded else None


def loaded_checkpoint() -> Any:
    """The chosen checkpoint. Forge and Forge Neo load it only when something is generated; Extras may come first."""
    if hasattr(sd_models, "forge_model_reload"):
        sd_models.forge_model_reload()
    return shared.sd_model


def host_vae(checkpoint: Any) -> Codec:
    """The checkpoint's VAE as the core's `Codec`. Raises `LatentError` for a checkpoint of no known family."""
    family = family_of(checkpoint)
    if family is None:
        raise LatentError(
            "The latents of this checkpoint are of a family that FMBoost does not know; choose another checkpoint."
        )
    return HostVAE(checkpoint, FAMILIES[family])


class HostVAE:
    """The checkpoint's VAE as the core's `Codec`, one image at a time."""

    def __init__(self, checkpoint: Any, family: LatentFamily) -> None:
        parts = getattr(checkpoint, "forge_objects", None)
        self._checkpoint, self._moved_by_host = checkpoint, parts is not None
        # Forge's own `first_stage_model` is None.
        self._network = checkpoint.first_stage_model if parts is None else parts.vae.first_stage_model
        self.family, self.channels, self.downscale_factor = family.name, family.channels, family.downscale_factor

    def encode(self, images: Tensor) -> Tensor:
        return torch.cat([self._encode(image) for image in images.split(1)])

    def _encode(self, image: Tensor) -> Tensor:
        checkpoint, pixels = self._checkpoint, image.to(devices.device, torch.float32)
        if not self._moved_by_host:
            self._network.to(devices.dtype_vae)
            pixels = pixels.to(devices.dtype_vae)
        with posterior_mean(self._network):
            encoded = checkpoint.encode_first_stage(pixels)
            return checkpoint.get_first_stage_encoding(encoded).to(image)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self._decode(latent) for latent in latents.split(1)])

    def _decode(self, latent: Tensor) -> Tensor:
        if self._moved_by_host:
            return self._checkpoint.decode_first_stage(latent).to(latent)
        if shared.opts.sd_vae_decode_method == "Full":  # the host decodes again in float32 where half overflows
            (image,) = processing.decode_latent_batch(self._checkpoint, latent, check_for_nans=True)
            return image[None].to(latent)
        scaled = latent.to(devices.dtype_vae)
        return sd_samplers_common.samples_to_images_tensor(scaled, 0, self._checkpoint).to(latent)


@contextmanager
def posterior_mean(network: Any) -> Iterator[None]:
    """Within it, what the host samples from the posterior of a VAE's network is the posterior's mean.

    A sample comes from the global generator and differs in a batch, and most hosts give nothing else. Here the network
    gives almost no variance, the noise that remains is always the same, and the global generator stays as it was.
    """
    last = getattr(network, "quant_conv", None)  # VAEs of 16 channels have none
    watch = (network.encoder if last is None else last).register_forward_hook(_without_variance)
    try:
        with torch.random.fork_rng([devices.device] if devices.device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        watch.remove()


def _without_variance(_module: Any, _inputs: Any, moments: Tensor) -> Tensor:
    mean, log_variance = moments.chunk(2, dim=1)
    return torch.cat([mean, torch.full_like(log_variance, NO_VARIANCE)], dim=1)
