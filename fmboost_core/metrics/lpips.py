"""LPIPS, the learned perceptual distance, by torchmetrics and torchvision."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .optional import needs, require_torchmetrics

_BACKBONE = "alexnet-owt-7be5be79.pth"


def lpips(image: Tensor, reference: Tensor) -> float:
    """Learned perceptual distance with AlexNet (Zhang et al. 2018), 0 for equal images (1,3,H,W) in [-1,1].

    Raises MissingDependencyError without torchvision, ConfigError where AlexNet's weights are not in PyTorch's cache.
    """
    with torch.no_grad():
        return load_network()(image, reference).item()


@cache
def load_network() -> Any:
    """The network with AlexNet's weights from PyTorch's cache; nothing is downloaded."""
    with needs("LPIPS", "torchvision"):
        import torchvision  # noqa: F401
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _BACKBONE
    if not weights.is_file():
        raise ConfigError(
            f"LPIPS needs AlexNet's weights: put download.pytorch.org/models/{weights.name} at {weights}."
        )
    return require_torchmetrics("image.lpip").LearnedPerceptualImagePatchSimilarity(net_type="alex").eval()
