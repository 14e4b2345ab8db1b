"""LATENTs: raw and with all their keys on the host's wires, scaled tensors in the core."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from torch import Tensor

from ..fmboost_core.errors import FMBoostWarning, LatentError
from ..fmboost_core.families import FAMILIES, Party, require_same_family, titles
from ..fmboost_core.imaging.resample import cover
from ..fmboost_core.recognition import recognise
from . import host

Latent = dict[str, Any]

START = "fmboost_start"  # the key of a `Start` in a LATENT


class Start(NamedTuple):
    """What Noise Augment tells CFM Sample of a start. The noise step is resolved in Noise Augment.

    noise_step: 0 to 999. alpha_bar: the signal kept. model: the name of the model it was made for; None without one.
    For another model CFM Sample resolves the step again.
    """

    noise_step: int
    alpha_bar: float
    model: str | None


def raw(latent: Latent) -> Tensor:
    """The samples of a LATENT as they are, (B,C,h,w) fp32. Raises `LatentError` for those of video or sound."""
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        raise LatentError(
            "FMBoost upscales latents of images (batch, channels, height, width), but this one is of video or sound; "
            "connect the latent of an image."
        )
    return samples.float()


def scaled(latent: Latent, by: Party, look: bool = True) -> Tensor:
    """The samples of a LATENT, (B,C,h,w) fp32, scaled as a family has them.

    by: what tells the family, such as a model's party. look: warn where the statistics tell another family. Raises
    `LatentError` for another number of channels.
    """
    samples, family = raw(latent), by.family or ""
    require_same_family(by, Party("the latent", None, samples.shape[1], "connect a latent of that family"))
    seems = recognise(samples) if look else None
    if seems not in (None, family):
        message = (
            f"This latent looks like one of {titles([seems or ''])}, but {by.what} is for {titles([family])}: expect "
            "wrong colours or patterns."
        )
        warnings.warn(message, FMBoostWarning, stacklevel=2)
    return FAMILIES[family].to_scaled(samples)


def with_samples(latent: Latent, samples: Tensor, family: str) -> Latent:
    """A copy of a LATENT with new scaled samples. Its mask follows their size; all other keys stay."""
    return with_raw(latent, FAMILIES[family].to_raw(samples))


def with_raw(latent: Latent, samples: Tensor) -> Latent:
    """`with_samples` for raw samples."""
    result = dict(latent)
    result["samples"] = host.intermediate(samples)
    result.pop("downscale_ratio_spacial", None)  # of an empty latent; KSampler removes it too
    if "noise_mask" in result:
        result["noise_mask"] = _resized_mask(result["noise_mask"], latent["samples"], samples)
    return result


def _resized_mask(mask: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """A mask (..., h, w) of any resolution, upscaled as the latent was, and cropped where the latent was."""
    height, width = (round(mask.shape[i] * after.shape[i] / before.shape[i]) for i in (-2, -1))
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return cover(flat, (height, width)).reshape(*mask.shape[:-2], height, width).to(mask)


def item_seeds(latent: Latent, seed: int) -> list[int]:
    """One seed per item, by its place in the batch it was made in, so that a picked item keeps its noise."""
    places = latent.get("batch_index") or range(latent["samples"].shape[0])
    return [seed + place for place in places]
