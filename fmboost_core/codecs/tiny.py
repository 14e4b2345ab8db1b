"""Tiny VAEs: the network of the public TAESD files, and the codec of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from ..fallback import with_fallback
from ..networks.blocks import SoftClamp, TinyBlock, zeroed
from ..tiles import map_tiles
from .protocol import check_sides


class TinyVAE(nn.Module):
    """An encoder and a decoder over images in [0,1], as a `Codec`.

    Larger latents than `tile` are worked on in tiles that overlap by the networks' receptive radius, so that the
    result is that of the whole.
    """

    downscale_factor = 8

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        channels: int,
        *,
        tile: int,
        radius: int,
        family: str | None = None,
    ) -> None:
        """tile: side of the tiles in latents. radius: receptive radius of both networks in latents."""
        super().__init__()
        self.encoder, self.decoder, self.channels = encoder, decoder, channels
        self.tile, self.radius = tile, radius
        self.name, self.family = "", cast("str | None", None)  # `load_codec` tells them

    def encode(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [-1,1] -> scaled latents (B,C,H/8,W/8). Raises `LatentError` for other sides."""
        check_sides(images, self.downscale_factor)
        run = _in_own_type(self.encoder, "encoding")
        # The range changes within each tile, so that no second copy of a large image is made.
        return map_tiles(lambda x: run((x + 1) / 2), (images,), self.tile, self.radius, in_unit=self.downscale_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,C,h,w) -> images (B,3,8h,8w), about in [-1,1]."""
        run = _in_own_type(self.decoder, "decoding")
        return map_tiles(lambda z: run(z) * 2 - 1, (latents,), self.tile, self.radius, out_unit=self.downscale_factor)


def _in_own_type(network: nn.Module, step: str) -> Callable[[Tensor], Tensor]:
    """The network in its own type and on its own device; its result is of the input's type and device."""

    def run(x: Tensor) -> Tensor:
        return cast("Tensor", network(x.to(next(network.parameters())))).to(x)

    return lambda x: with_fallback(step, run, x, module=network)


def taesd(channels: int, width: int = 64) -> TinyVAE:
    """The network of the public tiny VAEs (madebyollin/taesd), with the parameter names of their files."""
    encoder: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), TinyBlock(width)]
    decoder: list[nn.Module] = [SoftClamp(), nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        encoder.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        encoder += [TinyBlock(width) for _ in range(3)]
        decoder += [TinyBlock(width) for _ in range(3)]
        decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
    encoder.append(nn.Conv2d(width, channels, 3, padding=1))
    decoder += [TinyBlock(width), nn.Conv2d(width, 3, 3, padding=1)]
    return TinyVAE(nn.Sequential(*encoder), nn.Sequential(*decoder), channels, tile=64, radius=20)


class _ResidualConv(nn.Module):
    """x + conv(silu(conv(silu(x)))); a new block is the identity."""

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
    """Our own codec: most layers at 1/8 resolution, a thin stem at 1/2, 2.5M parameters for both directions.

    channels: of the latents. width: channels at 1/8 resolution. blocks: residual blocks each way. stem: channels of
    the stem.
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
    # One convolution of the latents, two in each block, and the stem, which reaches four half-resolution pixels.
    return TinyVAE(encoder, decoder, channels, tile=128, radius=2 * blocks + 2)
