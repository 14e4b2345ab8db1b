"""What a network is (`UNetConfig`) and what a model file promises (`ModelSpec`)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import ConfigError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class LatentFamily:
    """A latent space: the scaled latent is `(raw - shift) * factor`, near unit variance, 8x smaller than pixels."""

    channels: int
    factor: float
    shift: float = 0.0


FAMILIES = {
    "sd15": LatentFamily(4, 0.18215),
    "sdxl": LatentFamily(4, 0.13025),
    "sd3": LatentFamily(16, 1.5305, 0.0609),
    "flux1": LatentFamily(16, 0.3611, 0.1159),
}


def families_with(channels: int) -> str:
    """The families a latent of this many channels could belong to, for messages: "sd15 or sdxl"."""
    return " or ".join(k for k, v in FAMILIES.items() if v.channels == channels) or "none that is known"


def require(ok: bool, name: str, value: object, rule: str) -> None:
    """Refuse a field's value in one sentence: its name, the rule, the value."""
    if not ok:
        raise ConfigError(f"{name} must be {rule}, but it is {value!r}.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# What a guide was made from, in the order of the network's classes: the decoded small latent, E(UP(D(z))), which
# has lost what the codec loses, or the picture itself, E(UP(x)).
GUIDE_KINDS = ("latent", "image")

# What networks are trained for: coupling flow matching, which all of FMBoost runs on, and the paper's baselines,
# which only the evaluation samples: naive flow matching, regression, a diffusion model (`training/objectives.py`).
OBJECTIVES = ("cfm", "fm", "l1", "l2", "dm")


@dataclass(frozen=True)
class UNetConfig:
    """The velocity network (paper Table 9; names as in guided diffusion's U-Net).

    channels: latent channels C; the network takes 2C (state and guide) and gives C.
    base: channels of the first level; multipliers: per level; res_blocks: residual blocks a level.
    norm: "group" (32 groups, statistics over the whole picture) or "channel" (RMS over each position's channels,
        so the network has a finite receptive field and tiles are exact).
    attention_rates: reductions (1, 2, 4, 8) at which every block is followed by self-attention.
    middle_attention: self-attention between the two middle blocks.
    heads, head_width: of each self-attention.
    attention: "full" or "linear" (at `attention_rates`; the middle is always full).
    attention_layout: "standard", or "reference" for checkpoints of CompVis/fm-boosting, whose reshape mixes
        channels and positions. State-dict shapes cannot tell these three apart, so they are stored.
    classes: how many of `GUIDE_KINDS` the network can be told; 0 if it is not told the guide's kind.
    noise_level: whether the network is told how much noise the start has, so that it can serve many noise steps.
    """

    channels: int = 4
    base: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    res_blocks: int = 3
    norm: str = "group"
    attention_rates: tuple[int, ...] = (8,)
    middle_attention: bool = True
    heads: int = 4
    head_width: int = 64
    attention: str = "full"
    attention_layout: str = "standard"
    classes: int = 0
    noise_level: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "attention_rates", tuple(self.attention_rates))
        for name in ("channels", "base", "res_blocks", "heads", "head_width"):
            require(_is_count(getattr(self, name)), name, getattr(self, name), "a whole number above 0")
        require(
            bool(self.multipliers) and all(map(_is_count, self.multipliers)),
            "multipliers",
            self.multipliers,
            "whole numbers above 0",
        )
        require(self.norm in ("group", "channel"), "norm", self.norm, "'group' or 'channel'")
        require(self.norm == "channel" or self.base % 32 == 0, "base", self.base, "a multiple of 32 with norm='group'")
        require(self.attention in ("full", "linear"), "attention", self.attention, "'full' or 'linear'")
        layouts = ("standard", "reference")
        require(self.attention_layout in layouts, "attention_layout", self.attention_layout, " or ".join(layouts))
        require(self.classes in (0, len(GUIDE_KINDS)), "classes", self.classes, f"0 or {len(GUIDE_KINDS)}")
        for name in ("middle_attention", "noise_level"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        require(
            all(_is_count(r) and r & (r - 1) == 0 for r in self.attention_rates),
            "attention_rates",
            self.attention_rates,
            "powers of two",
        )

    @property
    def stride(self) -> int:
        """Total reduction: both sides of the input must be multiples of it (`LatentUNet` pads them)."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def has_attention(self) -> bool:
        """Whether any position can reach every other, so that tiles are only approximate."""
        return self.middle_attention or any(r <= self.stride for r in self.attention_rates)


PRESETS = {
    "paper-113m": UNetConfig(),
    "paper-306m": UNetConfig(multipliers=(1, 2, 4, 8)),
    "lite": UNetConfig(
        base=32,
        multipliers=(1, 2, 4),
        res_blocks=2,
        norm="channel",
        attention_rates=(),
        middle_attention=False,
        classes=2,
    ),
}


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
        require(_is_count(self.nfe), "nfe", self.nfe, "a whole number above 0")
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
