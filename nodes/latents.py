"""LATENTs: raw and with all their keys on the host's wires, scaled tensors in the core; and what tells their family."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from torch import Tensor

from ..fmboost_core.errors import FMBoostWarning, LatentError
from ..fmboost_core.families import FAMILIES, Party, families_with, require_same_family, titles
from ..fmboost_core.foreign import SOUND, VIDEO
from ..fmboost_core.imaging.resample import cover
from ..fmboost_core.recognition import recognise
from ..fmboost_core.sampling.checks import is_oversized
from . import host

Latent = dict[str, Any]

FAMILY = "fmboost_family"  # the key of the family that a LATENT has come through
START = "fmboost_start"  # the key of a `Start` in a LATENT
# Keys in a guide's LATENT: what it was made from, one of `GUIDE_KINDS`, and behind an upscale model its own strength.
KIND, STRENGTH = "fmboost_kind", "fmboost_strength"
IMAGE_NODE = "FMBoost Upscale Image"
INSTEAD = f"decode the latent and enlarge the picture with {IMAGE_NODE}"


class Start(NamedTuple):
    """What Noise Augment tells CFM Sample of a start. The noise step is resolved in Noise Augment.

    noise_step: 0 to 999. alpha_bar: the signal kept. family: in whose scale the noise was mixed in.
    model: the name of the model it was made for; None without one, and CFM Sample resolves the step again.
    marks: the first position of each item, by which the note knows its own samples (see `start_of`).
    """

    noise_step: int
    alpha_bar: float
    family: str
    model: str | None
    marks: tuple[tuple[float, ...], ...]


def start_of(latent: Latent) -> Start | None:
    """The note of a start; None for another LATENT.

    Other nodes hand on all keys of a LATENT. A KSampler behind Noise Augment makes other samples, of which the note
    says nothing; picked and repeated items are still a start's.
    """
    start = latent.get(START)
    return start if start is not None and set(marks(latent["samples"])) <= set(start.marks) else None


def refuse_start(latent: Latent, name: str, wanted: str, model: Any = None) -> None:
    """Refuse a start with noise in it at another latent's input. model: see `raw`. Raises `LatentError`."""
    raw(latent, model)
    start = start_of(latent)
    if start is not None and start.alpha_bar != 1:
        raise LatentError(
            f"The input {name} has a start, the noisy latent from FMBoost Noise Augment; connect {wanted}."
        )


def marks(samples: Tensor) -> tuple[tuple[float, ...], ...]:
    """The marks of raw samples (B,C,h,w), see `Start`."""
    return tuple(tuple(item) for item in samples[:, :, 0, 0].tolist())


def raw(latent: Latent, model: Any = None) -> Tensor:
    """The samples of a LATENT as they are, (B,C,h,w) fp32. Raises `LatentError` for what is no latent of images.

    model: the host's diffusion model that made the latent, which tells its name; None where it is not connected.
    """
    samples = latent["samples"]
    found = _no_image(latent, "" if model is None else host.model_party(model).title)
    if found:
        raise LatentError(f"FMBoost enlarges latents (batch, channels, height, width) of images, but {found}.")
    if not samples.numel():
        raise LatentError(f"The latent is empty: its shape is {tuple(samples.shape)}; connect another one.")
    return samples.float()


def _no_image(latent: Latent, maker: str) -> str:
    """What a LATENT is instead of one of images, and what to do; "" for one of images.

    maker: the name of the space of the diffusion model that made it; "" where that is not known.
    """
    samples, kind = latent["samples"], str(latent.get("type"))
    channels = samples.shape[1]
    if kind.startswith(("hunyuan3d", "trellis")):
        return f"this one is of {maker or 'a 3D shape'}; connect the latent of an image"
    if getattr(samples, "is_nested", False):
        name = maker or families_with(channels, VIDEO)
        return f"this one is of video with sound ({name}); decode its video and enlarge the frames with {IMAGE_NODE}"
    if kind == "audio" or samples.ndim == 3:
        return f"this one is of sound ({maker or families_with(channels, SOUND)}); connect the latent of an image"
    if samples.ndim == 5:
        frames = samples.shape[2]
        what = "an axis of frames" if frames == 1 else f"{frames} frames or layers"
        return (
            f"this one has {channels} channels and {what} ({maker or families_with(channels, VIDEO)}), for which there "
            f"is no model; decode the latent and enlarge the picture{'' if frames == 1 else 's'} with {IMAGE_NODE}"
        )
    return "" if samples.ndim == 4 else f"this one has the shape {tuple(samples.shape)}; connect the latent of an image"


def checked(
    latent: Latent, cfm: Party | None = None, vae: Party | None = None, model: Any = None, look: bool = True
) -> Tensor:
    """The raw samples of a LATENT, of the same family as the other parts, as far as is known.

    model: the host's diffusion model that made the latent, where it is connected. look: whether statistics may tell the
    latent's family. Raises `LatentError`, and warns where only statistics tell another family.
    """
    samples = raw(latent, model)
    maker = None if model is None else host.model_party(model)
    # The diffusion model and FMBoost's own nodes know the family; statistics can only guess.
    family = latent.get(FAMILY)
    known = family is not None or (maker is not None and maker.family is not None)
    seems = recognise(samples) if look and not known else None
    own = Party("the latent", family, samples.shape[1], _advice(samples.shape[1], family), seems, is_latent=True)
    parties = [party for party in (maker, cfm, own, vae) if party is not None]
    _refuse_foreign(parties)
    require_same_family(*parties)
    return samples


def _refuse_foreign(parties: list[Party]) -> None:
    """Refuse a part of a space that has no family, by what is known of it or by its channels. Raises `LatentError`."""
    known = {family.channels for family in FAMILIES.values()}
    for party in parties:
        if party.foreign or party.known_channels not in known:
            what = str(party)
            raise LatentError(f"{what[0].upper()}{what[1:]}, for which FMBoost has no model; {INSTEAD}.")


def _advice(channels: int, family: str | None) -> str:
    """What to do where a latent is the odd one. family: what it has come through, None where that is not known."""
    bundled = host.bundled_families()
    if family is not None:
        return "choose a model for it in FMBoost Load CFM, or check the VAE at the nodes before this one"
    if channels not in {FAMILIES[name].channels for name in bundled}:
        return f"FMBoost comes with models for {titles(bundled)}: {INSTEAD}"
    return "connect a latent of that family, or choose a model for this one in FMBoost Load CFM"


def scaled(samples: Tensor, family: str) -> Tensor:
    """Raw samples as a family has them, scaled; it warns where they are far larger than any image's."""
    result = FAMILIES[family].to_scaled(samples)
    if is_oversized(result):
        message = (
            f"The latent's values are {float(result.std()):.1f} times as large as those of {FAMILIES[family].title} "
            "usually are: expect garish colours; connect it as KSampler or VAE Encode gives it."
        )
        warnings.warn(message, FMBoostWarning, stacklevel=2)
    return result


def with_samples(latent: Latent, samples: Tensor, family: str) -> Latent:
    """A copy of a LATENT with new scaled samples. Its mask follows their size; all other keys stay."""
    return with_raw(latent, FAMILIES[family].to_raw(samples), family)


def with_raw(latent: Latent, samples: Tensor, family: str | None) -> Latent:
    """`with_samples` for raw samples. family: None where it is not known; what the LATENT has come through stays.

    What a guide tells of itself does not stay: the new samples are another latent.
    """
    result = {key: value for key, value in latent.items() if key not in (KIND, STRENGTH)}
    result["samples"] = host.intermediate(samples)
    if family is not None:
        result[FAMILY] = family
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
