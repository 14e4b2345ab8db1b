"""What a model file promises (`ModelSpec`), stored as JSON in its metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import ConfigError, is_count, require
from .families import FAMILIES
from .networks.config import UNetConfig

FORMAT_VERSION = 1

# What networks are trained for: coupling flow matching, which all of FMBoost runs on, and the paper's baselines,
# which only the evaluation samples: naive flow matching, regression, a diffusion model (`training/objectives.py`).
OBJECTIVES = ("cfm", "fm", "l1", "l2", "dm")


@dataclass(frozen=True)
class ModelSpec:
    """What a model file promises; stored as JSON in its safetensors metadata.

    name: short name of the model; network: its architecture; family: a key of `FAMILIES`, the latent space.
    latent_factor, latent_shift: of that space, so that a file explains itself.
    scale: the trained magnification, at least 1; a larger one is reached in stages.
    noise_step, alpha_bar: of the start x0 in training (step 0..999, signal kept 0..1).
    noise_steps: the steps the network knows, or the least and the greatest of one that is told the `noise_level`;
        others are out of its depth and warn.
    guide: how guides were made ("psu", "bilinear", "nearest"); objective: what was learned, one of `OBJECTIVES`.
    nfe: evaluations by default; weights: "ema" or "online"; license, trained_on: words for people.
    """

    name: str
    network: UNetConfig
    family: str = "sd15"
    latent_factor: float = 0.18215
    latent_shift: float = 0.0
    scale: float = 2.0
    noise_step: int = 400
    alpha_bar: float = 0.6544952
    noise_steps: tuple[int, ...] = (400,)
    guide: str = "psu"
    objective: str = "cfm"
    nfe: int = 4
    weights: str = "ema"
    license: str = "unknown"
    trained_on: str = "unknown"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_steps", tuple(self.noise_steps))
        for name in ("name", "license", "trained_on"):
            require(isinstance(getattr(self, name), str), name, getattr(self, name), "text")
        require(isinstance(self.network, UNetConfig), "network", self.network, "a UNetConfig")
        require(self.family in FAMILIES, "family", self.family, " or ".join(FAMILIES))
        known = FAMILIES[self.family].channels
        require(self.network.channels == known, "network.channels", self.network.channels, f"{known} ({self.family})")
        for name in ("latent_factor", "latent_shift", "scale", "alpha_bar"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            require(number, name, value, "a finite number")
        require(self.latent_factor > 0, "latent_factor", self.latent_factor, "above 0")
        require(self.scale >= 1, "scale", self.scale, "at least 1")
        require(0 <= self.alpha_bar <= 1, "alpha_bar", self.alpha_bar, "between 0 and 1")
        for step in (self.noise_step, *self.noise_steps):
            whole = isinstance(step, int) and not isinstance(step, bool)
            require(whole and 0 <= step <= 999, "noise_step", step, "a whole number from 0 to 999")
        if self.network.noise_level:
            around = len(self.noise_steps) == 2 and self.noise_steps[0] <= self.noise_step <= self.noise_steps[1]
            require(around, "noise_steps", self.noise_steps, "the least and the greatest step around noise_step")
        require(self.guide in ("psu", "bilinear", "nearest"), "guide", self.guide, "psu, bilinear or nearest")
        require(self.objective in OBJECTIVES, "objective", self.objective, " or ".join(OBJECTIVES))
        require(is_count(self.nfe), "nfe", self.nfe, "a whole number above 0")
        require(self.weights in ("ema", "online"), "weights", self.weights, "'ema' or 'online'")
        require(
            self.format_version == FORMAT_VERSION,
            "format_version",
            self.format_version,
            f"{FORMAT_VERSION} (a newer file needs a newer FMBoost)",
        )

    def knows(self, noise_step: int) -> bool:
        """Whether the network was trained from starts of this noise step."""
        if self.network.noise_level:
            return self.noise_steps[0] <= noise_step <= self.noise_steps[1]
        return noise_step in self.noise_steps

    def to_json(self) -> str:
        """The specification as the JSON text that is stored."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read `to_json`'s text. Unknown, missing and impossible fields are a `ConfigError` that names them."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"The specification is not JSON ({error}).") from None
        network = _build(UNetConfig, data.get("network") if isinstance(data, Mapping) else None, "network")
        return _build(cls, {**data, "network": network}, "specification")


def _build(kind: Any, data: Any, what: str) -> Any:
    """kind(**data) with unknown and missing fields named."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"The {what} must be a table of fields, but it is {type(data).__name__}.")
    unknown = sorted(set(data) - {f.name for f in fields(kind)})
    if unknown:
        raise ConfigError(f"The {what} has fields this version does not know: {', '.join(unknown)}.")
    try:
        return kind(**data)
    except TypeError as error:
        raise ConfigError(f"The {what} is incomplete or has a field of the wrong type ({error}).") from None
