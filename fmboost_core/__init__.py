"""FMBoost: upscale the small latents of a diffusion model with coupling flow matching.

    from fmboost_core import boost, load_codec, load_model

    model, codec = load_model("sd15-x2"), load_codec("builtin")
    large = boost(small, model, codec, scale=2, seed=0)  # (B,4,h,w) scaled latents -> (B,4,2h,2w)

`sampling/upscaler.py` names the steps of the method and their files. The names below are imported at their first use,
so that `fmboost --help` does not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `as` makes them public to type checkers
    from .codecs.autoencoder import DiffusersCodec as DiffusersCodec
    from .codecs.load import load_codec as load_codec
    from .codecs.protocol import Codec as Codec
    from .errors import (
        Cancelled as Cancelled,
        CheckpointError as CheckpointError,
        ConfigError as ConfigError,
        FileError as FileError,
        FMBoostError as FMBoostError,
        ImageError as ImageError,
        LatentError as LatentError,
        MissingDependencyError as MissingDependencyError,
        NonFiniteError as NonFiniteError,
    )
    from .families import FAMILIES as FAMILIES, LatentFamily as LatentFamily, register_family as register_family
    from .files.checkpoint import load_model as load_model
    from .files.upscale_model import load_upscale_model as load_upscale_model
    from .model import Model as Model
    from .networks import NETWORKS as NETWORKS, PRESETS as PRESETS, UNetConfig as UNetConfig
    from .networks.conditioning import Conditioning as Conditioning
    from .sampling.attention import attention_scale as attention_scale
    from .sampling.hooks import Hooks as Hooks, Stage as Stage
    from .sampling.options import SamplingOptions as SamplingOptions
    from .sampling.restore import restored as restored
    from .sampling.schedule import alpha_bar as alpha_bar, noise_augment as noise_augment
    from .sampling.target import Target as Target
    from .sampling.upscale_model import UpscaleModel as UpscaleModel
    from .sampling.upscaler import (
        Upscaler as Upscaler,
        boost as boost,
        flow as flow,
        upscale_image as upscale_image,
    )
    from .spec import ModelSpec as ModelSpec

__version__ = "0.2.0"

_MODULES = {
    "codecs.autoencoder": ("DiffusersCodec",),
    "codecs.load": ("load_codec",),
    "codecs.protocol": ("Codec",),
    "errors": (
        "Cancelled", "CheckpointError", "ConfigError", "FMBoostError", "FileError", "ImageError", "LatentError",
        "MissingDependencyError", "NonFiniteError",
    ),
    "families": ("FAMILIES", "LatentFamily", "register_family"),
    "files.checkpoint": ("load_model",),
    "files.upscale_model": ("load_upscale_model",),
    "model": ("Model",),
    "networks": ("NETWORKS", "PRESETS", "UNetConfig"),
    "networks.conditioning": ("Conditioning",),
    "sampling.attention": ("attention_scale",),
    "sampling.hooks": ("Hooks", "Stage"),
    "sampling.options": ("SamplingOptions",),
    "sampling.restore": ("restored",),
    "sampling.schedule": ("alpha_bar", "noise_augment"),
    "sampling.target": ("Target",),
    "sampling.upscale_model": ("UpscaleModel",),
    "sampling.upscaler": ("Upscaler", "boost", "flow", "upscale_image"),
    "spec": ("ModelSpec",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
