"""The network: sizes of the paper, any input size, cost, its finite view."""

from dataclasses import replace

import pytest
import torch
from networks import TINY, randomised
from torch.utils.flop_counter import FlopCounterMode

from fmboost_core.networks.conditioning import Conditioning
from fmboost_core.networks.config import PRESETS, UNetConfig
from fmboost_core.networks.unet import LatentUNet


@pytest.mark.parametrize(("name", "count"), [("paper-113m", 112_722_052), ("paper-306m", 305_806_340)])
def test_parameters_of_the_paper(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in LatentUNet(PRESETS[name]).parameters()) == count


def test_lite_is_small_and_cheap() -> None:
    with torch.device("meta"):
        network = LatentUNet(PRESETS["lite"])
        x = torch.empty(1, 4, 128, 128)
        with FlopCounterMode(display=False) as counter:
            network(x, torch.empty(1), Conditioning(x))
    assert sum(p.numel() for p in network.parameters()) <= 8e6
    assert counter.get_total_flops() <= 20e9


def test_a_fresh_network_is_zero() -> None:
    x = torch.randn(1, 4, 8, 8)
    assert not LatentUNet(TINY)(x, torch.zeros(1), Conditioning(x)).any()


def test_the_noise_level_is_heard_once_it_is_learned() -> None:
    """A fresh embedding is zero, so that a network which is newly told says what it did before."""
    plain, told = LatentUNet(TINY), LatentUNet(replace(TINY, noise_level=True))
    told.load_state_dict(randomised(plain).state_dict(), strict=False)
    x, t, levels = torch.randn(2, 4, 8, 8), torch.zeros(2), torch.tensor([0.3, 0.6])
    assert torch.equal(told(x, t, Conditioning(x, None, levels)), plain(x, t, Conditioning(x)))
    randomised(told.noise_embed)
    changed = (told(x, t, Conditioning(x, None, levels)) - plain(x, t, Conditioning(x))).flatten(1).abs().amax(1)
    assert float(changed.min()) > 1e-3 and not torch.isclose(changed[0], changed[1])


ATTENTION = UNetConfig(base=32, multipliers=(1, 2), res_blocks=1, attention_rates=(2,), heads=2, head_width=16)


@pytest.mark.parametrize("config", [TINY, ATTENTION], ids=["channel", "attention"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (8, 8), (13, 4)])
@torch.no_grad()
def test_any_size_goes_in_and_comes_out(config: UNetConfig, size: tuple[int, int]) -> None:
    network = randomised(LatentUNet(config))
    x = torch.randn(2, 4, *size)
    out = network(x, torch.tensor([0.0, 0.7]), Conditioning(torch.randn(2, 4, *size)))
    assert out.shape == x.shape and out.isfinite().all() and out.std() > 1e-3


@torch.no_grad()
def test_time_and_guide_matter_and_items_do_not_mix() -> None:
    network = randomised(LatentUNet(ATTENTION))
    x, guide = torch.randn(2, 3, 4, 8, 8)
    t = torch.tensor([0.0, 0.5, 1.0])
    out = network(x, t, Conditioning(guide))
    assert (network(x, t + 0.3, Conditioning(guide)) - out).abs().max() > 1e-4
    assert (network(x, t, Conditioning(guide.flip(0))) - out).abs().max() > 1e-4
    singles = [network(x[i : i + 1], t[i : i + 1], Conditioning(guide[i : i + 1])) for i in range(3)]
    assert torch.allclose(torch.cat(singles), out, atol=1e-5)


@torch.no_grad()
def test_the_guide_s_kind_matters_to_a_network_with_classes() -> None:
    network = randomised(LatentUNet(replace(TINY, classes=2)))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.3])
    out = network(x, t, Conditioning(x, torch.tensor([0, 1])))
    assert torch.equal(out[0], network(x, t, Conditioning(x, torch.tensor([0, 0])))[0])
    assert (out[1] - network(x, t, Conditioning(x, torch.tensor([0, 0])))[1]).abs().max() > 1e-4


def test_receptive_radius_bounds_what_a_position_sees() -> None:
    """The gradient of one output reaches no further than the radius, and nearly as far."""
    config = UNetConfig(
        base=4, multipliers=(1, 1, 1), res_blocks=1, norm="channel", attention_rates=(), middle_attention=False
    )
    radius = config.receptive_radius
    network = randomised(LatentUNet(config), std=0.3).double()
    side, reached = 4 * radius, 0
    for at in range(2 * radius, 2 * radius + config.stride):
        x = torch.randn(1, 4, 4, side, dtype=torch.float64, requires_grad=True)
        network(x, torch.zeros(1), Conditioning(x))[..., at].sum().backward()
        seen = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        reached = max(reached, int(seen.max()) - at, at - int(seen.min()))
    assert radius - 2 * config.stride <= reached <= radius
