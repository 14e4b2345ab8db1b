"""Tiling of the network's evaluations: memory stays flat at any output size.

A convolutional network has a finite receptive radius, 100 latents for `lite`. Tiles that overlap by it equal the whole,
as long as they start on multiples of the network's stride. The default overlap of 32 latents is enough for the bundled
weights: research/tiling.md has the error against the overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from ..networks import NetworkConfig
from ..networks.conditioning import Conditioning
from ..tiles import NOT_TILEABLE, Tileable, grid, map_tiles, rounded_up

AUTO_TILE = 192  # latents; "auto" cuts outputs with a side above 1.5 such tiles
DEFAULT_OVERLAP = 32  # latents
FIRST_SMALLER_TILE, SMALLEST_TILE = 64, 32  # to try when memory runs out: by default, and at last
TILE_CHOICES = ("auto", "off", "48", "64", "96", "128", "192", "256")  # for the hosts' lists

Result = TypeVar("Result")


@dataclass(frozen=True)
class Tiling:
    """Side and overlap of the tiles in latents, both multiples of the network's stride, at which tiles start too.

    tileable: the axes along which tiles at an end overlap with the other end.
    """

    tile: int
    overlap: int
    stride: int
    tileable: Tileable = NOT_TILEABLE

    def count(self, height: int, width: int) -> int:
        """Number of tiles of a latent."""
        tiles = grid(height, width, self.tile, self.overlap, stride=self.stride, tileable=self.tileable)
        return sum(1 for _ in tiles)


def choose_tiling(
    config: NetworkConfig,
    height: int,
    width: int,
    tile: int | str | None,
    overlap: int | None = None,
    tileable: Tileable = NOT_TILEABLE,
) -> Tiling:
    """The tiling of a latent (height, width). tile: "auto", None (no tiles), or a side in latents.

    "auto" cuts only what is larger than 1.5 `AUTO_TILE` on a side. No tile is evaluated on more than the side and
    twice the overlap (`spans`), which is `DEFAULT_OVERLAP` unless given, and at most the network's receptive radius
    where that is finite. A tileable latent that is not cut is one tile, which overlaps with itself.
    """
    stride = config.stride
    whole = rounded_up(max(height, width), stride)
    if tile is None or (tile == "auto" and auto_tile(height, width) is None):
        return Tiling(whole, _overlap(config, overlap) if any(tileable) else 0, stride, tileable)
    side = AUTO_TILE if tile == "auto" else tile
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise ConfigError(f'tile must be "auto", None or a whole number of latents above 0, but it is {tile!r}.')
    return Tiling(min(whole, rounded_up(side, stride)), _overlap(config, overlap), stride, tileable)


def auto_tile(height: int, width: int) -> int | None:
    """The side of the tiles that "auto" stands for in a latent (height, width); None: no tiles."""
    return AUTO_TILE if max(height, width) > AUTO_TILE * 3 // 2 else None


def _overlap(config: NetworkConfig, overlap: int | None) -> int:
    """The overlap that is asked for, or `DEFAULT_OVERLAP`, rounded up to the network's stride."""
    overlap = DEFAULT_OVERLAP if overlap is None else overlap
    if isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0:
        raise ConfigError(f"overlap must be a whole number of latents, 0 or more, but it is {overlap!r}.")
    if config.is_exact_in_tiles:
        overlap = min(overlap, config.receptive_radius)
    return rounded_up(overlap, config.stride)


def parse_tile(text: str) -> int | str | None:
    """The `tile` of `choose_tiling` from text: auto, off or a number of latents."""
    if text == "off":
        return None
    if text == "auto":
        return text
    if not text.isdecimal() or len(text) > 6 or int(text) == 0:
        raise ConfigError(f"tile must be auto, off or a whole number of latents above 0, but it is {text!r}.")
    return int(text)


def in_smaller_tiles(
    run: Callable[[int | str | None], Result],
    tile: int | str | None,
    is_out_of_memory: Callable[[Exception], bool],
    before_retry: Callable[[int], None],
) -> Result:
    """run(tile); when memory runs out, again with `FIRST_SMALLER_TILE` or half the tile, down to `SMALLEST_TILE`.

    before_retry(tile) is called with the smaller tile before each retry, to free memory and to tell about it. Any other
    error is raised, and so is the last out-of-memory error.
    """
    while True:
        try:
            return run(tile)
        except Exception as error:
            smaller = max(SMALLEST_TILE, tile // 2 if isinstance(tile, int) else FIRST_SMALLER_TILE)
            if not is_out_of_memory(error) or (isinstance(tile, int) and tile <= smaller):
                raise
        # Outside of `except`: the traceback would keep the tensors of the failed run alive.
        before_retry(smaller)
        tile = smaller


@torch.no_grad()
def tiled_velocity(
    velocity: Callable[[Tensor, float, Conditioning], Tensor],
    x: Tensor,
    t: float,
    conditioning: Conditioning,
    tiling: Tiling,
    on_tile: Callable[[], None],
) -> Tensor:
    """velocity(x, t, conditioning), tile by tile. on_tile() is called after each tile, and may raise to cancel."""

    def evaluate(x: Tensor, guide: Tensor) -> Tensor:
        result = velocity(x, t, conditioning._replace(guide=guide))
        on_tile()
        return result

    return map_tiles(
        evaluate, (x, conditioning.guide), tiling.tile, tiling.overlap, stride=tiling.stride, tileable=tiling.tileable
    )
