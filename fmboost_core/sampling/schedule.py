"""Noise augmentation: the cosine schedule, and the start of the flow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, FMBoostWarning
from ..spec import ModelSpec

Noise = Callable[[tuple[int, ...]], Tensor]  # a shape (B,C,h,w) -> standard normal noise of it

NOISE_STEPS = 1000
_EPS = 1e-5


def alpha_bar(noise_step: int) -> float:
    """Signal kept at a noise step in 0..999: 1 at 0, 0.65450 at 400, towards 0 at 999.

    sigmoid of the cosine log-SNR, -2 log(tan(pi s / 2) + eps), at s = step/1000 (Hoogeboom et al.; the reference's
    fmboost/diffusion.py reads it from a table over linspace(0, 1, 1000) instead: 0.65390 at 400).
    """
    if isinstance(noise_step, bool) or not isinstance(noise_step, int) or not 0 <= noise_step < NOISE_STEPS:
        raise ConfigError(f"The noise step must be a whole number from 0 (none) to 999, but it is {noise_step!r}.")
    if noise_step == 0:
        return 1.0
    return 1 / (1 + (math.tan(math.pi * noise_step / (2 * NOISE_STEPS)) + _EPS) ** 2)


def noise_step_of(alpha_bar: Tensor) -> Tensor:
    """The noise step, not rounded, that keeps this signal: the inverse of `alpha_bar`."""
    return 2 * NOISE_STEPS / math.pi * torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())


def noise_augment(guide: Tensor, alpha_bar: float | Tensor, noise: Tensor) -> Tensor:
    """x0 = sqrt(alpha_bar) guide + sqrt(1 - alpha_bar) noise (paper section 3.3), of guide's shape and type.

    alpha_bar: of all, or (B,) of each item.
    """
    signal = torch.as_tensor(alpha_bar, dtype=torch.float32, device=guide.device).view(-1, 1, 1, 1)
    return signal.sqrt().to(guide) * guide + (1 - signal).sqrt().to(guide) * noise.to(guide)


def attention_scale(tokens: int, trained_tokens: int, width: int) -> float:
    """Factor of q·k for self-attention over another number of tokens than trained on (paper appendix A.4.1).

    sqrt(log_T N / d): T trained tokens, N tokens now, d width of a head. At N = T it is the usual 1/sqrt(d).
    """
    if tokens < 1 or trained_tokens < 2 or width < 1:
        raise ConfigError(
            "Attention scaling takes at least 1 token, 2 trained tokens and a head width of 1, but got "
            f"{tokens}, {trained_tokens} and {width}."
        )
    return math.sqrt(math.log(tokens) / math.log(trained_tokens) / width)


def start_signal(spec: ModelSpec, noise_step: int | None) -> float:
    """alpha_bar of a start: of the step the model was trained at (None), or of another one, with a warning."""
    if noise_step is None or noise_step == spec.noise_step:
        return spec.alpha_bar
    signal = alpha_bar(noise_step)
    if not spec.knows(noise_step):
        known = (" to " if spec.network.noise_level else ", ").join(map(str, spec.noise_steps))
        message = f"{spec.name} was trained at noise step {known}, not {noise_step}; expect artefacts."
        warnings.warn(message, FMBoostWarning, stacklevel=3)
    return signal


def seeded_noise(seed: int | Sequence[int], batch: int) -> Noise:
    """Standard normal noise, fp32 on the CPU, of which item i has its own generator, so a batch equals its singles.

    seed: item i's generator is seeded with seed + i, or with the i-th of a list. Every call goes on drawing.
    """
    seeds = [seed + i for i in range(batch)] if isinstance(seed, int) else list(seed)
    if len(seeds) != batch:
        raise ConfigError(f"{len(seeds)} seeds were given for a batch of {batch}; give one number or one an item.")
    generators = [torch.Generator().manual_seed(int(s) % 2**63) for s in seeds]
    return lambda shape: torch.stack([torch.randn(shape[1:], generator=g) for g in generators])
