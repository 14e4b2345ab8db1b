"""Big latents in tiles with a halo, so that memory stays flat and, with the full halo, nothing changes.

A convolutional network sees only so far (`receptive_radius`). A tile that is evaluated with that much of its
surroundings and cut back is what the whole would have given there, as long as tiles start on the network's stride.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from ..networks.config import UNetConfig
from ..tiles import map_tiles

AUTO_TILE = 192  # latents; larger outputs than 1.5 such tiles a side are cut in "auto"
DEFAULT_HALO = 24  # docs/tiling.md: error against halo
SMALLEST_TILE = 32  # what a device without memory is last asked for
TILE_CHOICES = ("auto", "off", "48", "64", "96", "128", "192", "256")  # where a list is shown

Result = TypeVar("Result")


def receptive_radius(config: UNetConfig) -> int:
    """How many latents away an input can still reach an output, rounded up to the total stride.

    Counts the 3x3 convolutions (radius 2^level each); only meaningful without attention and with norm "channel".
    """
    top = len(config.multipliers) - 1
    radius = 2  # the first and the last convolution
    for level in range(top + 1):
        radius += (2 * config.res_blocks + 2 * (config.res_blocks + 1)) * 2**level
    radius += 4 * 2**top  # the middle
    radius += sum(2**level for level in range(top))  # down: stride 2 at the finer level
    radius += sum(2**level for level in range(top))  # up: a convolution at the finer level
    radius += config.stride - 1  # nearest-neighbour upsampling rounds positions to the stride
    return -(-radius // config.stride) * config.stride


def is_exact(config: UNetConfig) -> bool:
    """Whether tiles with the full halo equal the whole: no attention, and a norm of single positions."""
    return config.norm == "channel" and not config.has_attention


@dataclass(frozen=True)
class Tiling:
    """Tile and halo in latents, both multiples of the network's stride."""

    tile: int
    halo: int

    def count(self, height: int, width: int) -> int:
        """Number of tiles of a latent."""
        return -(-height // self.tile) * -(-width // self.tile)


def choose_tiling(
    config: UNetConfig, height: int, width: int, tile: int | str | None, halo: int | None = None
) -> Tiling:
    """The tiling of a latent (height, width). tile: "auto", None (never), or a side in latents.

    "auto" cuts only what is larger than 1.5 `AUTO_TILE` on a side. The halo is `DEFAULT_HALO` unless given, at most
    the network's receptive radius where that is finite.
    """
    stride = config.stride
    whole = -(-max(height, width) // stride) * stride
    if tile is None or (tile == "auto" and max(height, width) <= AUTO_TILE * 3 // 2):
        return Tiling(whole, 0)
    side = AUTO_TILE if tile == "auto" else tile
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise ConfigError(f'tile must be "auto", None or a whole number of latents above 0, but it is {tile!r}.')
    halo = DEFAULT_HALO if halo is None else halo
    if halo < 0:
        raise ConfigError(f"halo must be 0 latents or more, but it is {halo!r}.")
    if is_exact(config):
        halo = min(halo, receptive_radius(config))
    return Tiling(min(whole, -(-side // stride) * stride), -(-halo // stride) * stride)


def parse_tile(text: str) -> int | str | None:
    """The `tile` of `choose_tiling` as people write it: auto, off or a number of latents."""
    if text == "off":
        return None
    if text == "auto":
        return text
    if not text.isdecimal() or len(text) > 6 or int(text) == 0:
        raise ConfigError(f"A tile is auto, off or a whole number of latents above 0, but it is {text!r}.")
    return int(text)


def in_smaller_tiles(
    run: Callable[[int | str | None], Result],
    tile: int | str | None,
    is_out_of_memory: Callable[[Exception], bool],
    before_again: Callable[[int], None],
) -> Result:
    """run(tile); each time memory runs out, once more with half the tile, down to `SMALLEST_TILE`.

    before_again(tile) is called with the smaller tile before another try, to free memory and to tell about it.
    Whatever else goes wrong, or is out of memory at the last, is raised.
    """
    while True:
        try:
            return run(tile)
        except Exception as error:
            smaller = max(SMALLEST_TILE, (tile if isinstance(tile, int) else AUTO_TILE) // 2)
            if not is_out_of_memory(error) or tile == smaller:
                raise
        # Outside of `except`, whose traceback holds the tensors of the try.
        before_again(smaller)
        tile = smaller


@torch.no_grad()
def tiled_velocity(
    velocity: Callable[[Tensor, float, Tensor], Tensor],
    x: Tensor,
    t: float,
    guide: Tensor,
    tiling: Tiling,
    on_tile: Callable[[], None],
) -> Tensor:
    """velocity(x, t, guide) tile by tile; on_tile() is called after each, and may raise to cancel."""

    def one(x: Tensor, guide: Tensor) -> Tensor:
        result = velocity(x, t, guide)
        on_tile()
        return result

    return map_tiles(one, (x, guide), tiling.tile, tiling.halo)
