"""The bundled upscale models, and the host's upscalers of images, such as R-ESRGAN, as the core's upscale models."""

from __future__ import annotations

from typing import Any

import torch
from modules import shared
from torch import Tensor

from fmboost_core.errors import Cancelled, ConfigError
from fmboost_core.sampling.upscale_model import UpscaleModel

from . import host
from .models import AUTOMATIC
from .options import BUNDLED_NAMES, NO_UPSCALE_MODEL

OWN = "FMBoost"  # the name of our own upscalers' class, which the core would call in a circle


def choices() -> list[str]:
    """The names of a dropdown: automatic, none and the bundled ones first, then those of the host."""
    return [AUTOMATIC, NO_UPSCALE_MODEL, *BUNDLED_NAMES, *(data.name for data in _listed())]


def named(name: str | None) -> UpscaleModel | None:
    """The upscale model of this name; None for None. Raises `ConfigError` for one that is not listed."""
    if name is None:
        return None
    if name in BUNDLED_NAMES:
        return host.bundled_upscale_model(BUNDLED_NAMES[name])
    for data in _listed():
        if data.name == name:
            return HostUpscaleModel(data)
    raise ConfigError(f"There is no upscaler {name!r} here; choose one of {', '.join(choices())}.")


def _listed() -> list[Any]:
    """What enlarges images by a network: neither interpolation, which has no folder, nor our own."""
    return [data for data in shared.sd_upscalers if data.data_path and data.scaler.name != OWN]


class HostUpscaleModel:
    """One of the host's upscalers as the core's `UpscaleModel`: in 8 bits, in the host's tiles, with its progress."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __call__(self, image: Tensor) -> Tensor:
        return torch.cat([self._enlarged(single) for single in image.split(1)])

    def _enlarged(self, image: Tensor) -> Tensor:
        """One image (1,3,h,w) in [0,1]. The host gives it back as it is where it is interrupted, and on errors."""
        data, small = self._data, host.to_image(image * 2 - 1)
        large = data.scaler.do_upscale(small, data.data_path)
        if large.size == small.size and data.scale != 1:  # it is None where the host does not know it
            if host.interrupted():
                raise Cancelled("Stopped on request.")
            raise ConfigError(
                f"The upscaler {data.name} did not enlarge the image; choose one that enlarges, or see the console for "
                "its error."
            )
        return host.to_tensor(large).to(image) / 2 + 0.5
