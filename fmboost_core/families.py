"""Latent families: the latent spaces that diffusion models share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentFamily:
    """A latent space: the scaled latent is `(raw - shift) * factor`, near unit variance, 8x smaller than pixels."""

    channels: int
    factor: float
    shift: float = 0.0


FAMILIES = {
    "sd15": LatentFamily(4, 0.18215),
    "sdxl": LatentFamily(4, 0.13025),
    "sd3": LatentFamily(16, 1.5305, 0.0609),
    "flux1": LatentFamily(16, 0.3611, 0.1159),
}


def families_with(channels: int) -> str:
    """The families a latent of this many channels could belong to, for messages: "sd15 or sdxl"."""
    return " or ".join(k for k, v in FAMILIES.items() if v.channels == channels) or "none that is known"
