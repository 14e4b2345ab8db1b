"""`Picture`: the pixels of an image file and what is needed to write them as they came."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """An image file's content, display-referred: pixel values are those of the file.

    rgb: (1,3,H,W) float in [-1,1]. alpha: (1,1,H,W) in [0,1], None for an opaque image. Where alpha is 0, rgb holds
    the colours of the visible neighbours.
    grey: the file has no colour, and none is written. deep: the file is grey with 16 bits.
    icc: the ICC profile, exif: the EXIF data without the orientation, both as bytes of the file.
    notes: what reading lost, as clauses for people.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    grey: bool = False
    deep: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
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
