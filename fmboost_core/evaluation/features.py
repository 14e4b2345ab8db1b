"""Features of images by a network from a TorchScript file, and the Frechet distance of two sets of them (FID).

Nothing is downloaded. Images are (1,3,H,W) floats in [-1,1].
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, ImageError, is_count, reason, require
from ..metrics.optional import require_torchmetrics


@dataclass(frozen=True)
class Patches:
    """Random square crops of an image: how many, their side in pixels, and the seed of their places."""

    count: int = 16
    side: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "side"):
            value = getattr(self, name)
            require(is_count(value), f"{name} of the patches", value, "a whole number above 0")

    def cut(self, image: Tensor, key: str) -> Tensor:
        """The crops (count,3,side,side) of an image; images of one size and key have the same places."""
        height, width = image.shape[-2:]
        if min(height, width) < self.side:
            raise ImageError(f"An image of {width}x{height} has no patches of {self.side} pixels; take smaller ones.")
        generator = torch.Generator().manual_seed(self.seed ^ zlib.crc32(key.encode()))
        tops, lefts = (
            torch.randint(side - self.side + 1, (self.count,), generator=generator).tolist() for side in (height, width)
        )
        pairs = zip(tops, lefts, strict=True)
        return torch.cat([image[..., y : y + self.side, x : x + self.side] for y, x in pairs])


def load_feature_network(path: Path) -> nn.Module:
    """A TorchScript network that takes bytes (B,3,H,W), such as NVIDIA's public inception-2015-12-05.pt.

    Raises `CheckpointError` for another file.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; FID needs a TorchScript file such as NVIDIA's inception-2015-12-05.pt."
        )
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is no TorchScript file ({reason(error)}); FID needs one.") from None


def to_bytes(images: Tensor) -> Tensor:
    """[-1,1] -> whole numbers 0..255."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


@torch.no_grad()
def features(network: nn.Module, images: Tensor) -> Tensor:
    """The network's features (B,D) of images (B,3,H,W) in [-1,1], which it gets as bytes 0..255."""
    images = to_bytes(images)
    found = network(images, return_features=True) if _has_switch(network) else network(images)
    if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[0] != images.shape[0]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(f"A feature network must give (images, features), but this one gives {shape}.")
    return found.float()


def _has_switch(network: nn.Module) -> bool:
    """Whether the network has the argument `return_features`; NVIDIA's gives classes without it."""
    schema = getattr(network.forward, "schema", None)  # only TorchScript has one
    return schema is not None and any(argument.name == "return_features" for argument in schema.arguments)


def frechet(found: Tensor, reference: Tensor) -> float:
    """Frechet distance of two sets of features (N,D), (M,D) as of Gaussians (Heusel et al. 2017).

    FID is that of images' features, p-FID that of the features of `Patches`. Fewer than thousands of images bias it
    upwards, so only figures of equally many images compare.
    """
    for rows in (found, reference):
        if rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] != found.shape[1]:
            shapes = f"{tuple(found.shape)} and {tuple(reference.shape)}"
            raise ConfigError(f"FID compares two sets of at least two features of one width, but these are {shapes}.")
    given = nn.Identity()  # torchmetrics applies a network; these are its results already
    given.num_features = torch.tensor(found.shape[1])
    metric = require_torchmetrics("image.fid").FrechetInceptionDistance(feature=given)
    metric.update(reference.double(), real=True)
    metric.update(found.double(), real=False)
    return max(0.0, metric.compute().item())  # rounding can make the distance of equal sets negative
