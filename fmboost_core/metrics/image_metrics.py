"""Metrics of an image and its reference image, by name.

`meanings.METRICS` says how to read each; only "lpips" uses a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..errors import ImageError
from .distances import overshoot
from .fidelity import gmsd, haarpsi, mse, psnr, ssim
from .lpips import lpips
from .meanings import check_names
from .texture import colour, colour_shift, detail, spectrum, swd

SMALLEST = 16  # pixels a side: HaarPSI's largest wavelet on the halved image

FUNCTIONS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "psnr": psnr, "ssim": ssim, "mse": mse, "gmsd": gmsd, "haarpsi": haarpsi,
    "swd": swd, "spectrum": spectrum, "detail": detail,
    "overshoot": lambda image, reference: 100 * float(overshoot(image, reference)), "colour": colour,
    "red": lambda image, reference: colour_shift(image, reference)[0],
    "green": lambda image, reference: colour_shift(image, reference)[1],
    "blue": lambda image, reference: colour_shift(image, reference)[2],
    "lpips": lpips,
}  # fmt: skip


def measure(image: Tensor, reference: Tensor, names: Iterable[str]) -> dict[str, float]:
    """The named metrics of an image and its reference, both (1,3,H,W) in [-1,1], clamped by the caller.

    Raises ConfigError for an unknown name; ImageError for two sizes, sides below `SMALLEST`, NaN and infinity.
    """
    names = check_names(names)
    _check_images(image, reference)
    with torch.no_grad():
        return {name: FUNCTIONS[name](image, reference) for name in names}


def _check_images(image: Tensor, reference: Tensor) -> None:
    for x in (image, reference):
        if x.ndim != 4 or x.shape[:2] != (1, 3):
            raise ImageError(f"An image to measure must be (1, 3, height, width), but it is {tuple(x.shape)}.")
    (height, width), (true_height, true_width) = image.shape[-2:], reference.shape[-2:]
    if (height, width) != (true_height, true_width):
        raise ImageError(
            f"The image is {width}x{height} and its reference {true_width}x{true_height}; only equal sizes compare."
        )
    if min(height, width) < SMALLEST:
        raise ImageError(f"The image is {width}x{height}; metrics need at least {SMALLEST} pixels a side.")
    if not bool(torch.isfinite(image).all() and torch.isfinite(reference).all()):
        raise ImageError("An image to measure holds NaN or infinity; metrics need finite values.")
