"""Between pictures and scaled latents: the `Codec` protocol and the two tiny VAEs that implement it.

Pictures are (B,3,H,W) in [-1,1], H and W multiples of `factor`; latents (B,C,H/8,W/8) in scaled space.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..networks.blocks import zeroed
from ..tiles import map_tiles
from .protocol import check_sides


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
        check_sides(images, self.factor)
        run = self._run(self.encoder)
        # The range is changed within each tile, so that no second copy of a large picture is made.
        return map_tiles(lambda x: run((x + 1) / 2), (images,), self.tile, self.reach, in_unit=self.factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        run = self._run(self.decoder)
        return map_tiles(lambda z: run(z) * 2 - 1, (latents,), self.tile, self.reach, out_unit=self.factor)

    def _run(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """The network in its own type and on its own device, its result in the input's."""
        weight = next(network.parameters())
        return lambda x: network(x.to(weight)).to(x)


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
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv2d(width, width, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def tiny_codec(channels: int = 4, width: int = 128, blocks: int = 4, stem: int = 32) -> TinyVAE:
    """Our own codec: nearly all of it at 1/8 resolution, a thin stem at 1/2, 2.5M parameters for both directions.

    It was trained against TAESD and lives in the same scaled latent space.
    """
    body = [_ResidualConv(width) for _ in range(blocks)]
    encoder = nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(12, stem, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(stem, stem, 3, padding=1),
        nn.SiLU(),
        nn.PixelUnshuffle(4),
        nn.Conv2d(16 * stem, width, 1),
        *body,
        nn.SiLU(),
        nn.Conv2d(width, channels, 3, padding=1),
    )
    body = [_ResidualConv(width) for _ in range(blocks)]
    decoder = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        *body,
        nn.SiLU(),
        nn.Conv2d(width, 16 * stem, 1),
        nn.PixelShuffle(4),
        nn.SiLU(),
        nn.Conv2d(stem, stem, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(stem, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )
    # A convolution a latent, two a block, and the stem's four half-resolution pixels.
    return TinyVAE(encoder, decoder, channels, tile=128, reach=2 * blocks + 2)
