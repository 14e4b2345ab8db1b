"""Between pictures and scaled latents: the `Codec` protocol and the two tiny VAEs that implement it.

Pictures are (B,3,H,W) in [-1,1], H and W multiples of `factor`; latents (B,C,H/8,W/8) in scaled space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .blocks import zeroed
from .errors import CheckpointError, LatentError
from .tiling import map_tiles
from .weight_file import WEIGHTS, load_strictly, open_weights, save_weights

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


def check_sides(images: Tensor, factor: int) -> None:
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


def save_codec(codec: TinyVAE, path: Path, *, license: str, trained_on: str) -> None:
    """Write one of our own codecs (`tiny_codec`) in fp16, whole or not at all."""
    metadata = {METADATA_KEY: json.dumps({"license": license, "trained_on": trained_on})}
    save_weights(path, codec, metadata, torch.float16)


def load_codec(name: str | Path) -> TinyVAE:
    """A codec on the CPU, in float32: "builtin" (ours, SD1.5's space), a file of ours, or a TAESD pair.

    The pair is `NAME_encoder.safetensors` and `NAME_decoder.safetensors`. Raises `CheckpointError` that names the
    file and what is wrong with it.
    """
    path = WEIGHTS / "codec-sd15.safetensors" if str(name) == "builtin" else Path(name)
    codec = _load_pair(path) if path.suffix != ".safetensors" else _load_own(path)
    return codec.eval().requires_grad_(False)


def _load_own(path: Path) -> TinyVAE:
    with open_weights(path) as file:
        if METADATA_KEY not in file.metadata:
            raise CheckpointError(f"{path} is no codec of FMBoost; of a TAESD pair, give what both names begin with.")
        first, last = "encoder.1.weight", f"encoder.{len(_own_body(file.entries)) + 8}.weight"
        missing = [key for key in (first, last) if key not in file.entries or len(file.entries[key].shape) != 4]
        if missing:
            raise CheckpointError(f"{path} is no whole codec: {', '.join(missing)} missing or misshapen.")
        stem, (channels, width) = file.entries[first].shape[0], file.entries[last].shape[:2]
        with torch.device("meta"):
            codec = tiny_codec(channels, width, len(_own_body(file.entries)), stem)
        load_strictly(path, codec, file.entries)
    return codec


def _own_body(names: Iterable[str]) -> set[str]:
    """The encoder's residual blocks among the names of one of our codecs."""
    return {name.split(".")[1] for name in names if name.startswith("encoder.") and ".conv." in name}


def _load_pair(prefix: Path) -> TinyVAE:
    """The channels are those of the decoder's first convolution."""
    paths = {part: prefix.with_name(f"{prefix.name}_{part}.safetensors") for part in ("encoder", "decoder")}
    with open_weights(paths["encoder"]) as encoder, open_weights(paths["decoder"]) as decoder:
        first = decoder.entries.get("1.weight")
        if first is None or len(first.shape) != 4:
            raise CheckpointError(f"{decoder.path} is no decoder of a tiny VAE: 1.weight is missing.")
        with torch.device("meta"):
            codec = taesd(channels=first.shape[1], width=first.shape[0])
        load_strictly(encoder.path, codec.encoder, encoder.entries)
        load_strictly(decoder.path, codec.decoder, decoder.entries)
    return codec
