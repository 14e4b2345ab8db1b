"""The only bridge to ComfyUI: model files, memory, the VAE, the latent's scale, progress, previews, interrupts."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.utils
import folder_paths
import latent_preview
import torch
from torch import Tensor

from ..fmboost_core.errors import CheckpointError, FMBoostWarning, LatentError, collected_warnings
from ..fmboost_core.families import FAMILIES, families_with
from ..fmboost_core.files.checkpoint import load_model, read_spec
from ..fmboost_core.files.locate import BUNDLED_MODELS, bundled_models
from ..fmboost_core.imaging.resample import cover
from ..fmboost_core.model import Model
from ..fmboost_core.networks.conditioning import Conditioning
from ..fmboost_core.networks.unet import LatentUNet
from ..fmboost_core.recognition import recognise
from ..fmboost_core.sampling.tiling import in_smaller_tiles, parse_tile
from ..fmboost_core.spec import ModelSpec

FOLDER = "fmboost"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Latent = dict[str, Any]

_FORMATS: dict[str, Callable[[], Any]] = {
    "sd15": comfy.latent_formats.SD15,
    "sdxl": comfy.latent_formats.SDXL,
    "sd3": comfy.latent_formats.SD3,
    "flux1": comfy.latent_formats.Flux,
}


# --- model files


def register_folder() -> None:
    """Make `models/fmboost` a folder of models, beside whatever extra_model_paths.yaml gave it."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def model_choices() -> list[str]:
    """Bundled models by name, then the files of `models/fmboost` with their suffix."""
    return bundled_models() + folder_paths.get_filename_list(FOLDER)


def model_facts() -> dict[str, dict[str, float]]:
    """The scale and the evaluations each choice is made for; files that do not say them are left out."""
    facts = {}
    for choice in model_choices():
        with suppress(CheckpointError):
            spec = read_spec(model_path(choice))
            facts[choice] = {"scale": spec.scale, "nfe": spec.nfe}
    return facts


def serve_models() -> None:
    """Tell the page what the models are made for: its line on the nodes counts with it. Only inside the server."""
    from aiohttp import web
    from server import PromptServer

    async def answer(_: Any) -> Any:
        return web.json_response(await asyncio.to_thread(model_facts))

    PromptServer.instance.routes.get("/fmboost/models")(answer)


def model_path(choice: str) -> Path:
    """The file behind a choice. Raises `CheckpointError` when it is gone."""
    if choice in bundled_models():
        return BUNDLED_MODELS / f"{choice}.safetensors"
    path = folder_paths.get_full_path(FOLDER, choice)
    if path is None:
        known = ", ".join(model_choices()) or "none"
        raise CheckpointError(f"There is no model {choice!r} any more; choose another one of: {known}.")
    return Path(path)


class HostModel(Model):
    """A model in the host's memory management: on its device while it works, in part or whole."""

    def __init__(self, spec: ModelSpec, network: LatentUNet, compute: torch.dtype) -> None:
        super().__init__(spec, network)
        # Newer hosts stream weights with a patcher of their own.
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.patcher = patcher(network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())
        self._compute = compute

    @property
    def dtype(self) -> torch.dtype:
        return self._compute

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def velocity(self, x: Tensor, t: float | Tensor, conditioning: Conditioning) -> Tensor:
        # Between evaluations the host may have put the weights away, for the VAE say; else this costs nothing.
        positions = x.shape[0] * x.shape[-2] * x.shape[-1]
        mm.load_models_gpu([self.patcher], memory_required=self.working_memory(positions, self._compute))
        return super().velocity(x, t, conditioning)


def load_cfm(choice: str, dtype: str) -> HostModel:
    """Load a model with the host's layers, which cast and offload. dtype: "auto" or a key of `DTYPES`."""
    model = load_model(model_path(choice), comfy.ops.manual_cast)
    device, known = mm.get_torch_device(), list(DTYPES.values())
    parameters = sum(p.numel() for p in model.network.parameters())
    weights = DTYPES.get(dtype) or mm.unet_dtype(device=device, model_params=parameters, supported_dtypes=known)
    compute = mm.unet_manual_cast(weights, device, known) or weights
    return HostModel(model.spec, model.network.to(weights), compute)


# --- latents: raw in the host's wires, scaled in the core


def raw(latent: Latent) -> Tensor:
    """The samples of a LATENT as they are, (B,C,h,w) fp32."""
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        raise LatentError(
            "FMBoost enlarges latents of pictures (batch, channels, height, width), but this one is of video or sound."
        )
    return samples.float()


def scaled(latent: Latent, family: str, look: bool = True) -> Tensor:
    """The samples of a LATENT, (B,C,h,w) fp32, scaled as the diffusion model sees them.

    look: warn where the statistics say that it is of another family.
    """
    samples, known = raw(latent), FAMILIES[family].channels
    if samples.shape[1] != known:
        raise LatentError(
            f"A latent of {family} has {known} channels, but this one has {samples.shape[1]}, which looks like "
            f"{families_with(samples.shape[1])}; load a model for the family it comes from."
        )
    seems = recognise(samples) if look else None
    if seems is not None and seems != family:
        message = (
            f"This latent looks like {seems}'s, but the model is for {family}: wrong colours or patterns may come."
        )
        warnings.warn(message, FMBoostWarning, stacklevel=2)
    return _FORMATS[family]().process_in(samples)


