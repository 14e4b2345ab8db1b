"""How a guide lies on the small latent: which place of the one is which place of the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..imaging.resample import covering
from ..tiles import NOT_TILEABLE, Tileable


@dataclass(frozen=True)
class Axis:
    """One axis of a guide on that of the small latent.

    length: the guide's, in latents. ratio: latents of the guide for one of the small latent. offset: latents of the
    enlarged whole that are cropped before the guide begins. Latents are of images whose sides need not fill them, so
    that ratio and offset may be any fraction.
    """

    length: int
    ratio: float
    offset: float = 0.0

    def is_plain(self, side: int) -> bool:
        """Whether the guide is a small latent of that side as a whole."""
        return self.offset == 0 and abs(side * self.ratio - self.length) < 1e-6

    @property
    def cropped(self) -> int:
        """Whole latents of the enlarged whole before the guide."""
        return math.floor(self.offset)

    def whole(self, side: int) -> Axis:
        """The axis of all that a small latent of that side shows, before and after the guide too."""
        after = max(self.length, math.ceil(side * self.ratio - self.offset - 1e-6))
        return Axis(self.cropped + after, self.ratio, self.offset - self.cropped)


def fit(
    start: tuple[int, int], end: tuple[int, int], unit: int, distort: bool = True, tileable: Tileable = NOT_TILEABLE
) -> tuple[Axis, Axis]:
    """The axes (y, x) of the guide of an image of end (height, width) in pixels, on the latent of one of start.

    unit: pixels per latent. distort: whether another aspect is distorted; otherwise the image covers the size and is
    cropped at the centre, as `resample.cover` does. tileable: the axes along which the image is; it fills its latents
    there.
    """
    full = end if distort else covering(start, end)

    def axis(old: int, new: int, whole: int, periodic: bool) -> Axis:
        length = math.ceil(new / unit)
        if periodic:
            return Axis(length, length / math.ceil(old / unit))
        return Axis(length, whole / old, (whole - new) // 2 / unit)

    y, x = map(axis, start, end, full, (tileable.y, tileable.x))
    return y, x
