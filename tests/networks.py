"""Small real networks with random weights: for tests of everything but quality."""

import torch

from fmboost_core.model import Model
from fmboost_core.networks.config import UNetConfig
from fmboost_core.networks.unet import LatentUNet
from fmboost_core.spec import ModelSpec

TINY = UNetConfig(base=8, multipliers=(1, 2), res_blocks=1, norm="channel", attention_rates=(), middle_attention=False)


def randomised(module: torch.nn.Module, seed: int = 0, std: float = 0.1) -> torch.nn.Module:
    """All parameters random: fresh networks have zero-initialised outputs, with which nothing could fail."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * std
    return module


def make_model(config: UNetConfig = TINY, **spec: object) -> Model:
    return Model(ModelSpec(name="tiny", network=config, **spec), randomised(LatentUNet(config)))
