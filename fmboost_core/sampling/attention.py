"""Scaling of the diffusion model's self-attention for other sizes than its training's (paper appendix A.4.1)."""

from __future__ import annotations

import math

from ..errors import ConfigError


def attention_scale(tokens: int, trained_tokens: int, width: int) -> float:
    """The scale of q·k for self-attention over another number of tokens than in training.

    It is sqrt(log_T N / d) for N tokens, T in training, and heads of width d. At N = T it is the usual 1/sqrt(d).
    """
    if tokens < 1 or trained_tokens < 2 or width < 1:
        raise ConfigError(
            "Attention scaling takes at least 1 token, 2 trained tokens and a head width of 1, but got "
            f"{tokens}, {trained_tokens} and {width}."
        )
    return math.sqrt(math.log(tokens) / math.log(trained_tokens) / width)
