"""Autoencoders of diffusion models through diffusers, and the codec that a command line names."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError, MissingDependencyError, reason
from ..fallback import with_fallback
from ..files.locate import CONFIG, WEIGHTS
from ..files.weight_file import some_names
from .autoencoder import AutoencoderCodec
from .load import BUILTIN, load_codec
from .tiny import TinyVAE

DIFFUSERS, HUB = "diffusers:", "hf://"
TILE = 128  # latents; a side of more is worked on in tiles, so that the paper's 1024 pixels are whole


class KLCodec(AutoencoderCodec):
    """diffusers' AutoencoderKL as a codec of the project's own, with tiles that it switches on.

    Latents larger than `TILE` go through diffusers' own tiles, which overlap and are blended. Its norms and its
    attention take their statistics over the whole tile, so tiles differ a little from the whole.
    """

    def __init__(self, autoencoder: Any) -> None:
        """autoencoder: a diffusers AutoencoderKL. Its configuration tells channels, scaling factor and shift."""
        super().__init__(autoencoder)
        autoencoder.enable_tiling()
        autoencoder.tile_latent_min_size, autoencoder.tile_sample_min_size = TILE, TILE * self.downscale_factor

    def _run(self, step: str, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Where the device cannot do it, in float32 or on the CPU."""

        def run(x: Tensor) -> Tensor:
            return part(x.to(next(self.autoencoder.parameters()))).to(x)

        return with_fallback(step, run, x, module=self.autoencoder)


def open_codec(text: str, family: str | None = None) -> TinyVAE | KLCodec:
    """A codec on the CPU, in float32: what `load_codec` takes, or "diffusers:" and the place of an AutoencoderKL.

    family: whose codec "builtin" is; None: SD1.5's. The place is a folder with a config.json, its own or a whole
    pipeline's in `vae`; or hf://owner/repo/folder@revision on the Hugging Face hub, where folder and revision may be
    left out. Only hf:// uses the network. Raises `CheckpointError` that says what is wrong, and
    `MissingDependencyError` without diffusers.
    """
    if text.startswith(HUB) and text.count("/") < 4:
        raise ConfigError(
            f"{text} names no file; name one as {HUB}owner/repo/NAME, or write {DIFFUSERS}{text} for an autoencoder of "
            "diffusers."
        )
    if not text.startswith(DIFFUSERS):
        return load_codec(text, family if text == BUILTIN else None)
    place = text.removeprefix(DIFFUSERS)
    folder = _with_config(_download(place) if place.startswith(HUB) else Path(place))
    _refuse_foreign(folder / CONFIG)
    return KLCodec(_load(folder).eval().requires_grad_(False))


def _with_config(folder: Path) -> Path:
    """The folder of the autoencoder itself: this one, or `vae` in a whole pipeline's."""
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no folder {folder}; an autoencoder of the hub is written {DIFFUSERS}{HUB}owner/repo."
        )
    for place in (folder, folder / "vae"):
        if (place / CONFIG).is_file():
            return place
    raise CheckpointError(
        f"The folder {folder} has neither {CONFIG} nor vae/{CONFIG}; name the folder of an autoencoder of diffusers."
    )


def _refuse_foreign(path: Path) -> None:
    """Before any weights are read."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, colours = config.get("_class_name"), config.get("in_channels", 3)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no configuration ({reason(error)}); copy or download it again.") from None
    if kind != "AutoencoderKL" or colours != 3:
        raise CheckpointError(f"{path} is of a {kind} of {colours} channels; an AutoencoderKL of 3 is needed.")
    if config.get("latents_mean") or config.get("latents_std"):
        raise CheckpointError(
            f"{path} scales each channel of the latent by itself, which is not known here; take another autoencoder."
        )


def _load(folder: Path) -> Any:
    """The network, never from a pickle, and never with weights that its file lacks."""
    try:
        kind = import_module("diffusers").AutoencoderKL  # by name, or the type checker reads all of diffusers
    except (ImportError, RuntimeError) as error:  # diffusers makes a RuntimeError of what its own parts lack
        raise MissingDependencyError(
            f"{folder} needs diffusers (pip install diffusers), which cannot be imported ({reason(error)})."
        ) from None
    try:
        network, report = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # diffusers', safetensors' and PyTorch's errors have no common base
        raise CheckpointError(
            f"The autoencoder {folder} cannot be loaded ({reason(error)}); copy or download it again."
        ) from None
    if report["missing_keys"]:
        missing = some_names(sorted(report["missing_keys"]))
        raise CheckpointError(f"The autoencoder {folder} is not whole: {missing} missing; copy or download it again.")
    if not all(torch.isfinite(parameter).all() for parameter in network.parameters()):
        raise CheckpointError(f"The autoencoder {folder} has NaN or infinity in its weights; take another one.")
    return network


def _download(address: str) -> Path:
    """hf://owner/repo/folder@revision: its configuration and weights, kept in the hub's cache."""
    location, _, revision = address.removeprefix(HUB).partition("@")
    owner, repo, folder = (*location.strip("/").split("/", 2), "", "")[:3]
    if not (owner and repo):
        raise CheckpointError(f"{address} is not of the form {HUB}owner/repo/folder@revision.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependencyError(f"{address} needs huggingface_hub: pip install huggingface_hub.") from None
    places = [f"{folder}/"] if folder else ["", "vae/"]
    files = [place + name for place in places for name in (CONFIG, WEIGHTS)]
    try:
        root = snapshot_download(f"{owner}/{repo}", revision=revision or "main", allow_patterns=files)
    except Exception as error:  # the hub's, its HTTP client's and the disk's errors have no common base
        raise CheckpointError(
            f"{address} could not be fetched ({type(error).__name__}: {reason(error)}); check the address and the "
            "connection, or give a folder."
        ) from error
    return Path(root, folder)
