"""Overlapping tiles: a tensor is cut into them, and their results are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile along one side: the part that is evaluated (start, stop) and the part that is kept (first, last)."""

    start: int
    stop: int
    first: int
    last: int


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Cut a side into parts of at most `tile`; each tile reaches up to `overlap` beyond its own part."""
    return [
        Span(max(0, first - overlap), min(length, first + tile + overlap), first, min(length, first + tile))
        for first in range(0, length, tile)
    ]


def grid(height: int, width: int, tile: int, overlap: int) -> Iterator[tuple[Span, Span]]:
    """All tiles of (height, width), row by row."""
    return product(spans(height, tile, overlap), spans(width, tile, overlap))


def map_tiles(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    tile: int,
    overlap: int,
    *,
    in_unit: int = 1,
    out_unit: int = 1,
) -> Tensor:
    """function(*inputs), tile by tile: inputs (B,C,h,w) -> (B,C',h',w').

    tile, overlap: in latents. in_unit, out_unit: positions of the inputs and of the output per latent (1 for latents,
    8 for pixels).
    """
    height, width = (side // in_unit for side in inputs[0].shape[-2:])
    out: Tensor | None = None
    for rows, columns in grid(height, width, tile, overlap):
        cut = [
            x[..., rows.start * in_unit : rows.stop * in_unit, columns.start * in_unit : columns.stop * in_unit]
            for x in inputs
        ]
        result = function(*cut)
        if out is None:
            out = result.new_empty(*result.shape[:2], height * out_unit, width * out_unit)
        top, left = (rows.first - rows.start) * out_unit, (columns.first - columns.start) * out_unit
        kept = result[
            ...,
            top : top + (rows.last - rows.first) * out_unit,
            left : left + (columns.last - columns.first) * out_unit,
        ]
        out[
            ...,
            rows.first * out_unit : rows.last * out_unit,
            columns.first * out_unit : columns.last * out_unit,
        ] = kept
    assert out is not None  # grid() has at least one tile
    return out
