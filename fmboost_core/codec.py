"""Between pictures and scaled latents: the `Codec` protocol and the two tiny VAEs that implement it.

Pictures are (B,3,H,W) in [-1,1], H and W multiples of `factor`; latents (B,C,H/8,W/8) in scaled space.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .errors import LatentError
from .tiling import map_tiles

METADATA_KEY = "fmboost_codec"


class Codec(Protocol):
    """Whatever turns pictures into scaled latents and back: ours, a TAESD pair, a host's VAE behind an adapter."""

    channels: int
    factor: int

    def encode(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [-1,1] -> scaled latents (B,C,H/factor,W/factor)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> (B,3,H,W), about [-1,1]; the caller clamps."""
        ...


class TinyVAE(nn.Module):
    """An encoder and a decoder that work on pictures in [0,1], as the `Codec` protocol."""

    factor = 8

    def __init__(self, encoder: nn.Module, decoder: nn.Module, channels: int, *, tile: int, reach: int) -> None:
        """tile: larger latents are worked on in tiles of this side; reach: how far each network sees, in latents."""
        super().__init__()
        self.encoder, self.decoder, self.channels = encoder, decoder, channels
        self.tile, self.reach = tile, reach

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        _check_sides(images, self.factor)
        images = (images + 1) / 2
        return map_tiles(self._run(self.encoder), (images,), self.tile, self.reach, in_unit=self.factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return map_tiles(self._run(self.decoder), (latents,), self.tile, self.reach, out_unit=self.factor) * 2 - 1

    def _run(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """The network in its own type and on its own device, its result in the input's."""
        weight = next(network.parameters())
        return lambda x: network(x.to(weight)).to(x)


def _check_sides(images: Tensor, factor: int) -> None:
    if images.shape[-2] % factor or images.shape[-1] % factor or not images.numel():
        height, width = images.shape[-2:]
        raise LatentError(f"A codec takes pictures whose sides are multiples of {factor}, but got {width}x{height}.")


class _TaeBlock(nn.Module):
    """relu(conv(x) + x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu_()


class _SoftClamp(nn.Module):
    """3 tanh(x/3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def taesd(channels: int, width: int = 64) -> TinyVAE:
    """The network of the public tiny VAEs (madebyollin/taesd); the parameter names are those of its files."""
    encoder: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), _TaeBlock(width)]
    decoder: list[nn.Module] = [_SoftClamp(), nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        encoder.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        encoder += [_TaeBlock(width) for _ in range(3)]
        decoder += [_TaeBlock(width) for _ in range(3)]
        decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
    encoder.append(nn.Conv2d(width, channels, 3, padding=1))
    decoder += [_TaeBlock(width), nn.Conv2d(width, 3, 3, padding=1)]
    return TinyVAE(nn.Sequential(*encoder), nn.Sequential(*decoder), channels, tile=64, reach=20)


class _ResidualConv(nn.Module):
    """x + conv(silu(conv(silu(x)))); the identity when fresh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )
        nn.init.zeros_(self.conv[3].weight)
        nn.init.zeros_(self.conv[3].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def tiny_codec(channels: int = 4, width: int = 128, blocks: int = 4, stem: int = 32) -> TinyVAE:
    """Our own codec: nearly all of it at 1/8 resolution, a thin stem at 1/2, 2.5M parameters for both directions.

    It was trained against TAESD and lives in the same scaled latent space.
    """
    body = [_ResidualConv(width) for _ in range(blocks)]
    encoder = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(12, stem, 3, padding=1),
        nn.SiLU(), nn.Conv2d(stem, stem, 3, padding=1),
        nn.SiLU(), nn.PixelUnshuffle(4), nn.Conv2d(16 * stem, width, 1),
        *body, nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1),
    )
    body = [_ResidualConv(width) for _ in range(blocks)]
    decoder = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), *body,
        nn.SiLU(), nn.Conv2d(width, 16 * stem, 1), nn.PixelShuffle(4),
        nn.SiLU(), nn.Conv2d(stem, stem, 3, padding=1),
        nn.SiLU(), nn.Conv2d(stem, 12, 3, padding=1), nn.PixelShuffle(2),
    )
    # A convolution a latent, two a block, and the stem's four half-resolution pixels.
    return TinyVAE(encoder, decoder, channels, tile=128, reach=2 * blocks + 2)


def save_codec(codec: TinyVAE, path: Path, *, license: str, trained_on: str) -> None:
    """Write one of our codecs (`tiny_codec`) in fp16, atomically."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().half().contiguous() for k, v in codec.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {METADATA_KEY: json.dumps({"license": license, "trained_on": trained_on})})
    partial.replace(path)


def load_codec(name: str) -> TinyVAE:
    from safetensors.torch import load_file

    codec = taesd(4)
    codec.encoder.load_state_dict(load_file(f"{name}_encoder.safetensors"))
    codec.decoder.load_state_dict(load_file(f"{name}_decoder.safetensors"))
    return codec.float().eval().requires_grad_(False)
