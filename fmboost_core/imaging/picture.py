"""`Picture`: the pixels of an image file and what is needed to write them as they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from .metadata import Metadata


@dataclass(frozen=True)
class Picture:
    """An image file's content, display-referred: pixel values are those of the file.

    rgb: (1,3,H,W) float in [-1,1]. alpha: (1,1,H,W) in [0,1], None for an opaque image. Where alpha is 0, rgb holds
    the colours of the visible neighbours.
    grey: the file has no colour, and none is written. deep: the file has more than 8 bits a channel; 16 are written.
    lossless: the file keeps each pixel as it was. metadata: what the file carries beside the pixels.
    notes: what reading lost, as clauses for people.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    grey: bool = False
    deep: bool = False
    lossless: bool = False
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return self.rgb.shape[-1]

    @property
    def height(self) -> int:
        return self.rgb.shape[-2]

    def with_pixels(self, rgb: Tensor, alpha: Tensor | None) -> Picture:
        """A copy with other pixels, of any size."""
        return replace(self, rgb=rgb, alpha=alpha)

    def with_step(self, step: Mapping[str, str]) -> Picture:
        """A copy whose recipe, if it has one, names a further step by settings (`Metadata.with_step`)."""
        return replace(self, metadata=self.metadata.with_step(step))
