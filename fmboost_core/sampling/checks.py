"""Checks of what comes in and what goes out: one sentence for each fault."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..codecs.protocol import Codec, codec_party
from ..errors import ConfigError, FMBoostWarning, LatentError, NonFiniteError
from ..fallback import with_fallback
from ..families import Party, require_same_family
from ..model import Model
from ..tiles import Tileable

_LARGEST_DEVIATION = 3.0  # scaled latents are near 1, the VAE's raw ones near 5


class ScaleWarning(FMBoostWarning):
    """A latent looks like one of the VAE's raw scale."""


def check_pair(model: Model, codec: Codec | None) -> None:
    """Refuse a baseline, and a codec of another family, before any work begins: `ConfigError`, `LatentError`."""
    check_objective(model)
    if codec is not None:
        require_same_family(model.party, codec_party(codec))


def require_codec(codec: Codec | None, what: str, advice: str) -> None:
    """Raise `ConfigError` where there is no codec. what: the subject of the sentence, which needs one."""
    if codec is None:
        raise ConfigError(f"{what} needs the VAE of the latent's family; {advice}.")


def check_objective(model: Model) -> None:
    """Refuse the paper's baselines, which only the evaluation samples."""
    if model.spec.objective != "cfm":
        raise ConfigError(
            f"{model.spec.name} was trained as a baseline ({model.spec.objective}), which only the command "
            "`fmboost ablate` samples; take a model trained by coupling flow matching (cfm)."
        )


def check_latent(latent: Tensor, model: Model) -> None:
    """`require_latent`; and warn where it looks like the VAE's raw scale."""
    require_latent(latent, model)
    if is_oversized(latent):
        warnings.warn(
            f"The latent's standard deviation is above {_LARGEST_DEVIATION:g}: it looks like the VAE's raw scale, but "
            f"FMBoost takes scaled latents; scale it with FAMILIES[{model.spec.family!r}].to_scaled.",
            ScaleWarning,
            stacklevel=4,
        )


def require_latent(latent: Tensor, model: Model) -> None:
    """Refuse what is no scaled latent of the model's family."""
    if not isinstance(latent, Tensor) or latent.ndim != 4 or not latent.is_floating_point():
        raise LatentError(
            f"A latent must be a float tensor (batch, channels, height, width), but it is {_found(latent)}."
        )
    require_same_family(model.party, Party("the latent", None, latent.shape[1]))
    if not latent.numel():
        raise LatentError(f"The latent is empty: its shape is {tuple(latent.shape)}; give another one.")
    check_finite(latent, "The latent")


def check_bare_scale(model: Model, start: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> None:
    """Warn where a model with a fast guide makes a latent, which nothing restores, at another factor than its own.

    start, sizes: (height, width) of the small latent and after each stage, in one unit.
    """

    def factor(old: tuple[int, int], new: tuple[int, int]) -> float:
        return max(new[0] / old[0], new[1] / old[1])

    trained, stages = model.spec.scale, [start, *sizes]
    if any(abs(factor(*pair) - trained) > 0.05 * trained for pair in pairwise(stages)):
        warnings.warn(
            f"{model.spec.name} was trained at {trained:g}x: at {factor(start, sizes[-1]):.3g}x its latents are "
            f"blurred; choose {trained:g}x, or decode and restore the picture.",
            FMBoostWarning,
            stacklevel=5,
        )


def is_oversized(scaled: Tensor) -> bool:
    """Whether the values are far larger than those of any image's scaled latent."""
    return scaled.numel() > 64 and _deviation(scaled) > _LARGEST_DEVIATION


def check_image(image: Tensor) -> None:
    """Refuse what is no batch of images in [-1,1], of RGB or RGB with alpha."""
    ok = isinstance(image, Tensor) and image.ndim == 4 and image.shape[1] in (3, 4) and image.is_floating_point()
    if not ok or not image.numel():
        raise LatentError(
            "An image must be a float tensor (batch, 3 or 4, height, width) in [-1,1], the fourth channel alpha, but "
            f"it is {_found(image)}."
        )
    check_finite(image, "The image")


def check_crop(start: tuple[int, int], end: tuple[int, int], distorts: bool, tileable: Tileable) -> None:
    """Refuse a target (height, width) that crops a tileable axis: the ends would not meet any more. `ConfigError`."""
    ratio = max(end[0] / start[0], end[1] / start[1])
    crops = [not distorts and round(side * ratio) > new for side, new in zip(start, end, strict=True)]
    if (crops[0] and tileable.y) or (crops[1] and tileable.x):
        raise ConfigError(
            f"A tileable image cannot be cropped, but {end[1]}x{end[0]} has another aspect than {start[1]}x{start[0]}; "
            "give a scale, a size of the same aspect, or stretch."
        )


def check_decoded(image: Tensor, latent: Tensor, downscale_factor: int) -> None:
    """Refuse what cannot be the image of a latent (B,C,h,w): another batch, or sides a latent or more off."""
    check_image(image)
    height, width = (side * downscale_factor for side in latent.shape[-2:])
    off = max(abs(image.shape[-2] - height), abs(image.shape[-1] - width))
    if image.shape[0] != latent.shape[0] or off >= downscale_factor:
        raise LatentError(
            f"The image that belongs to a latent of {latent.shape[0]} items is {width}x{height} each, but "
            f"{image.shape[0]} of {image.shape[-1]}x{image.shape[-2]} came; give the decoded latent, or none."
        )


def check_finite(x: Tensor, what: str) -> None:
    """Refuse NaN and infinity. what: the subject of the sentence."""
    if not bool(with_fallback("the check for NaN", lambda x: torch.isfinite(x).all(), x)):
        raise NonFiniteError(f"{what} holds NaN or infinity; check the input and the weights, or use dtype float32.")


def _deviation(latent: Tensor) -> float:
    return float(with_fallback("the standard deviation", lambda x: x.float().std(), latent))


def _found(value: object) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
