"""The error of one evaluation, and the variance of a flow's results, which bounds it from below.

One evaluation can at best give the mean of all large latents that a small latent may stand for. Its error is then
their variance, whatever the network and its training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import ConfigError, require
from ..metrics.fidelity import latent_mse
from ..model import Model
from ..sampling.fast_guide import fast_guide
from ..sampling.guide import pixel_upsample
from ..sampling.schedule import noise_augment, seeded_noise
from ..sampling.upscaler import flow
from .photographs import EvaluationConfig, prepare


@dataclass(frozen=True)
class ErrorFloor:
    """Means over photographs, divided by the guide's (PSU's) squared error.

    one_evaluation: squared error at one evaluation; variances: NFE -> `result_variance`.
    """

    one_evaluation: float
    variances: dict[int, float]


@torch.no_grad()
def error_floor(
    model: Model,
    codec: Codec,
    photos: Sequence[Path],
    config: EvaluationConfig,
    nfes: Sequence[int],
    progress: Callable[[int, int], None],
) -> ErrorFloor:
    """Measure it on photographs. progress(done, total) counts them."""
    require(all(nfe > 0 for nfe in nfes), "nfe", list(nfes), "above 0")
    if model.spec.alpha_bar == 1:
        raise ConfigError(
            f"{model.spec.name} begins without noise, so that its results do not differ and tell no lower bound; take "
            "a model with a noise step above 0."
        )
    errors: list[float] = []
    variances: dict[int, list[float]] = {nfe: [] for nfe in nfes}
    for done, path in enumerate(photos, start=1):
        photo = prepare(path, codec, config)
        guide = pixel_upsample(photo.low, codec, photo.size).float()
        psu = latent_mse(guide, photo.latent)
        if model.guide is not None:
            guide = fast_guide(model.guide, photo.low.float(), (guide.shape[-2], guide.shape[-1]))
        errors.append(latent_mse(flow(_start(model, guide, 0), guide, model, nfe=1, strength=1.0), photo.latent) / psu)
        for nfe in nfes:
            variances[nfe].append(result_variance(model, guide, nfe) / psu)
        progress(done, len(photos))
    return ErrorFloor(_mean(errors), {nfe: _mean(found) for nfe, found in variances.items()})


def result_variance(model: Model, guide: Tensor, nfe: int) -> float:
    """The variance of the flow's results from one guide (1,C,h,w): half the squared distance of two of them."""
    ends = [flow(_start(model, guide, seed), guide, model, nfe=nfe, strength=1.0) for seed in (0, 1)]
    return latent_mse(*ends) / 2


def _start(model: Model, guide: Tensor, seed: int) -> Tensor:
    return noise_augment(guide, model.spec.alpha_bar, seeded_noise(seed, 1)(tuple(guide.shape)))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
