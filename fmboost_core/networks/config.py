"""The configurations of the U-Net, with its presets, and of the guide network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import is_count, require

_CLASSES = (0, 2, 3, 4)  # a network with classes knows the first so many of `conditioning.GUIDE_KINDS`


@dataclass(frozen=True)
class UNetConfig:
    """The U-Net's form (paper Table 9; names as in guided diffusion's U-Net).

    channels: latent channels C; the network takes 2C (state and guide) and gives C.
    base: channels of the first level. multipliers: of base, a level each. res_blocks: residual blocks a level.
    norm: "group" (32 groups, statistics over the whole latent) or "channel" (RMS over each position's channels, so
        that the receptive field is finite and tiles are exact).
    attention_rates: downsampling rates (1, 2, 4, 8) at which self-attention follows every block.
    middle_attention: self-attention between the two middle blocks.
    heads, head_width: of each self-attention.
    attention: "full" or "linear" (at `attention_rates`; the middle is always full).
    attention_layout: "standard", or "reference" for checkpoints of CompVis/fm-boosting, whose reshape mixes channels
        and positions. heads, attention and attention_layout do not follow from the weights' shapes; files store them.
    classes: 2 to 4 for a network that is conditioned on what the guide was made from, the first so many of
        `GUIDE_KINDS`; else 0.
    noise_level: whether the network is conditioned on the noise level of the start, so that it serves many noise steps.
    """

    architecture: ClassVar[str] = "unet"

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
        require(self.classes in _CLASSES, "classes", self.classes, " or ".join(map(str, _CLASSES)))
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
        """Total downsampling. `LatentUNet` pads both sides of its input to multiples of it."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def has_attention(self) -> bool:
        """Whether every position can reach every other, so that tiles are only approximate."""
        return self.middle_attention or any(r <= self.stride for r in self.attention_rates)

    @property
    def is_exact_in_tiles(self) -> bool:
        """Whether tiles with enough overlap equal the whole: no attention, and a norm of single positions."""
        return self.norm == "channel" and not self.has_attention

    @property
    def receptive_radius(self) -> int:
        """How many latents away an input still reaches an output, rounded up to the stride.

        It counts the 3x3 convolutions (radius 2^level each), and means something only where tiles are exact.
        """
        top = len(self.multipliers) - 1
        radius = 2  # the first and the last convolution
        for level in range(top + 1):
            radius += (2 * self.res_blocks + 2 * (self.res_blocks + 1)) * 2**level
        radius += 4 * 2**top  # the middle
        radius += sum(2**level for level in range(top))  # down: stride 2 at the finer level
        radius += sum(2**level for level in range(top))  # up: a convolution at the finer level
        radius += self.stride - 1  # nearest-neighbour upsampling rounds positions to the stride
        return -(-radius // self.stride) * self.stride

    @property
    def values_per_position(self) -> int:
        """About how many values an evaluation keeps per input position, for estimates of memory."""
        return 32 * self.base

    @property
    def fewest_tensors(self) -> int:
        """A bound from below on the tensors of its state dict: eight in each residual block."""
        return 8 * len(self.multipliers) * (2 * self.res_blocks + 1)


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
class GuideConfig:
    """The guide network's form.

    channels: latent channels C. width: of all its layers. blocks: of the decoder's two stages and the encoder's one,
    each. between: blocks that join them, at the target's size.
    """

    channels: int = 4
    width: int = 64
    blocks: int = 3
    between: int = 1

    def __post_init__(self) -> None:
        for name in ("channels", "width", "blocks", "between"):
            require(is_count(getattr(self, name)), name, getattr(self, name), "a whole number above 0")

    @property
    def fewest_tensors(self) -> int:
        """A bound from below on the tensors of its state dict: six in each block."""
        return 6 * (3 * self.blocks + self.between)

    @property
    def coarse_radius(self) -> int:
        """How many small latents away an input still reaches the decoder's features."""
        stage = 1 + 3 * self.blocks  # the second one is at twice the size
        return stage + -(-stage // 2)

    @property
    def fine_radius(self) -> int:
        """How many of the target's latents away such a feature still reaches the guide."""
        return 3 * (self.between + self.blocks) + 1
