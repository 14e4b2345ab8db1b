"""The bridge to ComfyUI: model files, memory, progress, notes. No other module imports `comfy`."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import comfy.latent_formats
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.utils
import folder_paths
import latent_preview
import torch
from comfy.ldm.modules.attention import SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor, nn

from ..fmboost_core import errors
from ..fmboost_core.errors import CheckpointError, collected_warnings
from ..fmboost_core.families import FAMILIES, Party
from ..fmboost_core.files.checkpoint import load_model, read_spec
from ..fmboost_core.files.locate import BUNDLED_MODELS, BUNDLED_UPSCALE_MODELS, bundled_models
from ..fmboost_core.files.upscale_model import LoadedUpscaleModel, load_network, tiles_of
from ..fmboost_core.foreign import space_of_class
from ..fmboost_core.model import Model
from ..fmboost_core.networks.conditioning import Conditioning
from ..fmboost_core.networks.guide import GuideNetwork
from ..fmboost_core.sampling.checks import ScaleWarning
from ..fmboost_core.sampling.options import BEHIND_BUNDLED
from ..fmboost_core.sampling.solvers import EVALUATIONS_PER_STEP
from ..fmboost_core.sampling.tiling import in_smaller_tiles
from ..fmboost_core.sampling.widgets import SharedBar
from ..fmboost_core.spec import ModelSpec

Result = TypeVar("Result")

FOLDER = "fmboost"
FACTS = ("scale", "nfe", "noise_step", "strength", "guide")  # of a specification, which the page counts with
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# The host's dialog shows an error's module, which is under the path of the pack's folder.
for _error in vars(errors).values():
    if isinstance(_error, type) and issubclass(_error, errors.FMBoostError):
        _error.__module__ = "fmboost"

# --- model files


def register_folder() -> None:
    """Make `models/fmboost` a folder of models, beside the folders that extra_model_paths.yaml names.

    The bundled upscale models appear in the host's own Load Upscale Model.
    """
    folder_paths.add_model_folder_path("upscale_models", str(BUNDLED_UPSCALE_MODELS))
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].add(".safetensors")


def say_what_to_do_first() -> None:
    """Write one sentence to the log at the pack's first start, which makes `models/fmboost`."""
    folder = Path(folder_paths.models_dir) / FOLDER
    if folder.exists():
        return
    with suppress(OSError):
        folder.mkdir(parents=True)
    pack = Path(__file__).parents[1].name
    logging.info("FMBoost: open Templates, choose %s, and run image_upscale; it needs no other file.", pack)


def model_choices() -> list[str]:
    """The bundled models by name, then the files of `models/fmboost` with their suffix."""
    return bundled_models() + folder_paths.get_filename_list(FOLDER)


def bundled_families() -> list[str]:
    """The families that have bundled models; these models' names begin with their family's."""
    return [family for family in FAMILIES if any(name.startswith(f"{family}-") for name in bundled_models())]


def model_facts() -> dict[str, dict[str, float | str]]:
    """Each choice's `FACTS`, for the page; files without a specification are left out."""
    facts = {}
    for choice in model_choices():
        with suppress(CheckpointError):
            spec = read_spec(model_path(choice))
            facts[choice] = {name: getattr(spec, name) for name in FACTS}
    return facts


def serve_facts() -> None:
    """Serve to the page what its line on the nodes counts with; needs the running server.

    /fmboost/models: `model_facts`. /fmboost/solvers: each solver's evaluations per step, 0 for an adaptive one.
    """
    from aiohttp import web
    from server import PromptServer

    async def models(_: Any) -> Any:
        return web.json_response(await asyncio.to_thread(model_facts))

    async def solvers(_: Any) -> Any:
        return web.json_response(EVALUATIONS_PER_STEP)

    PromptServer.instance.routes.get("/fmboost/models")(models)
    PromptServer.instance.routes.get("/fmboost/solvers")(solvers)


