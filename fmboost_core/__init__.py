"""FMBoost: carry the small latent of a diffusion model to a large one with coupling flow matching.

    from fmboost_core import boost, load_codec, load_model

    model, codec = load_model("sd15-x2"), load_codec("builtin")
    large = boost(small, model, codec, scale=2, nfe=4, seed=0)  # (B,4,h,w) scaled latents -> (B,4,2h,2w)

`pipeline.py` tells the whole story. The names below are imported when they are first used, so that
`python -m fmboost_core --help` need not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `as` makes them public to type checkers
    from .codecs.load import load_codec as load_codec
    from .codecs.protocol import Codec as Codec
    from .errors import (
        Cancelled as Cancelled,
        CheckpointError as CheckpointError,
        ConfigError as ConfigError,
        FMBoostError as FMBoostError,
        ImageError as ImageError,
        LatentError as LatentError,
        MissingDependencyError as MissingDependencyError,
        NonFiniteError as NonFiniteError,
    )
    from .families import FAMILIES as FAMILIES, LatentFamily as LatentFamily
    from .files.checkpoint import load_model as load_model
    from .model import Model as Model
    from .networks.config import PRESETS as PRESETS, UNetConfig as UNetConfig
    from .sampling.hooks import Stage as Stage
    from .sampling.restore import restored as restored
    from .sampling.schedule import (
        alpha_bar as alpha_bar,
        attention_scale as attention_scale,
        noise_augment as noise_augment,
    )
    from .sampling.upscaler import boost as boost, flow as flow, upscale_image as upscale_image
    from .spec import ModelSpec as ModelSpec

__version__ = "0.1.0"

_ROOMS = {
    "codecs.load": ("load_codec",),
    "codecs.protocol": ("Codec",),
    "errors": (
        "Cancelled", "CheckpointError", "ConfigError", "FMBoostError", "ImageError", "LatentError",
        "MissingDependencyError", "NonFiniteError",
    ),
    "families": ("FAMILIES", "LatentFamily"),
    "files.checkpoint": ("load_model",),
    "model": ("Model",),
    "networks.config": ("PRESETS", "UNetConfig"),
    "sampling.hooks": ("Stage",),
    "sampling.restore": ("restored",),
    "sampling.schedule": ("alpha_bar", "attention_scale", "noise_augment"),
    "sampling.upscaler": ("boost", "flow", "upscale_image"),
    "spec": ("ModelSpec",),
}  # fmt: skip
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [*_ROOM_OF]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOM_OF])
