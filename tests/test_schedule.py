"""Noise augmentation and the attention scale."""

import math

import pytest
import torch

from fmboost_core.errors import ConfigError
from fmboost_core.sampling.attention import attention_scale
from fmboost_core.sampling.schedule import alpha_bar, noise_augment, noise_step_of, seeded_noise


def test_alpha_bar_is_the_cosine_schedule() -> None:
    assert alpha_bar(0) == 1
    assert alpha_bar(400) == pytest.approx(0.65450, abs=1e-5)
    for step in (1, 250, 500, 999):
        assert alpha_bar(step) == pytest.approx(math.cos(math.pi * step / 2000) ** 2, abs=2e-5)


def test_the_noise_step_is_found_again() -> None:
    steps = torch.tensor([1.0, 100.0, 400.0, 650.0, 998.0])
    signals = torch.tensor([alpha_bar(int(step)) for step in steps])
    assert torch.allclose(noise_step_of(signals), steps, atol=0.05)


@pytest.mark.parametrize("step", [-1, 1000, 4.0, True, "400", None])
def test_impossible_noise_steps_are_refused(step: object) -> None:
    with pytest.raises(ConfigError, match=r"0 .*999"):
        alpha_bar(step)  # type: ignore[arg-type]


def test_noise_augmentation_keeps_unit_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    guide, noise = torch.randn(2, 1, 4, 128, 128, generator=generator)
    start = noise_augment(guide, 0.6545, noise)
    assert start.var() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(torch.stack([start.flatten(), guide.flatten()]))[0, 1] == pytest.approx(0.6545**0.5, abs=0.01)
    assert torch.equal(noise_augment(guide, 1.0, noise), guide)


def test_a_batch_may_hold_starts_of_several_noise_steps() -> None:
    guide, noise = torch.randn(2, 3, 4, 2, 2)
    signals = torch.tensor([1.0, 0.6545, 0.2])
    singles = [noise_augment(guide[i : i + 1], float(a), noise[i : i + 1]) for i, a in enumerate(signals)]
    assert torch.equal(noise_augment(guide, signals, noise), torch.cat(singles))


def test_seeded_noise_of_a_batch_is_its_singles() -> None:
    def draw(*seeds: int) -> torch.Tensor:
        return seeded_noise(list(seeds), len(seeds))((len(seeds), 4, 3, 5))

    assert torch.equal(draw(7, 8), torch.cat([draw(7), draw(8)]))
    assert torch.equal(draw(7)[0], torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(7)))
    assert torch.equal(seeded_noise(7, 2)((2, 4, 3, 5)), draw(7, 8))
    noise = seeded_noise(7, 1)
    assert not torch.equal(noise((1, 4, 3, 5)), noise((1, 4, 3, 5)))  # a cascade's stages draw on
    with pytest.raises(ConfigError, match="2 seeds were given for a batch of 3"):
        seeded_noise([1, 2], 3)


def test_attention_scale() -> None:
    assert attention_scale(4096, 4096, 64) == pytest.approx(1 / 8)
    assert attention_scale(1024, 4096, 64) == pytest.approx(math.sqrt(10 / 12 / 64))
    assert attention_scale(1, 4096, 64) == 0
    with pytest.raises(ConfigError):
        attention_scale(16, 1, 64)


def test_attention_scale_keeps_entropy_steadier_than_the_usual_scale() -> None:
    """Mean entropy relative to its maximum, over tokens of the same statistics: what the scale is for."""

    def relative_entropy(tokens: int, scale: float) -> float:
        generator = torch.Generator().manual_seed(0)
        q, k = torch.randn(2, tokens, 64, generator=generator) * 1.6
        weights = (q @ k.T * scale).softmax(-1)
        return float(torch.special.entr(weights).sum(-1).mean()) / math.log(tokens)

    trained = relative_entropy(1024, 1 / 8)
    usual = abs(relative_entropy(64, 1 / 8) - trained)
    scaled = abs(relative_entropy(64, attention_scale(64, 1024, 64)) - trained)
    assert scaled < usual
