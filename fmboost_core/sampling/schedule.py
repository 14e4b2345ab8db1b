"""The noise schedule, noise augmentation and the noise itself."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor

from ..errors import ConfigError, FMBoostWarning
from ..spec import ModelSpec
from .keywords import plain

Noise = Callable[[tuple[int, ...]], Tensor]  # a shape (B,C,h,w) -> standard normal noise of that shape

# A number, or one for each item; a generator, or one for each item.
Seed = SupportsIndex | torch.Generator | Sequence[SupportsIndex | torch.Generator]

NOISE_STEPS = 1000
_EPS = 1e-5


def alpha_bar(noise_step: int) -> float:
    """The signal kept at a noise step in 0..999: 1 at 0, 0.65450 at 400, towards 0 at 999.

    It is the sigmoid of the cosine log-SNR, -2 log(tan(pi s / 2) + eps), at s = step/1000 (Hoogeboom et al., arXiv
    2301.11093). The reference's fmboost/diffusion.py reads a table over linspace(0, 1, 1000): 0.65390 at 400.
    """
    noise_step = plain(noise_step)
    if isinstance(noise_step, bool) or not isinstance(noise_step, int) or not 0 <= noise_step < NOISE_STEPS:
        raise ConfigError(f"The noise step must be a whole number from 0 (none) to 999, but it is {noise_step!r}.")
    if noise_step == 0:
        return 1.0
    return 1 / (1 + (math.tan(math.pi * noise_step / (2 * NOISE_STEPS)) + _EPS) ** 2)


def noise_step_of(alpha_bar: Tensor) -> Tensor:
    """The noise step that keeps this signal, not rounded: the inverse of `alpha_bar`."""
    return 2 * NOISE_STEPS / math.pi * torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())


def noise_augment(guide: Tensor, alpha_bar: float | Tensor, noise: Tensor) -> Tensor:
    """The start x0 = sqrt(alpha_bar) guide + sqrt(1 - alpha_bar) noise (paper section 3.3), of guide's shape and type.

    alpha_bar: one number for all items, or (B,).
    """
    signal = torch.as_tensor(alpha_bar, dtype=torch.float32, device=guide.device).view(-1, 1, 1, 1)
    return signal.sqrt().to(guide) * guide + (1 - signal).sqrt().to(guide) * noise.to(guide)


def start_alpha_bar(spec: ModelSpec, noise_step: int) -> float:
    """alpha_bar of a model's start at a noise step; it warns where the model was not trained at that step."""
    if noise_step == spec.noise_step:
        return spec.alpha_bar  # of the training, which may differ from this schedule (the reference reads a table)
    signal = alpha_bar(noise_step)
    if not spec.knows(noise_step):
        message = f"{spec.name} was trained at noise step {trained_steps(spec)}, not {noise_step}; expect artefacts."
        warnings.warn(message, FMBoostWarning, stacklevel=3)
    return signal


def trained_steps(spec: ModelSpec) -> str:
    """The noise steps that a model was trained at, for sentences: "100 to 700" for a range, "250, 400" for a list."""
    return (" to " if spec.network.noise_level else ", ").join(map(str, spec.noise_steps))


def seeded_noise(seed: Seed, batch: int) -> Noise:
    """Standard normal noise in fp32. Each item has a generator of its own, so a batch equals its singles.

    seed: item i's generator is seeded with seed + i, or with the i-th of a list, and draws on the CPU. NumPy's and
    PyTorch's integers are numbers too. Or a `torch.Generator`, which all items draw from in order, on its device; or a
    list of them, one for each item. Each call draws on. Raises `ConfigError` for another number of seeds than items,
    and for what is no whole number.
    """
    if isinstance(seed, torch.Generator):
        generators = [seed] * batch
    else:
        alone = getattr(seed, "ndim", None) == 0 or isinstance(seed, str) or not isinstance(seed, Iterable)
        seeds = [_whole(seed) + i for i in range(batch)] if alone else list(cast(Iterable[Any], seed))
        if len(seeds) != batch:
            raise ConfigError(
                f"{len(seeds)} seeds were given for a batch of {batch}; give one number, or one per item."
            )
        generators = [s if isinstance(s, torch.Generator) else _seeded(_whole(s)) for s in seeds]

    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.stack([torch.randn(shape[1:], generator=g, device=g.device) for g in generators])

    return noise


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**63)


def _whole(seed: Any) -> int:
    try:
        return operator.index(seed)
    except TypeError:
        raise ConfigError(
            f"seed must be a whole number, a torch.Generator or one of them for each item, but it is {seed!r}."
        ) from None
