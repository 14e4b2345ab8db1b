"""The networks' parts. The U-Net's parameter names are guided diffusion's, which the public checkpoints use too.

Layers come from `ops`, a namespace with torch.nn's classes. A host passes its own, which cast and offload.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def time_embedding(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of times t (B,), in [0,1] and unscaled, as (B, width): cosines, then sines."""
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * frequencies[None]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


class ChannelNorm(nn.Module):
    """RMS norm over the channels of each position of (B,C,H,W), with a learned gain.

    Unlike GroupNorm it looks at no other position, so a tile has the same statistics as the whole.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(1, keepdim=True) + self.eps)
        # Hosts that offload move whole layers; this bare parameter stays behind, so it is moved here.
        return x * scale.to(x.dtype) * self.weight.to(x)[:, None, None]


def make_norm(kind: str, channels: int, ops: Any) -> nn.Module:
    """The norm of a `UNetConfig.norm` for this many channels."""
    return ops.GroupNorm(32, channels) if kind == "group" else ChannelNorm(channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all parameters set to zero, so that a fresh block is the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResBlock(nn.Module):
    """norm, SiLU, conv; norm scaled and shifted by the time, SiLU, conv; plus the input."""

    def __init__(self, channels: int, time_width: int, out_channels: int, norm: str, ops: Any) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            make_norm(norm, channels, ops), nn.SiLU(), ops.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), ops.Linear(time_width, 2 * out_channels))
        self.out_layers = nn.Sequential(
            make_norm(norm, out_channels, ops),
            nn.SiLU(),
            nn.Identity(),  # the place of a dropout, kept for the parameter names
            zeroed(ops.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = channels == out_channels
        self.skip_connection: nn.Module = nn.Identity() if same else ops.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x)
        scale, shift = self.emb_layers(emb).to(h.dtype)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.out_layers[0](h), 1 + scale)
        return self.skip_connection(x) + self.out_layers[1:](h)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the positions of (B,C,H,W), residual.

    layout "standard": heads split the channels. "reference": the reshape of CompVis/fm-boosting
    (fmboost/models/unet/layers/attention.py), which has no transpose, so that its "tokens" mix channels and
    positions; weights trained that way need exactly that.
    """

    def __init__(self, channels: int, heads: int, head_width: int, linear: bool, layout: str, ops: Any) -> None:
        super().__init__()
        self.heads, self.linear, self.layout = heads, linear, layout
        inner = heads * head_width
        self.norm = ops.GroupNorm(32, channels)
        self.qkv = ops.Conv1d(channels, 3 * inner, 1)
        self.proj_out = zeroed(ops.Conv1d(inner, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        h = self._attend_reference(qkv) if self.layout == "reference" else self._attend_standard(qkv)
        return (flat + self.proj_out(h)).reshape(x.shape)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_attention(q, k, v) if self.linear else F.scaled_dot_product_attention(q, k, v)

    def _attend_standard(self, qkv: Tensor) -> Tensor:
        q, k, v = rearrange(qkv, "b (three heads width) l -> three b heads l width", three=3, heads=self.heads)
        return rearrange(self._attend(q, k, v), "b heads l width -> b (heads width) l")

    def _attend_reference(self, qkv: Tensor) -> Tensor:
        batch, channels, length = qkv.shape
        q, k, v = qkv.reshape(batch, self.heads, length, -1).chunk(3, dim=-1)
        return self._attend(q, k, v).reshape(batch, channels // 3, length)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of linear cost (Shen et al., arXiv 1812.01243) over (B, heads, L, width)."""
    q = q.softmax(dim=-1) / math.sqrt(q.shape[-1])
    return q @ (k.softmax(dim=-2).transpose(-1, -2) @ v)


class Downsample(nn.Module):
    """Halves both sides with a strided convolution."""

    def __init__(self, channels: int, ops: Any) -> None:
        super().__init__()
        self.op = ops.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Doubles both sides: nearest neighbour, then a convolution."""

    def __init__(self, channels: int, ops: Any) -> None:
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


# --- of the public tiny VAEs (madebyollin/taesd)


class TinyBlock(nn.Module):
    """relu(conv(x) + x), with three convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu_()


class SoftClamp(nn.Module):
    """3 tanh(x/3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3
