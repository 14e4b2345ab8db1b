"""Weights and refusals for the tests of files."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from networks import make_model, randomised
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fmboost_core.errors import CheckpointError
from fmboost_core.files.checkpoint import save_model
from fmboost_core.model import Model
from fmboost_core.networks.config import UNetConfig
from fmboost_core.networks.unet import LatentUNet

EMA, ONLINE = "ema_model.ema_model.net.", "model.net."
# A small network that the reference implementation can build too.
GROUP = UNetConfig(
    base=32, multipliers=(1, 2), res_blocks=1, attention_rates=(2,), head_width=8, attention_layout="reference"
)


def state_dict(config: UNetConfig, seed: int = 0) -> dict[str, Tensor]:
    return randomised(LatentUNet(config), seed).state_dict()


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def same_weights(model: Model, tensors: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, tensors[k]) for k, v in model.network.state_dict().items())


@torch.no_grad()
def output(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    x, guide = torch.randn(2, 2, model.spec.network.channels, 8, 8, generator=generator)
    return model.velocity(x, torch.tensor([0.25, 0.75]), model.conditioning(guide))


def rewritten(path: Path, tensors: dict[str, Tensor | None], metadata: dict[str, str]) -> None:
    """Write a model's file with tensors replaced or, by None, removed, and with other metadata."""
    save_model(make_model(), path)
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **metadata}
    save_file({k: v for k, v in {**load_file(path), **tensors}.items() if v is not None}, path, metadata)


def refusal(call: Callable[[], object], path: Path | None = None) -> str:
    """The message of the CheckpointError: one sentence that names the file."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"[.!?] [A-Z]", message), f"more than one sentence: {message}"
    assert len(message) < 700
    if path is not None:
        assert str(path) in message
    return message


def compact(features: int = 8, layers: int = 2, factor: int = 2) -> dict[str, Tensor]:
    """The weights of a small network of realesr-general's architecture, random."""
    generator = torch.Generator().manual_seed(0)
    widths = [3, *[features] * (layers + 1), 3 * factor**2]
    weights = {}
    for i, (before, after) in enumerate(pairwise(widths)):
        weights[f"body.{2 * i}.weight"] = torch.randn(after, before, 3, 3, generator=generator) * 0.05
        weights[f"body.{2 * i}.bias"] = torch.zeros(after)
        if i + 2 < len(widths):
            weights[f"body.{2 * i + 1}.weight"] = torch.full((after,), 0.2)
    return weights
