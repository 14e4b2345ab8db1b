"""The registry of networks, and the keywords of the public functions."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from networks import make_model, randomised
from torch import Tensor, nn

from fmboost_core import Hooks, Model, ModelSpec, SamplingOptions, Target, boost
from fmboost_core.errors import CheckpointError
from fmboost_core.files.checkpoint import load_model, save_model
from fmboost_core.networks import NETWORKS, Architecture
from fmboost_core.networks.conditioning import Conditioning
from fmboost_core.sampling.keywords import FlowKeywords, Keywords


@dataclass(frozen=True)
class PlainConfig:
    """One convolution, as a second architecture."""

    architecture: ClassVar[str] = "plain"
    channels: int = 4
    classes: int = 0
    noise_level: bool = False
    stride: int = 1
    receptive_radius: int = 1
    is_exact_in_tiles: bool = True
    values_per_position: int = 8
    fewest_tensors: int = 2


class Plain(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        return self.conv(torch.cat([x, conditioning.guide], dim=1)) * (1 + t[:, None, None, None])


def test_a_second_architecture_is_saved_loaded_and_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Any
) -> None:
    monkeypatch.setitem(NETWORKS, "plain", Architecture(PlainConfig, lambda config, ops: Plain(config.channels)))
    model = Model(ModelSpec("other", PlainConfig()), randomised(Plain(4)))
    save_model(model, tmp_path / "other.safetensors")
    again = load_model(tmp_path / "other.safetensors")
    assert again.spec == model.spec
    low = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    large = boost(low, again, codec, scale=6, tile=8, overlap=1)
    assert torch.allclose(large, boost(low, model, codec, scale=6, tile=None), atol=1e-5)
    monkeypatch.delitem(NETWORKS, "plain")
    with pytest.raises(CheckpointError, match="architecture 'plain' is not known"):
        load_model(tmp_path / "other.safetensors")


def test_keywords_are_the_fields_of_the_objects() -> None:
    named = {f.name for kind in (Target, SamplingOptions, Hooks) for f in fields(kind)}
    assert Keywords.__annotations__.keys() == named | {"halo"}
    assert FlowKeywords.__annotations__.keys() == named - {f.name for f in fields(Target)} | {"halo"}


def test_the_former_name_of_overlap_still_works_and_a_wrong_one_is_named(codec: Any) -> None:
    model, low = make_model(), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    narrow = boost(low, model, codec, scale=4, tile=8, halo=0)
    assert torch.equal(narrow, boost(low, model, codec, scale=4, tile=8, overlap=0))
    assert not torch.equal(narrow, boost(low, model, codec, scale=4, tile=8, overlap=8))
    with pytest.raises(TypeError, match="'nfes' is not a keyword of this function; the keywords are scale, size"):
        boost(low, model, codec, nfes=4)  # type: ignore[call-arg]