def with_samples(latent: Latent, samples: Tensor, family: str) -> Latent:
    """A copy of a LATENT with new scaled samples; its mask follows their size, everything else stays."""
    return with_raw(latent, _FORMATS[family]().process_out(samples))


def with_raw(latent: Latent, samples: Tensor) -> Latent:
    """`with_samples` for samples of the VAE's own scale."""
    result = dict(latent)
    result["samples"] = samples.to(mm.intermediate_device())
    result.pop("downscale_ratio_spacial", None)  # of an empty latent; KSampler takes it away too
    if "noise_mask" in result:
        result["noise_mask"] = _resized_mask(result["noise_mask"], latent["samples"], samples)
    return result


def _resized_mask(mask: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """A mask of any resolution (..., h, w), as much larger as the latent became, and cut where that was."""
    height, width = (round(mask.shape[i] * after.shape[i] / before.shape[i]) for i in (-2, -1))
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return cover(flat, (height, width)).reshape(*mask.shape[:-2], height, width).to(mask)


def item_seeds(latent: Latent, seed: int) -> list[int]:
    """One seed an item: of its place in the batch it was made in, so that a picked item keeps its noise."""
    places = latent.get("batch_index") or range(latent["samples"].shape[0])
    return [seed + place for place in places]


class HostVAE:
    """The host's VAE as the core's `Codec`, in the scaled space of a family, or in the VAE's own scale."""

    def __init__(self, vae: Any, family: str | None, tiled: bool = False) -> None:
        """family None: the VAE's own scale. tiled: always in tiles; otherwise the host does so when memory runs out."""
        self._vae, self._tiled = vae, tiled
        self._format = comfy.latent_formats.LatentFormat() if family is None else _FORMATS[family]()
        self.channels: int = vae.latent_channels
        self.downscale_factor: int = vae.spacial_compression_encode()

    def encode(self, images: Tensor) -> Tensor:
        pixels = images.movedim(1, -1) / 2 + 0.5
        raw = self._vae.encode_tiled(pixels) if self._tiled else self._vae.encode(pixels)
        return self._format.process_in(raw.float()).to(images.device)

    def decode(self, latents: Tensor) -> Tensor:
        raw = self._format.process_out(latents)
        pixels = self._vae.decode_tiled(raw) if self._tiled else self._vae.decode(raw)
        return pixels.movedim(-1, 1).to(latents) * 2 - 1


# --- while it works


class Progress:
    """The host's progress bar, previews and interrupt, as the core's hooks."""

    def __init__(self, model: HostModel, runs: int = 1) -> None:
        """runs: calls of the core that share the bar, one after the other."""
        format_ = _FORMATS[model.spec.family]()
        self._previewer = latent_preview.get_previewer(model.device, format_)
        self._bar: Any = None
        self._runs, self._run, self._place = runs, 0, (0, 0)

    def next_run(self) -> None:
        self._run += 1

    def restart(self) -> None:
        """Begin the present run again."""
        self._bar = None

    def on_progress(self, done: int, total: int) -> None:
        # An adaptive solver does not know its total: the bar stays a little ahead of it.
        total = total or max(24, done + 6)
        self._place = (self._run * total + done, self._runs * total)
        self._show(None)

    def on_state(self, t: float, state: Tensor) -> None:
        if self._previewer is not None:
            self._show(self._previewer.decode_latent_to_preview_image("JPEG", state.to(mm.get_torch_device())))

    def _show(self, preview: Any) -> None:
        mm.throw_exception_if_processing_interrupted()
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(self._place[1])
        self._bar.update_absolute(*self._place, preview)


def with_smaller_tiles(run: Callable[[int | str | None], Tensor], tile: str, progress: Progress) -> Tensor:
    """run(tile), in smaller tiles where the device's memory runs out. tile: as the widget has it."""

    def before_again(smaller: int) -> None:
        logging.warning("FMBoost: out of memory, going on with tiles of %d latents", smaller)
        mm.soft_empty_cache()
        progress.restart()

    return in_smaller_tiles(run, parse_tile(tile), _is_out_of_memory, before_again)


def _is_out_of_memory(error: Exception) -> bool:
    if hasattr(mm, "is_oom"):
        return bool(mm.is_oom(error))
    # Where torch has no such exception the host puts Exception in its place, which would swallow everything.
    return mm.OOM_EXCEPTION is not Exception and isinstance(error, mm.OOM_EXCEPTION)


def shown(notes: list[str]) -> dict[str, list[str]] | None:
    """What the node's face shows."""
    return {"text": notes} if notes else None


@contextmanager
def told() -> Iterator[list[str]]:
    """Collect the core's warnings, for the node's face and the log."""
    with collected_warnings() as notes:
        yield notes
    for note in notes:
        logging.warning("FMBoost: %s", note)
