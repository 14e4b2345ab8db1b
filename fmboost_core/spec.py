"""The specification of a model file: what the network is and how it was trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import ConfigError, is_count, require
from .families import FAMILIES
from .networks import NETWORKS, GuideConfig, NetworkConfig, config_class

FORMAT_VERSION = 1
MAX_STRENGTH = 2.0

# How guides are made: by pixel-space upsampling, which needs a codec; by the model's guide network; by interpolation.
GUIDES = ("psu", "fast", "bilinear", "nearest")

# Training objectives: coupling flow matching, which FMBoost samples, and the paper's baselines, which the evaluation
# alone samples: naive flow matching, regression (L1, L2) and a diffusion model.
OBJECTIVES = ("cfm", "fm", "l1", "l2", "dm")


@dataclass(frozen=True)
class ModelSpec:
    """What a model file promises. It is stored as JSON in the file's safetensors metadata.

    name: short name of the model. network: its configuration, one of `NETWORKS`. family: a key of `FAMILIES`.
    latent_factor, latent_shift: the scaling factor and the shift of that family, so that a file explains itself.
    scale: the upscale factor of training, at least 1; larger ones take several stages.
    noise_step: of the start x0 in training, 0 to 999. alpha_bar: the signal kept at that step, 0 to 1.
    noise_steps: the steps the network was trained at; of a network with `noise_level` the least and the greatest.
    guide: how guides were upsampled, one of `GUIDES`. fast: the configuration of the guide network that the file holds
    where guide is "fast"; else None. objective: one of `OBJECTIVES`.
    nfe: number of function evaluations by default. weights: "ema" or "online". license, trained_on: for people.
    strength: how much of what the flow changes is kept by default, above 0 to `MAX_STRENGTH`; 1 is the flow's own end.
    """

    name: str
    network: NetworkConfig
    family: str = "sd15"
    latent_factor: float = 0.18215
    latent_shift: float = 0.0
    scale: float = 2.0
    noise_step: int = 400
    alpha_bar: float = 0.6544952
    noise_steps: tuple[int, ...] = (400,)
    guide: str = "psu"
    fast: GuideConfig | None = None
    objective: str = "cfm"
    nfe: int = 4
    strength: float = 1.0
    weights: str = "ema"
    license: str = "unknown"
    trained_on: str = "unknown"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_steps", tuple(self.noise_steps))
        for name in ("name", "license", "trained_on"):
            require(isinstance(getattr(self, name), str), name, getattr(self, name), "text")
        known_network = isinstance(self.network, tuple(known.config for known in NETWORKS.values()))
        require(known_network, "network", self.network, f"a configuration of {' or '.join(NETWORKS)}")
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
        require(self.guide in GUIDES, "guide", self.guide, f"one of {', '.join(GUIDES)}")
        has_guide = isinstance(self.fast, GuideConfig) and self.fast.channels == known
        rule = f"a guide network of {known} channels where guide is 'fast', else none"
        require(has_guide if self.guide == "fast" else self.fast is None, "fast", self.fast, rule)
        require(self.objective in OBJECTIVES, "objective", self.objective, " or ".join(OBJECTIVES))
        require(is_count(self.nfe), "nfe", self.nfe, "a whole number above 0")
        require_strength(self.strength)
        require(self.weights in ("ema", "online"), "weights", self.weights, "'ema' or 'online'")
        require(
            self.format_version == FORMAT_VERSION,
            "format_version",
            self.format_version,
            f"{FORMAT_VERSION} (a newer file needs a newer FMBoost)",
        )

    def knows(self, noise_step: int) -> bool:
        """Whether the network was trained at this noise step."""
        if self.network.noise_level:
            return self.noise_steps[0] <= noise_step <= self.noise_steps[1]
        return noise_step in self.noise_steps

    def to_json(self) -> str:
        """The specification as the JSON text that is stored."""
        table = asdict(self)
        # Older versions do not know these fields.
        if self.fast is None:
            del table["fast"]
        if self.strength == 1:
            del table["strength"]
        if self.network.architecture != "unet":  # the first files do not name it
            table["network"]["architecture"] = self.network.architecture
        return json.dumps(table, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read the text of `to_json`. A `ConfigError` names unknown, missing and impossible fields."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"The specification is not JSON ({error}).") from None
        stored = data.get("network") if isinstance(data, Mapping) else None
        kind, stored = config_class(stored) if isinstance(stored, Mapping) else (None, stored)
        network = built(kind, stored, "network")
        fast = data.get("fast")
        fast = None if fast is None else built(GuideConfig, fast, "guide network")
        return built(cls, {**data, "network": network, "fast": fast}, "specification")


def require_strength(strength: float, name: str = "strength") -> None:
    """Raises `ConfigError` for a strength that is no number or out of range."""
    number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
    require(number and 0 < strength <= MAX_STRENGTH, name, strength, f"above 0 and at most {MAX_STRENGTH:g}")


def built(kind: Any, data: Any, what: str) -> Any:
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
