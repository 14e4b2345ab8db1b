"""The U-Net over latents: the velocity network of the paper (section 3.3 and Table 9)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Downsample, ResBlock, SelfAttention, Upsample, make_norm, time_embedding, zeroed
from .conditioning import Conditioning
from .config import UNetConfig


class TimedSequential(nn.Sequential):
    """Layers in a row, of which the residual blocks also get the time embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class LatentUNet(nn.Module):
    """v(x, t, conditioning): x (B,C,h,w) of any size, t (B,) in [0,1] -> the velocity (B,C,h,w).

    It takes the conditioning that its configuration asks for: always the guide, with `classes` the guide's kind, with
    `noise_level` the start's noise level. Zeros pad sides that are no multiple of the stride at the right and the
    bottom, and the result is cut back. The state dict has the names of guided diffusion's U-Net, as the public
    reference implementation's has.
    """

    def __init__(self, config: UNetConfig, ops: Any = nn) -> None:
        """ops: where the layers come from, torch.nn or a host's namespace of the same classes."""
        super().__init__()
        self.config = config
        time_width = 4 * config.base
        self.time_embed = nn.Sequential(
            ops.Linear(config.base, time_width), nn.SiLU(), ops.Linear(time_width, time_width)
        )
        if config.classes:
            self.label_emb = ops.Embedding(config.classes, time_width)
        if config.noise_level:
            self.noise_embed = nn.Sequential(
                ops.Linear(config.base, time_width), nn.SiLU(), zeroed(ops.Linear(time_width, time_width))
            )
        self.input_blocks, widths = self._encoder(time_width, ops)
        width = widths[-1]
        middle: list[nn.Module] = [ResBlock(width, time_width, width, config.norm, ops) for _ in range(2)]
        if config.middle_attention:
            middle.insert(1, self._attention(width, linear=False, ops=ops))
        self.middle_block = TimedSequential(*middle)
        self.output_blocks = self._decoder(widths, time_width, ops)
        width = config.base * config.multipliers[0]
        self.out = nn.Sequential(
            make_norm(config.norm, width, ops), nn.SiLU(), zeroed(ops.Conv2d(width, config.channels, 3, padding=1))
        )

    def _attention(self, width: int, linear: bool, ops: Any) -> SelfAttention:
        c = self.config
        return SelfAttention(width, c.heads, c.head_width, linear, c.attention_layout, ops)

    def _block(self, width: int, out: int, rate: int, time_width: int, ops: Any) -> list[nn.Module]:
        layers: list[nn.Module] = [ResBlock(width, time_width, out, self.config.norm, ops)]
        if rate in self.config.attention_rates:
            layers.append(self._attention(out, linear=self.config.attention == "linear", ops=ops))
        return layers

    def _encoder(self, time_width: int, ops: Any) -> tuple[nn.ModuleList, list[int]]:
        """The way down, and the width of each of its outputs (the skip connections)."""
        c, width = self.config, self.config.base
        blocks, widths = [TimedSequential(ops.Conv2d(2 * c.channels, width, 3, padding=1))], [width]
        for level, multiplier in enumerate(c.multipliers):
            for _ in range(c.res_blocks):
                blocks.append(TimedSequential(*self._block(width, multiplier * c.base, 2**level, time_width, ops)))
                width = multiplier * c.base
                widths.append(width)
            if level < len(c.multipliers) - 1:
                blocks.append(TimedSequential(Downsample(width, ops)))
                widths.append(width)
        return nn.ModuleList(blocks), widths

    def _decoder(self, widths: list[int], time_width: int, ops: Any) -> nn.ModuleList:
        c, width, skips = self.config, widths[-1], list(widths)
        blocks = []
        for level, multiplier in reversed(list(enumerate(c.multipliers))):
            for i in range(c.res_blocks + 1):
                out = multiplier * c.base
                layers = self._block(width + skips.pop(), out, 2**level, time_width, ops)
                width = out
                if level and i == c.res_blocks:
                    layers.append(Upsample(width, ops))
                blocks.append(TimedSequential(*layers))
        return nn.ModuleList(blocks)

    def embedded_noise(self, level: Tensor, dtype: torch.dtype) -> Tensor:
        """The embedding of noise levels (B,), standard deviations in [0,1], as (B,4 base)."""
        # The fastest sinusoid turns by one radian over [0,1], too little to tell levels apart well.
        embedded: Tensor = self.noise_embed(time_embedding(4 * level, self.config.base).to(dtype))
        return embedded

    def forward(self, x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        height, width = x.shape[-2:]
        stride = self.config.stride
        h = F.pad(torch.cat([x, conditioning.guide], dim=1), (0, -width % stride, 0, -height % stride))
        emb = self._embedding(t, conditioning, x.dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h)[..., :height, :width]

    def _embedding(self, t: Tensor, conditioning: Conditioning, dtype: torch.dtype) -> Tensor:
        """The embedding (B,4 base) of the time, the guide's kind and the noise level, which residual blocks take."""
        emb: Tensor = self.time_embed(time_embedding(t, self.config.base).to(dtype))
        if conditioning.kind is not None:
            emb = emb + self.label_emb(conditioning.kind)
        if conditioning.noise_level is not None:
            emb = emb + self.embedded_noise(conditioning.noise_level, dtype)
        return emb
