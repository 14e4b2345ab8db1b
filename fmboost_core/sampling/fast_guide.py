"""The fast guide of a latent: a guide network, in tiles that equal the whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..fallback import with_fallback
from ..networks.guide import GuideNetwork, places
from ..tiles import NOT_TILEABLE, Span, Tileable, grid, window
from .fit import Axis


@torch.no_grad()
def fast_guide(
    network: GuideNetwork,
    latent: Tensor,
    size: tuple[int, int],
    tile: int | None = None,
    tileable: Tileable = NOT_TILEABLE,
) -> Tensor:
    """The guide (B,C,H,W) of a scaled latent (B,C,h,w), for a size (H,W) in latents, in the latent's type.

    tile: side in the guide's latents of the tiles that are worked on; None: all at once. The result is the same.
    tileable: the axes along which the latent continues at its other end.
    """
    rows, columns = (Axis(new, new / old) for new, old in zip(size, latent.shape[-2:], strict=True))
    return fitted_guide(network, latent, (rows, columns), tile, tileable)


@torch.no_grad()
def fitted_guide(
    network: GuideNetwork,
    latent: Tensor,
    axes: tuple[Axis, Axis],
    tile: int | None = None,
    tileable: Tileable = NOT_TILEABLE,
) -> Tensor:
    """`fast_guide` for a guide that lies on the latent as its axes (y, x) say."""
    size = (axes[0].length, axes[1].length)
    out = latent.new_empty(*latent.shape[:2], *size)
    for spans in grid(*size, tile or max(size), network.config.fine_radius, tileable=tileable):
        made = _tile(network, latent, axes, spans, tileable)
        rows, columns = (slice(span.first - span.start, span.last - span.start) for span in spans)
        out[..., spans[0].first : spans[0].last, spans[1].first : spans[1].last] = made[..., rows, columns]
    return out


def _tile(
    network: GuideNetwork, latent: Tensor, axes: tuple[Axis, Axis], spans: tuple[Span, Span], tileable: Tileable
) -> Tensor:
    """The guide of one tile with its overlap, from the part of the latent that it depends on."""
    reach = network.config.coarse_radius + 1  # one more that the interpolation looks at
    ends, at = [], []
    for span, axis, side, periodic in zip(spans, axes, latent.shape[-2:], (tileable.y, tileable.x), strict=True):
        seen = places(axis.ratio, axis.offset, span.start, span.stop)
        start, stop = math.floor(seen[0]) - reach, math.ceil(seen[-1]) + reach + 1
        start, stop = (start, stop) if periodic else (max(0, min(start, side - 1)), min(side, max(stop, 1)))
        ends.append((start, stop))
        at.append(seen - start)

    def run(part: Tensor) -> Tensor:
        return network.at(part.to(next(network.parameters())), *at).to(part)

    return with_fallback("the fast guide", run, window(latent, *ends), module=network)
