"""What enlarges pictures: the host's upscale models, such as Real-ESRGAN, and the bundled ones, as the core's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..fmboost_core.files.locate import BUNDLED_UPSCALE_MODELS
from ..fmboost_core.files.upscale_network import FIRST_OF_COMPACT, FIRST_OF_RRDB
from ..fmboost_core.files.weight_file import open_weights
from ..fmboost_core.sampling.options import BEHIND_BUNDLED, BEHIND_OTHERS
from ..fmboost_core.sampling.widgets import OWN_METHOD
from . import host


class HostUpscaleModel:
    """The host's upscale model as the core's `UpscaleModel`, by the host's node, which moves it and cuts tiles."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.behind = BEHIND_BUNDLED if _is_bundled(model) else BEHIND_OTHERS

    def __call__(self, image: Tensor) -> Tensor:
        from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel  # hosts can leave their extra nodes out

        large: Tensor = ImageUpscaleWithModel().upscale(self._model, image.movedim(1, -1))[0]
        return large.movedim(-1, 1).to(image)


class BundledUpscaleModel:
    """A bundled upscale model, which is loaded when it is first used."""

    behind = BEHIND_BUNDLED

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, image: Tensor) -> Tensor:
        model = _loaded(self._name)

        def run(tile: int | str | None) -> Tensor:
            return model.in_tiles(int(tile or model.tile))(image)

        return host.with_smaller_tiles(run, model.tile, unit="pixels")


_loaded = cache(host.load_bundled_upscale_model)


def upscale_model_for(
    connected: Any, method: str, own_guide: str, bundled: str
) -> HostUpscaleModel | BundledUpscaleModel | None:
    """What enlarges the pictures that guides are made of; None: interpolation, or no picture is needed.

    connected: what an input of an upscale model holds; None where nothing is connected. Then the method auto takes a
    bundled one, of this name. method: of its widget. own_guide: the guide method of FMBoost's model.
    """
    if not is_enlarged(connected, method, own_guide):
        return None
    return BundledUpscaleModel(bundled) if connected is None else HostUpscaleModel(connected)


def is_enlarged(connected: Any, method: str, own_guide: str) -> bool:
    """Whether an upscale model enlarges the pictures that guides are made of; the arguments are the same."""
    return connected is not None or (method == OWN_METHOD and own_guide == "psu")


def _is_bundled(model: Any) -> bool:
    """Whether the host has loaded a bundled upscale model: it does not tell the file's name."""
    weights = dict(getattr(getattr(model, "model", None), "named_parameters", dict)())
    return any(_begins_like(path, weights) for path in BUNDLED_UPSCALE_MODELS.glob("*.safetensors"))


def _begins_like(path: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether the first convolution of these weights is that of a file, which the host may have under other names."""
    found = next(iter(weights.values()), torch.empty(0)).detach().cpu().float()
    with open_weights(path) as file:
        ours = file.entries.get(FIRST_OF_COMPACT) or file.entries[FIRST_OF_RRDB]
        return ours.shape == found.shape and torch.allclose(found, ours.read().float(), atol=1e-3)
