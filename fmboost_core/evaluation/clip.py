"""CLIP score and CLIP-IQA, by transformers and torchmetrics.

The model comes from a local folder, or from an hf:// address that was typed. Images are (1,3,H,W) floats in [-1,1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, reason
from ..metrics.optional import needs, require_torchmetrics
from .features import to_bytes


class _ClipModel:
    """A CLIP of transformers in torchmetrics' form: features are tensors, which newer transformers wrap."""

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
    """A CLIP model with its processor; `load_clip` makes one."""

    model: Any
    processor: Any

    @torch.no_grad()
    def score(self, image: Tensor, caption: str) -> float:
        """100 times the cosine of image and caption, at least 0 (Hessel et al. 2021)."""
        functions = require_torchmetrics("functional.multimodal")
        return functions.clip_score(to_bytes(image[0]), caption, lambda: (self.model, self.processor)).item()

    @torch.no_grad()
    def quality(self, image: Tensor) -> float:
        """CLIP-IQA (Wang et al. 2023): the preference of "Good photo." to "Bad photo.", 0 to 1."""
        functions = require_torchmetrics("functional.multimodal.clip_iqa")
        # The processor divides by 255: values in 0..1, which the function would make, would all be black.
        pixels = to_bytes(image).float()
        pair = (self.model, self.processor)
        return functions.clip_image_quality_assessment(pixels, lambda: pair, data_range=1.0).item()


@cache
def load_clip(place: str) -> Clip:
    """A CLIP of transformers from a local folder or, as hf://owner/name, from the hub.

    Raises MissingDependencyError without transformers, ConfigError for a place without such a model.
    """
    hub = place.startswith("hf://")
    if not hub and not Path(place).is_dir():
        raise ConfigError(f"{place} is no folder with a CLIP model; a model of the hub is named hf://owner/name.")
    with needs("CLIP", "transformers"):
        from transformers import CLIPModel, CLIPProcessor
    name = place.removeprefix("hf://")
    try:
        model = CLIPModel.from_pretrained(name, local_files_only=not hub)
        processor = CLIPProcessor.from_pretrained(name, local_files_only=not hub)
    except Exception as error:  # transformers, the hub and their file readers have no common base
        raise ConfigError(
            f"{place} has no CLIP model that transformers can load ({reason(error)}); name another one."
        ) from None
    return Clip(_ClipModel(model.eval().requires_grad_(False)), processor)
