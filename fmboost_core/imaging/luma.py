"""Luma and its weights. Without Pillow, which an import of the core does not load."""

from __future__ import annotations

from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as in Pillow's conversion to grey


def luma(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W), Rec. 601."""
    red, green, blue = image.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
