"""FMBoost: carry the small latent of a diffusion model to a large one with coupling flow matching.

    from fmboost_core import boost, load_codec, load_model

    model, codec = load_model("sd15-x2-lite"), load_codec("builtin")
    large = boost(small, model, codec, scale=2, nfe=4, seed=0)  # (B,4,h,w) scaled latents -> (B,4,2h,2w)

`pipeline.py` tells the whole story on one screen.
"""

from .checkpoint import Model, load_model
from .codec import Codec, load_codec
from .config import FAMILIES, PRESETS, LatentFamily, ModelSpec, UNetConfig
from .errors import (
    Cancelled,
    CheckpointError,
    ConfigError,
    FMBoostError,
    ImageError,
    LatentError,
    MissingDependencyError,
    NonFiniteError,
)
from .pipeline import Stage, boost, upscale_image
from .schedule import alpha_bar, attention_scale, noise_augment

__version__ = "0.1.0"

__all__ = [
    "FAMILIES",
    "PRESETS",
    "Cancelled",
    "CheckpointError",
    "Codec",
    "ConfigError",
    "FMBoostError",
    "ImageError",
    "LatentError",
    "LatentFamily",
    "MissingDependencyError",
    "Model",
    "ModelSpec",
    "NonFiniteError",
    "Stage",
    "UNetConfig",
    "alpha_bar",
    "attention_scale",
    "boost",
    "load_codec",
    "load_model",
    "noise_augment",
    "upscale_image",
]
