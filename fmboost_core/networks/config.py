"""Configurations of the networks."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import is_count, require

# What a guide was made from, in the order of the network's classes: the decoded small latent, E(UP(D(z))), which
# has lost what the codec loses, or the picture itself, E(UP(x)).
GUIDE_KINDS = ("latent", "image")


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
            require(is_count(getattr(self, name)), name, getattr(self, name), "a whole number above 0")
        require(
            bool(self.multipliers) and all(map(is_count, self.multipliers)),
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
            all(is_count(r) and r & (r - 1) == 0 for r in self.attention_rates),
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
