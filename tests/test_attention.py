"""Attention over another number of tokens than trained on (paper appendix A.4.1), against its closed form.

Of standard normal queries and keys of d channels, the logits s q·k_i of a query are normal of variance s²|q|², on
average s²d. Of many tokens N the softmax's normaliser is then N exp(s²|q|²/2) and its mean logit s²|q|², and its
entropy, log normaliser minus mean logit, is on average over queries H = log N - s²d/2 (for s²d < 2 log N, while no
single token takes it all). With s² = 1/d, H = log N - 1/2: its share of log N, the entropy of attending to all tokens
alike, drifts with N. With s² = log_T N / d, H = log N (1 - 1/(2 log T)): the share at any N is that at the trained T.
"""

from __future__ import annotations

import math

import pytest
import torch

from fmboost_core.sampling.attention import attention_scale

WIDTH, TRAINED = 64, 1024
TOKENS = (128, 256, 512, 2048, 4096)
QUERIES = 1024


def entropy(tokens: int, scale: float) -> float:
    """Mean entropy of softmax(scale q k^T) over random queries and tokens."""
    generator = torch.Generator().manual_seed(tokens)
    q, k = (torch.randn(count, WIDTH, generator=generator) for count in (QUERIES, tokens))
    logits = torch.log_softmax(scale * q @ k.T, dim=-1)
    return float(-(logits.exp() * logits).sum(-1).mean())


def usual(tokens: int) -> float:
    return entropy(tokens, 1 / math.sqrt(WIDTH))


def papers(tokens: int) -> float:
    return entropy(tokens, attention_scale(tokens, TRAINED, WIDTH))


@pytest.mark.parametrize("tokens", (*TOKENS, TRAINED))
def test_entropy_has_its_closed_form(tokens: int) -> None:
    assert usual(tokens) == pytest.approx(math.log(tokens) - 1 / 2, abs=0.03)
    assert papers(tokens) == pytest.approx(math.log(tokens) * (1 - 1 / (2 * math.log(TRAINED))), abs=0.03)


def test_the_share_of_the_possible_entropy_stays_that_of_training() -> None:
    trained = usual(TRAINED) / math.log(TRAINED)
    assert papers(TRAINED) == pytest.approx(usual(TRAINED), abs=1e-4)
    for tokens in TOKENS:
        drift = [abs(of(tokens) / math.log(tokens) - trained) for of in (usual, papers)]
        assert drift[1] < drift[0] / 2


def test_entropy_grows_less_than_the_logarithm_of_the_tokens() -> None:
    few, many = TOKENS[0], TOKENS[-1]
    growth = [(of(many) - of(few)) / math.log(many / few) for of in (usual, papers)]
    assert growth == pytest.approx([1, 1 - 1 / (2 * math.log(TRAINED))], abs=0.01)
