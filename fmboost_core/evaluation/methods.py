"""Methods that enlarge a prepared photograph: the baselines, and models at each NFE, noise step and strength wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import ConfigError
from ..files.checkpoint import load_model
from ..files.walk import as_text
from ..imaging.resample import resize
from ..model import Model
from ..sampling.guide import pixel_upsample
from ..sampling.upscaler import boost
from .photographs import PreparedPhoto

BASELINES = ("bicubic", "guide")

LatentMethod = Callable[[PreparedPhoto], Tensor]  # makes the large scaled latent (1,C,H,W)


def bicubic(photo: PreparedPhoto) -> Tensor:
    """The small image enlarged by bicubic interpolation, clamped to [-1,1]."""
    return resize(photo.small, photo.size, "bicubic").clamp(-1, 1)


def psu_guide(codec: Codec) -> LatentMethod:
    """The guide alone, by pixel-space upsampling (PSU, paper section 3.3)."""
    return lambda photo: pixel_upsample(photo.low, codec, photo.size)


def boosted(model: Model, codec: Codec, **options: Any) -> LatentMethod:
    """The model's flow from the low latent; the options are `boost`'s."""
    return lambda photo: boost(photo.low, model, codec, size=(photo.size[1], photo.size[0]), **options)


@dataclass(frozen=True)
class SamplingGrid:
    """How each model is sampled: every combination of an NFE, a noise step and a strength is a method.

    nfe, noise_steps, strengths: empty for the model's own; restore: also evaluate each method's restored images.
    """

    nfe: tuple[int, ...] = ()
    noise_steps: tuple[int, ...] = ()
    strengths: tuple[float, ...] = ()
    solver: str = "euler"
    seed: int = 0
    restore: bool = False

    def methods(
        self, models: Mapping[str, Model], codec: Codec
    ) -> tuple[dict[str, LatentMethod], dict[str, LatentMethod]]:
        """The methods by name, and those whose images are also restored."""
        plain: dict[str, LatentMethod] = {}
        restored: dict[str, LatentMethod] = {}
        for label, model in models.items():
            grid = (self.nfe or (model.spec.nfe,), self.noise_steps or (None,), self.strengths or (None,))
            for nfe, step, strength in product(*grid):
                method = boosted(
                    model, codec, nfe=nfe, noise_step=step, strength=strength, solver=self.solver, seed=self.seed
                )
                name = label if step is None else f"{label} from step {step}"
                name = name if strength is None else f"{name} of strength {strength:g}"
                plain[method_name(name, nfe)] = method
                if self.restore:
                    restored[method_name(f"{name} restored", nfe)] = method
        return plain, restored


def method_name(model: str, nfe: int) -> str:
    """The name of a model at an NFE in results, which `plots.series_over_nfe` reads."""
    return f"{model}, nfe {nfe}"


def load_models(names: Sequence[str], device: torch.device) -> dict[str, Model]:
    """Models by their labels in results, the names of their files. Raises `ConfigError` for one label twice."""
    models: dict[str, Model] = {}
    for name in names:
        label = as_text(Path(name.partition("@")[0]).stem if "/" in name or Path(name).suffix else name)
        if label in models:
            raise ConfigError(f"Two models are called {label} in the results; rename one.")
        models[label] = load_model(name).to(device)
    return models
