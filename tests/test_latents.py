"""Statistics of latents and the error floor: closed forms, and both commands on real files."""

import pytest
import torch
from networks import make_model

from fmboost_core.codecs.load import load_codec
from fmboost_core.errors import ConfigError
from fmboost_core.evaluation.__main__ import main
from fmboost_core.evaluation.floor import error_floor, result_variance
from fmboost_core.evaluation.latents import channel_statistics
from fmboost_core.evaluation.photographs import EvaluationConfig


def test_channel_statistics_are_shifts_and_ratios_of_standard_deviations() -> None:
    reference = torch.randn(1, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    made = reference * torch.tensor([2.0, 1.0]).view(1, 2, 1, 1) + torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)
    made = made - (made - reference).mean((2, 3), keepdim=True) + torch.tensor([0.25, 0.5]).view(1, 2, 1, 1)
    row = channel_statistics({"made": [(made, reference), (made, reference)]}).splitlines()[-1]
    assert row == "| made | +0.2500 | +0.5000 | 2.0000 | 1.0000 |"


@pytest.mark.parametrize("alpha_bar", [0.2, 0.9])
def test_the_variance_of_a_flow_that_goes_nowhere_is_the_noises(alpha_bar: float) -> None:
    model = make_model(alpha_bar=alpha_bar)
    model.network.out[2].weight.data.zero_()
    model.network.out[2].bias.data.zero_()
    assert result_variance(model, torch.rand(1, 4, 64, 64), 2) == pytest.approx(1 - alpha_bar, rel=0.05)


def test_latents_prints_each_channel(places: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["latents", *places, "--nfe", "1", "2"]) == 0
    said = capsys.readouterr().out
    assert "tiny on 3 photographs at 2x" in said
    assert [line.split(" | ")[0] for line in said.splitlines()[-3:]] == ["| guide", "| nfe 1", "| nfe 2"]


def test_floor_prints_the_error_of_one_evaluation_and_each_variance(
    places: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main(["floor", *places, "--nfe", "1", "3"]) == 0
    said = capsys.readouterr().out
    figures = {line.split(": ")[0]: float(line.split(": ")[1]) for line in said.splitlines()[2:]}
    assert set(figures) == {"error of one evaluation"} | {
        f"half the squared distance of two results, nfe {nfe}" for nfe in (1, 3)
    }
    assert main(["floor", *places, "--nfe", "0"]) == 2
    assert "nfe must be above 0" in capsys.readouterr().err


def test_a_model_that_begins_without_noise_has_no_floor(places: list[str]) -> None:
    silent = make_model(noise_step=0, noise_steps=(0,), alpha_bar=1.0)
    with pytest.raises(ConfigError, match="begins without noise, so that its results do not differ"):
        error_floor(silent, load_codec("builtin"), [], EvaluationConfig(scale=2), (1,), lambda done, total: None)
