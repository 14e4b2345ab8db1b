"""Measures that need a network's view of pictures: FID and patch FID, CLIP score, CLIP-IQA, LPIPS.

All go through torchmetrics, imported only when asked for. Networks come from files that are there, or from an hf://
address that was typed; nothing else is ever downloaded. Pictures are (1,3,H,W) floats in [-1,1].
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, ImageError, MissingDependencyError, reason

_LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"


def require_torchmetrics(part: str) -> Any:
    """The module torchmetrics.PART; `MissingDependencyError` says how to get it."""
    try:
        return importlib.import_module(f"torchmetrics.{part}")
    except ImportError as error:
        raise MissingDependencyError(
            f"Measuring needs torchmetrics ({reason(error)}): pip install torchmetrics."
        ) from None


def _to_bytes(pictures: Tensor) -> Tensor:
    """[-1,1] -> whole numbers 0..255."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


# --- Frechet distances


@dataclass(frozen=True)
class Patches:
    """Random square crops of a picture: how many, their side in pixels, and the seed of their places."""

    count: int = 16
    side: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "side"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} of the patches must be a whole number above 0, but it is {value!r}.")

    def cut(self, picture: Tensor, key: str) -> Tensor:
        """The crops (count,3,side,side) of a picture; pictures of one size and key are cut at the same places."""
        height, width = picture.shape[-2:]
        if min(height, width) < self.side:
            raise ImageError(f"A picture of {width}x{height} has no patches of {self.side} pixels; take smaller ones.")
        generator = torch.Generator().manual_seed(self.seed ^ zlib.crc32(key.encode()))
        tops, lefts = (
            torch.randint(side - self.side + 1, (self.count,), generator=generator).tolist() for side in (height, width)
        )
        pairs = zip(tops, lefts, strict=True)
        return torch.cat([picture[..., y : y + self.side, x : x + self.side] for y, x in pairs])


def load_feature_network(path: Path) -> nn.Module:
    """A TorchScript file such as the public inception-2015-12-05.pt, which takes (B,3,H,W) bytes, for `features`.

    Raises `CheckpointError` where it is no such file.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; FID needs a TorchScript file such as NVIDIA's inception-2015-12-05.pt."
        )
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is no TorchScript file ({reason(error)}); FID needs one.") from None


@torch.no_grad()
def features(network: nn.Module, pictures: Tensor) -> Tensor:
    """The network's features (B,D) of pictures (B,3,H,W) in [-1,1], which it gets as bytes 0..255."""
    pictures = _to_bytes(pictures)
    found = network(pictures, return_features=True) if _has_switch(network) else network(pictures)
    if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[0] != pictures.shape[0]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(f"A feature network must give (pictures, features), but this one gives {shape}.")
    return found.float()


def _has_switch(network: nn.Module) -> bool:
    """Whether the network gives features only if told to; NVIDIA's file gives classes otherwise."""
    schema = getattr(network.forward, "schema", None)  # TorchScript's alone
    return schema is not None and any(argument.name == "return_features" for argument in schema.arguments)


def frechet(found: Tensor, true: Tensor) -> float:
    """Frechet distance of two sets of features (N,D), (M,D) as of Gaussians (Heusel et al. 2017).

    Fewer than thousands of pictures bias it upwards: compare only figures of equally many. Of the features of
    pictures it is FID, of the features of `Patches` p-FID.
    """
    for rows in (found, true):
        if rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] != found.shape[1]:
            shapes = f"{tuple(found.shape)} and {tuple(true.shape)}"
            raise ConfigError(f"FID compares two sets of at least two features of one width, but these are {shapes}.")
    given = nn.Identity()  # the features are there already, and torchmetrics takes what its network gives
    given.num_features = torch.tensor(found.shape[1])
    metric = require_torchmetrics("image.fid").FrechetInceptionDistance(feature=given)
    metric.update(true.double(), real=True)
    metric.update(found.double(), real=False)
    return max(0.0, metric.compute().item())  # rounding makes the distance of equal sets a little negative


# --- CLIP


class _ClipModel:
    """A transformers CLIP as torchmetrics expects one: the features are tensors, which newer transformers wrap."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config

    def to(self, device: torch.device) -> _ClipModel:
        self.model.to(device)
        return self

    def get_image_features(self, *args: Tensor) -> Tensor:
        return _tensor(self.model.get_image_features(*args))

    def get_text_features(self, *args: Tensor) -> Tensor:
        return _tensor(self.model.get_text_features(*args))


def _tensor(found: Any) -> Tensor:
    return found if isinstance(found, Tensor) else found.pooler_output


@dataclass(frozen=True)
class Clip:
    """A CLIP model with its processor, of `load_clip`."""

    model: Any
    processor: Any

    @torch.no_grad()
    def score(self, picture: Tensor, caption: str) -> float:
        """100 times the cosine of picture and caption, at least 0 (Hessel et al. 2021)."""
        functions = require_torchmetrics("functional.multimodal")
        return functions.clip_score(_to_bytes(picture[0]), caption, lambda: (self.model, self.processor)).item()

    @torch.no_grad()
    def quality(self, picture: Tensor) -> float:
        """CLIP-IQA (Wang et al. 2023): how much rather a Good photo than a Bad photo, 0 to 1."""
        functions = require_torchmetrics("functional.multimodal.clip_iqa")
        # The processor divides by 255 itself: as 0..1, which the function would make, everything would be black.
        pixels = _to_bytes(picture).float()
        pair = (self.model, self.processor)
        return functions.clip_image_quality_assessment(pixels, lambda: pair, data_range=1.0).item()


@cache
def load_clip(place: str) -> Clip:
    """A CLIP of the transformers library, from a local folder or, as hf://owner/name, from the hub.

    Raises MissingDependencyError without transformers, ConfigError for a place that has no such model.
    """
    hub = place.startswith("hf://")
    if not hub and not Path(place).is_dir():
        raise ConfigError(f"{place} is no folder with a CLIP model; a model of the hub is named hf://owner/name.")
    with _missing("CLIP", "transformers"):
        from transformers import CLIPModel, CLIPProcessor
    name = place.removeprefix("hf://")
    try:
        model = CLIPModel.from_pretrained(name, local_files_only=not hub)
        processor = CLIPProcessor.from_pretrained(name, local_files_only=not hub)
    except Exception as error:  # transformers, the hub and their file readers have no common base
        raise ConfigError(f"{place} has no CLIP model that transformers can load ({reason(error)}).") from None
    return Clip(_ClipModel(model.eval().requires_grad_(False)), processor)


@contextmanager
def _missing(what: str, package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(f"{what} needs {package} ({reason(error)}): pip install {package}.") from None


# --- LPIPS


def lpips(picture: Tensor, truth: Tensor) -> float:
    """Learned perceptual distance with AlexNet (Zhang et al. 2018), 0 for equal pictures.

    Raises MissingDependencyError without torchvision, ConfigError where AlexNet's weights are not in PyTorch's cache.
    """
    with torch.no_grad():
        return _lpips_network()(picture, truth).item()


@cache
def _lpips_network() -> Any:
    with _missing("LPIPS", "torchvision"):
        import torchvision  # noqa: F401
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_BACKBONE
    if not weights.is_file():
        raise ConfigError(
            f"LPIPS needs AlexNet's weights: put download.pytorch.org/models/{weights.name} at {weights}."
        )
    return require_torchmetrics("image.lpip").LearnedPerceptualImagePatchSimilarity(net_type="alex").eval()
