"""The fast guide of a latent: a guide network, in tiles that equal the whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..fallback import with_fallback
from ..networks.guide import GuideNetwork, places
from ..tiles import NOT_TILEABLE, Span, Tileable, grid, window


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
    out = latent.new_empty(*latent.shape[:2], *size)
    for spans in grid(*size, tile or max(size), network.config.fine_radius, tileable=tileable):
        made = _tile(network, latent, size, spans, tileable)
        rows, columns = (slice(span.first - span.start, span.last - span.start) for span in spans)
        out[..., spans[0].first : spans[0].last, spans[1].first : spans[1].last] = made[..., rows, columns]
    return out


def _tile(
    network: GuideNetwork, latent: Tensor, size: tuple[int, int], spans: tuple[Span, Span], tileable: Tileable
) -> Tensor:
    """The guide of one tile with its overlap, from the part of the latent that it depends on."""
    reach = network.config.coarse_radius + 1  # one more that the interpolation looks at
    ends, at = [], []
    for span, new, side, periodic in zip(spans, size, latent.shape[-2:], (tileable.y, tileable.x), strict=True):
        first, last = ((i + 0.5) * side / new - 0.5 for i in (span.start, span.stop - 1))
        start, stop = math.floor(first) - reach, math.ceil(last) + reach + 1
        start, stop = (start, stop) if periodic else (max(0, start), min(side, stop))
        ends.append((start, stop))
        at.append(places(new, side, span.start, span.stop) - start)

    def run(part: Tensor) -> Tensor:
        return network.at(part.to(next(network.parameters())), *at).to(part)

    return with_fallback("the fast guide", run, window(latent, *ends), module=network)
