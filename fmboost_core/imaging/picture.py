"""`Picture`: the pixels of an image file and what is needed to write them as they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
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

    @property
    def pixels(self) -> Tensor:
        """(1,3 or 4,H,W) in [-1,1]: the colours, and alpha if there is one."""
        return self.rgb if self.alpha is None else torch.cat([self.rgb, self.alpha * 2 - 1], dim=1)

    def with_pixels(self, pixels: Tensor) -> Picture:
        """A copy with other pixels (1,3 or 4,H,W) in [-1,1], of any size."""
        alpha = (pixels[:, 3:] + 1) / 2 if pixels.shape[1] == 4 else None
        return replace(self, rgb=pixels[:, :3], alpha=alpha)

    def with_step(self, step: Mapping[str, str]) -> Picture:
        """A copy whose recipe, if it has one, names a further step by settings (`Metadata.with_step`)."""
        return replace(self, metadata=self.metadata.with_step(step))
