"""Overlapping tiles: a tensor is cut into them, and their results are put together. Tileable tensors have no ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError

TILEABLE_CHOICES = ("off", "x", "y", "both")  # for the hosts' lists


class Tileable(NamedTuple):
    """The axes along which a texture continues at its other end: x, from right to left; y, from bottom to top."""

    x: bool = False
    y: bool = False

    def margins(self, margin: int) -> tuple[int, int]:
        """The margin (top and bottom, left and right) that the texture itself continues into; 0 along other axes."""
        return margin * self.y, margin * self.x


NOT_TILEABLE = Tileable()


def parse_tileable(text: str | None) -> Tileable:
    """The axes of "x", "y" or "both"; None and "off" are none. Raises `ConfigError` for anything else."""
    if text is not None and text not in TILEABLE_CHOICES:
        raise ConfigError(f"tileable must be one of {', '.join(TILEABLE_CHOICES)}, but it is {text!r}.")
    return Tileable(text in ("x", "both"), text in ("y", "both"))


def window(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """x[..., rows, columns] of (B,C,h,w). Rows and columns (start, stop) beyond an end are those of the other end."""
    for axis, (start, stop) in ((-2, rows), (-1, columns)):
        length = x.shape[axis]
        if start < 0 or stop > length:
            x = x.index_select(axis, (torch.arange(start, stop) % length).to(x.device))
        else:
            x = x.narrow(axis, start, stop - start)
    return x


def with_margins(x: Tensor, margins: tuple[int, int]) -> Tensor:
    """A tileable (B,C,h,w) with itself around it, (top and bottom, left and right) positions wide."""
    height, width = x.shape[-2:]
    return window(x, (-margins[0], height + margins[0]), (-margins[1], width + margins[1]))


def without_margins(x: Tensor, margins: tuple[int, int]) -> Tensor:
    """The inverse of `with_margins`."""
    height, width = x.shape[-2:]
    return x[..., margins[0] : height - margins[0], margins[1] : width - margins[1]]


@dataclass(frozen=True)
class Span:
    """One tile along one side: the part that is evaluated (start, stop) and the part that is kept (first, last)."""

    start: int
    stop: int
    first: int
    last: int


def spans(length: int, tile: int, overlap: int, *, stride: int = 1, tileable: bool = False) -> list[Span]:
    """Cut a side into the fewest tiles that are evaluated on no more than `tile` and twice `overlap`.

    Each one sees at least `overlap` beyond the part that is kept of it, or all that there is. They are evaluated at one
    size, the smallest that so many can have, so that what one frees in memory fits the next; only the last one is
    smaller where the side is no multiple of `stride`, at whose multiples tiles start. tileable: whether the tiles at
    the ends see beyond them too; `overlap` is then a multiple of `stride` as well.
    """
    least, most = (-overlap, length + overlap) if tileable else (0, length)
    shared = most - least - 2 * overlap
    if shared <= max(tile, stride):
        return [Span(least, most, 0, length)]
    part = rounded_up(_quotient(shared, _quotient(shared, tile)), stride)
    count = _quotient(shared, part)
    starts = [least + rounded_up(_quotient(i * (shared - part), count - 1), stride) for i in range(count)]
    cuts = [0, *(start + overlap for start in starts[1:]), length]
    return [Span(start, min(most, start + part + 2 * overlap), *cuts[i : i + 2]) for i, start in enumerate(starts)]


def _quotient(number: int, by: int) -> int:
    """number / by, rounded up."""
    return -(-number // by)


def rounded_up(number: int, stride: int) -> int:
    """The number, rounded up to a multiple of the stride."""
    return _quotient(number, stride) * stride


def grid(
    height: int, width: int, tile: int, overlap: int, *, stride: int = 1, tileable: Tileable = NOT_TILEABLE
) -> Iterator[tuple[Span, Span]]:
    """All tiles of (height, width), row by row."""
    rows = spans(height, tile, overlap, stride=stride, tileable=tileable.y)
    return product(rows, spans(width, tile, overlap, stride=stride, tileable=tileable.x))


def map_tiles(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    tile: int,
    overlap: int,
    *,
    stride: int = 1,
    in_unit: int = 1,
    out_unit: int = 1,
    tileable: Tileable = NOT_TILEABLE,
) -> Tensor:
    """function(*inputs), tile by tile: inputs (B,C,h,w) -> (B,C',h',w').

    tile, overlap, stride: in latents, as for `spans`. in_unit, out_unit: positions of the inputs and of the output per
    latent (1 for latents, 8 for pixels). tileable: the axes along which tiles at an end overlap with the other end.
    """
    height, width = (side // in_unit for side in inputs[0].shape[-2:])
    out: Tensor | None = None
    for rows, columns in grid(height, width, tile, overlap, stride=stride, tileable=tileable):
        place = [(span.start * in_unit, span.stop * in_unit) for span in (rows, columns)]
        cut = [window(x, *place) for x in inputs]
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