def model_path(choice: str) -> Path:
    """The file behind a choice. Raises `CheckpointError` when it is gone."""
    if choice in bundled_models():
        return BUNDLED_MODELS / f"{choice}.safetensors"
    path = folder_paths.get_full_path(FOLDER, choice)
    if path is None:
        known = ", ".join(model_choices()) or "none"
        raise CheckpointError(f"There is no model {choice!r} any more; choose another one of: {known}.")
    return Path(path)


def _patcher(network: nn.Module) -> Any:
    """The host's patcher, which moves a network; newer hosts stream weights through one of its own."""
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(network, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


class HostModel(Model):
    """A model in the host's memory management, which keeps it on the device in part or whole while it works."""

    def __init__(
        self, spec: ModelSpec, network: nn.Module, compute: torch.dtype, guide: GuideNetwork | None = None
    ) -> None:
        # The guide network is small: it stays on the device.
        super().__init__(spec, network, None if guide is None else guide.to(mm.get_torch_device(), compute))
        self.patcher = _patcher(network)
        self._compute = compute

    @property
    def party(self) -> Party:
        return replace(super().party, instead="choose another model in FMBoost Load CFM")

    @property
    def dtype(self) -> torch.dtype:
        return self._compute

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    def velocity(self, x: Tensor, t: float | Tensor, conditioning: Conditioning) -> Tensor:
        # The host may have offloaded the weights since the last evaluation, for the VAE say; otherwise this is free.
        positions = x.shape[0] * x.shape[-2] * x.shape[-1]
        mm.load_models_gpu([self.patcher], memory_required=self.working_memory(positions, self._compute))
        return self._evaluate(x, t, conditioning)  # the host decides where its weights are


def load_cfm(choice: str, dtype: str) -> HostModel:
    """Load a model with the host's layers, which cast and offload.

    choice: one of `model_choices`. dtype: "auto" (what suits the device) or a key of `DTYPES`.
    """
    model = load_model(model_path(choice), comfy.ops.manual_cast)
    device, known = mm.get_torch_device(), list(DTYPES.values())
    parameters = sum(p.numel() for p in model.network.parameters())
    weights = DTYPES.get(dtype) or mm.unet_dtype(device=device, model_params=parameters, supported_dtypes=known)
    compute = mm.unet_manual_cast(weights, device, known) or weights
    return HostModel(model.spec, model.network.to(weights), compute, model.guide)


def load_bundled_upscale_model(name: str) -> LoadedUpscaleModel:
    """A bundled upscale model in the host's memory management, with the host's progress bar and interrupt."""
    device = mm.get_torch_device()
    network = load_network(name)
    network = network.to(torch.float16 if mm.should_use_fp16(device) else torch.float32)
    patcher, dtype, (tile, overlap) = _patcher(network), next(network.parameters()).dtype, tiles_of(network)
    bar: Any = None

    def apply(image: Tensor) -> Tensor:
        # Three maps of 64 channels at the large size; the weights are loaded whole, as no layer of them is the host's.
        memory = 3 * 64 * image[:, :1].numel() * network.factor**2 * dtype.itemsize
        mm.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
        large: Tensor = network(image)
        return large

    def on_tile(done: int, total: int) -> None:
        nonlocal bar
        mm.throw_exception_if_processing_interrupted()
        bar = comfy.utils.ProgressBar(total) if done == 1 else bar  # it belongs to the node that runs
        if total > 1:
            bar.update_absolute(done, total)

    return LoadedUpscaleModel(name, apply, network.factor, device, dtype, on_tile, BEHIND_BUNDLED, tile, overlap)


# --- the host's diffusion models


def model_party(model: Any) -> Party:
    """A diffusion model as an argument of `require_same_family`, by the latent format that the host has for it."""
    format_ = model.get_model_object("latent_format")
    name = type(format_).__name__
    family = next((f.name for f in FAMILIES.values() if f.comfyui == name), None)
    space = space_of_class(name)
    if space is not None:
        return Party("the diffusion model", None, format_.latent_channels, foreign=space.title)
    what = "the diffusion model" if family else f"the diffusion model (latent format {name})"
    return Party(what, family, format_.latent_channels, "connect the diffusion model that made the latent")


def has_unet_attention(model: Any) -> bool:
    """Whether a diffusion model calls the patches of self-attention as the U-Nets of SD1.5 and SDXL do.

    Transformers call them with other arguments, after the attention, or never; U-Nets for video also over frames.
    """
    network = model.get_model_object("diffusion_model")
    return isinstance(network, UNetModel) and not any(isinstance(m, SpatialVideoTransformer) for m in network.modules())


# --- progress, previews, interrupts, memory


class Progress:
    """The host's progress bar, previews and interrupt as the core's hooks."""

    def __init__(self, model: HostModel, runs: int = 1) -> None:
        """runs: calls of the core, one after the other, that share the bar."""
        format_ = getattr(comfy.latent_formats, FAMILIES[model.spec.family].comfyui, None)
        self._previewer = latent_preview.get_previewer(model.device, format_()) if format_ else None
        self._bar: Any = None
        self._shared, self._place = SharedBar(runs), (0, 0)

    def next_run(self) -> None:
        self._shared.next_run()

    def restart(self) -> None:
        """Begin the present run again."""
        self._bar = None

    def on_progress(self, done: int, total: int) -> None:
        self._place = self._shared.place(done, total)
        self._show(None)

    def on_state(self, t: float, state: Tensor) -> None:
        if self._previewer is not None:
            self._show(self._previewer.decode_latent_to_preview_image("JPEG", state.to(mm.get_torch_device())))

    def _show(self, preview: Any) -> None:
        mm.throw_exception_if_processing_interrupted()
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(self._place[1])
        self._bar.update_absolute(*self._place, preview)


def with_smaller_tiles(
    run: Callable[[int | str | None], Result],
    tile: int | str | None,
    progress: Progress | None = None,
    unit: str = "latents",
) -> Result:
    """run(tile), again with smaller tiles when the device's memory runs out. unit: of the tile, for the log."""

    def before_retry(smaller: int) -> None:
        logging.warning("FMBoost: out of memory; retrying with tiles of %d %s", smaller, unit)
        mm.soft_empty_cache()
        if progress is not None:
            progress.restart()

    return in_smaller_tiles(run, tile, _is_out_of_memory, before_retry)


def _is_out_of_memory(error: Exception) -> bool:
    if hasattr(mm, "is_oom"):
        return bool(mm.is_oom(error))
    # Where torch has no such exception, the host names Exception itself, which would swallow everything.
    return mm.OOM_EXCEPTION is not Exception and isinstance(error, mm.OOM_EXCEPTION)


def intermediate(samples: Tensor) -> Tensor:
    """A tensor on the device where the host keeps what goes over its wires."""
    return samples.to(mm.intermediate_device())


def blocked(message: str) -> Any:
    """What an output holds that was not made: a node that is connected to it fails with the message."""
    return ExecutionBlocker(message)


def is_connected(output: int) -> bool:
    """Whether an output of the node that runs is connected in its workflow; True where the host does not tell."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    node = getattr(get_executing_context(), "node_id", None)
    queue = getattr(getattr(PromptServer, "instance", None), "prompt_queue", None)
    workflows = [job[2] for job in getattr(queue, "currently_running", {}).values()]
    inputs = [other.get("inputs", {}) for workflow in workflows if node in workflow for other in workflow.values()]
    return not inputs or any([node, output] == value for values in inputs for value in values.values())


# --- notes on a node


def shown(notes: list[str]) -> dict[str, list[str]] | None:
    """The `ui` of an output that shows notes on the node; None without notes."""
    return {"text": notes} if notes else None


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect the core's warnings, for the node and the log."""
    with collected_warnings() as notes:
        # The host's latents are raw, and the nodes scale them: `latents.scaled` says it in the host's terms.
        warnings.simplefilter("ignore", ScaleWarning)
        yield notes
    for note in notes:
        logging.warning("FMBoost: %s", note)
