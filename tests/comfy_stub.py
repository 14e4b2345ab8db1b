"""The parts of ComfyUI that the nodes touch, with its signatures: for tests without a host.

The signatures are those of the oldest host that the pack supports, so that a newer keyword is refused here too.
What they do is the least that is true of the host; tests/hosts runs the nodes in the real ones.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from copy import copy, deepcopy
from dataclasses import KW_ONLY, dataclass, field
from functools import cache, partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]
PACK = "fmboost_pack"  # the host imports a pack by its path, under a name of the host's own

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


# --- comfy_api.latest: schemas


@dataclass
class Input:
    """An input as a schema declares it. The nodes give the id by its place and the rest by name."""

    io_type: ClassVar[str]
    id: str
    _: KW_ONLY
    display_name: str | None = None
    optional: bool = False
    tooltip: str | None = None
    lazy: bool | None = None


@dataclass(kw_only=True)
class Widget(Input):
    default: Any = None
    socketless: bool | None = None

    def start(self) -> Any:
        """The value that the page puts into a new node."""
        return self.default

    def problem(self, value: Any) -> str | None:
        """Why the host refuses a value, None where it takes it."""
        return None


@dataclass(kw_only=True)
class Number(Widget):
    min: float | None = None
    max: float | None = None
    step: float | None = None
    display_mode: Any = None

    def problem(self, value: Any) -> str | None:
        if self.min is not None and value < self.min:
            return "value_smaller_than_min"
        return "value_bigger_than_max" if self.max is not None and value > self.max else None


@dataclass(kw_only=True)
class IntWidget(Number):
    control_after_generate: bool | None = None


@dataclass(kw_only=True)
class FloatWidget(Number):
    round: float | None = None


@dataclass(kw_only=True)
class BooleanWidget(Widget):
    label_on: str | None = None
    label_off: str | None = None


@dataclass(kw_only=True)
class ComboWidget(Widget):
    options: list[str]
    control_after_generate: bool | None = None
    upload: Any = None
    image_folder: Any = None
    remote: Any = None

    def start(self) -> Any:
        return self.options[0] if self.default is None else self.default

    def problem(self, value: Any) -> str | None:
        """Newer hosts refuse what is not in the list; the oldest one lets it through."""
        return None if value in self.options else "value_not_in_list"


@dataclass
class Output:
    io_type: ClassVar[str]
    id: str | None = None
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False


def io_kind(io_type: str, kind: type[Input] = Input) -> type[Any]:
    """`io.Int`, `io.Latent`, ...: a type of the host's wires with its `Input` and `Output`."""
    named = {"io_type": io_type}
    return type(
        io_type, (), {**named, "Input": type("Input", (kind,), named), "Output": type("Output", (Output,), named)}
    )


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Any] = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def finalize(self) -> None:
        for place, output in enumerate(self.outputs):
            output.id = output.id or f"_{place}_{output.io_type}_"

    def validate(self) -> None:
        """Refuse an id that two inputs, two outputs, or an input and an output share."""
        counts = Counter(socket.id for socket in [*self.inputs, *self.outputs])
        shared = [id for id, count in counts.items() if count > 1]
        if shared:
            raise ValueError(f"Ids must be unique between inputs and outputs, but {shared} are not.")


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None, expand: Any = None, block_execution: str | None = None) -> None:
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        return self.args or None


class ComfyNode:
    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def execute(cls, **inputs: Any) -> NodeOutput:
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        return schema


class ComfyExtension:
    async def on_load(self) -> None:
        """Called by newer hosts."""

    async def get_node_list(self) -> list[type[ComfyNode]]:
        raise NotImplementedError


NODE_ID = "7"  # in its workflow, of the node that runs


class Locked(type):
    """The host runs `execute` on a copy of the class that keeps no state."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise AttributeError(f"Cannot set attribute {name!r} on {cls.__name__}: a node's class is locked.")


def checked(schema: Schema, given: dict[str, Any]) -> dict[str, Any]:
    """The values of a node's inputs as `execute` gets them: widgets that are not given have what the page puts there.

    Raises `TypeError` for an unknown or a missing input and `ValueError` for a value that the host refuses.
    """
    unknown = set(given) - {socket.id for socket in schema.inputs}
    if unknown:
        raise TypeError(f"{schema.node_id} has no inputs {sorted(unknown)}.")
    values = {}
    for socket in schema.inputs:
        if socket.id in given:
            values[socket.id] = given[socket.id]
        elif isinstance(socket, Widget) and not socket.optional:
            values[socket.id] = socket.start()
        elif not socket.optional:
            raise TypeError(f"{schema.node_id}: required_input_missing: {socket.id}.")
        problem = socket.problem(values[socket.id]) if isinstance(socket, Widget) and socket.id in values else None
        if problem:
            raise ValueError(f"{schema.node_id}: {problem}: {socket.id} = {values[socket.id]!r}.")
    return values


IO = SimpleNamespace(
    Input=Input, Output=Output, Schema=Schema, NodeOutput=NodeOutput, ComfyNode=ComfyNode, Custom=io_kind,
    Int=io_kind("INT", IntWidget), Float=io_kind("FLOAT", FloatWidget), Boolean=io_kind("BOOLEAN", BooleanWidget),
    Combo=io_kind("COMBO", ComboWidget), Latent=io_kind("LATENT"), Vae=io_kind("VAE"), Image=io_kind("IMAGE"),
    Mask=io_kind("MASK"), Model=io_kind("MODEL"), UpscaleModel=io_kind("UPSCALE_MODEL"),
)  # fmt: skip


# --- comfy.latent_formats: the host's numbers


class LatentFormat:
    scale_factor = 1.0
    shift_factor = 0.0
    latent_channels = 4

    def process_in(self, latent: Tensor) -> Tensor:
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent: Tensor) -> Tensor:
        return latent / self.scale_factor + self.shift_factor


class SD15(LatentFormat):
    scale_factor = 0.18215


class SDXL(LatentFormat):
    scale_factor = 0.13025


class SD3(LatentFormat):
    scale_factor, shift_factor, latent_channels = 1.5305, 0.0609, 16


class Flux(LatentFormat):
    scale_factor, shift_factor, latent_channels = 0.3611, 0.1159, 16


# --- comfy.ldm: the diffusion models' networks


class UNetModel(nn.Module):
    """The network of SD1.5, SD2 and SDXL, and of Stable Video Diffusion with video transformers in it."""


class SpatialVideoTransformer(nn.Module):
    """Attention over positions, and over frames."""


# --- comfy.ops: layers whose weights stay as they are and are cast to the input's type when they are used


class CastWeights:
    comfy_cast_weights = True
    weight: Tensor
    bias: Tensor | None

    def reset_parameters(self) -> None:
        """The host leaves weights uninitialised."""

    def cast(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.weight.to(x), None if self.bias is None else self.bias.to(x)


class Linear(CastWeights, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.cast(x))


class Conv1d(CastWeights, nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *self.cast(x))


class Conv2d(CastWeights, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *self.cast(x))


class GroupNorm(CastWeights, nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, *self.cast(x), self.eps)


class Embedding(nn.Embedding):
    """As the host's, whose result has the type of the weights."""

    comfy_cast_weights = True

    def reset_parameters(self) -> None:
        """The host leaves weights uninitialised."""


MANUAL_CAST = SimpleNamespace(Linear=Linear, Conv1d=Conv1d, Conv2d=Conv2d, GroupNorm=GroupNorm, Embedding=Embedding)


# --- comfy_extras.nodes_upscale_model


class ImageUpscaleWithModel:
    """The host's node; newer hosts have the method as one of the class, and give a `NodeOutput`."""

    def upscale(self, upscale_model: Any, image: Tensor) -> tuple[Tensor]:
        """An IMAGE (B,H,W,3) in [0,1]."""
        large = upscale_model(image.movedim(-1, -3).float())
        return (large.movedim(-3, -1).clamp(0, 1),)


# --- comfy.model_patcher


class ModelPatcher:
    def __init__(
        self, model: Any, load_device: torch.device, offload_device: torch.device, size: int = 0,
        weight_inplace_update: bool = False,
    ) -> None:  # fmt: skip
        if getattr(model, "device", None) is None:
            model.device = offload_device
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.model_options: dict[str, Any] = {"transformer_options": {}}

    def clone(self) -> ModelPatcher:
        other = type(self)(self.model, self.load_device, self.offload_device)
        other.model_options = deepcopy(self.model_options)
        return other

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)

    def set_model_attn1_patch(self, patch: Callable[..., Any]) -> None:
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches["attn1_patch"] = [*patches.get("attn1_patch", []), patch]


# --- the host's VAE


@cache
def codec_of(channels: int) -> Any:
    """A codec of no family: the bundled one of 4 channels, or one of other channels with random weights."""
    from networks import randomised

    from fmboost_core import load_codec
    from fmboost_core.codecs.tiny import tiny_codec

    codec = copy(load_codec("builtin"))
    if channels != codec.channels:
        codec = randomised(tiny_codec(channels=channels, width=16, blocks=1, stem=4)).eval().requires_grad_(False)
    codec.family = None
    return codec


class VAE:
    """A tiny codec with the face of the host's VAE: pixels (B,H,W,3) in [0,1], raw latents of a family.

    The tiled calls work on the whole. `calls` has the names of the calls, in order.
    """

    latent_dim = 2

    def __init__(self, latent_format: LatentFormat | None = None, tells: bool = True) -> None:
        """tells: whether it carries its scaling factor and shift, as a tiny VAE does and a checkpoint's does not."""
        self.format = latent_format or SD15()
        self.latent_channels, self.downscale_ratio = self.format.latent_channels, 8
        self.first_stage_model = SimpleNamespace()
        if tells:
            self.first_stage_model.vae_scale = torch.tensor(self.format.scale_factor)
            self.first_stage_model.vae_shift = torch.tensor(self.format.shift_factor)
        self.calls: list[str] = []

    def spacial_compression_encode(self) -> int:
        return self.downscale_ratio

    def encode(self, pixel_samples: Tensor) -> Tensor:
        self.calls.append("encode")
        return self._encode(pixel_samples)

    def decode(self, samples_in: Tensor, vae_options: dict[str, Any] | None = None) -> Tensor:
        self.calls.append("decode")
        return self._decode(samples_in)

    def encode_tiled(
        self, pixel_samples: Tensor, tile_x: int | None = None, tile_y: int | None = None, overlap: int | None = None,
        tile_t: int | None = None, overlap_t: int | None = None,
    ) -> Tensor:  # fmt: skip
        self.calls.append("encode_tiled")
        return self._encode(pixel_samples)

    def decode_tiled(
        self, samples: Tensor, tile_x: int | None = None, tile_y: int | None = None, overlap: int | None = None,
        tile_t: int | None = None, overlap_t: int | None = None,
    ) -> Tensor:  # fmt: skip
        self.calls.append("decode_tiled")
        return self._decode(samples)

    def _encode(self, pixels: Tensor) -> Tensor:
        for dim in (1, 2):  # cut at the centre to whole latents
            rest = pixels.shape[dim] % self.downscale_ratio
            pixels = pixels.narrow(dim, rest // 2, pixels.shape[dim] - rest)
        codec = codec_of(self.format.latent_channels)
        return self.format.process_out(codec.encode(pixels[..., :3].movedim(-1, 1) * 2 - 1))

    def _decode(self, latents: Tensor) -> Tensor:
        images = codec_of(self.format.latent_channels).decode(self.format.process_in(latents))
        return (images.movedim(1, -1) / 2 + 0.5).clamp(0, 1)


@dataclass
class ExecutionBlocker:
    """An output that was not made; a node that is connected to it fails with the message."""

    message: str | None


# --- progress, previews, interrupt


class InterruptProcessingException(Exception):
    """As in the oldest host; in newer ones it is a `BaseException`, which nothing catches by accident."""


class ProgressBar:
    """A bar in the page; `shown` has (value, total) of each update.

    Only an update that is sent to the page raises the interrupt: the first, the last, one with a preview. Newer hosts
    leave out others that follow too soon.
    """

    def __init__(self, host: Host, total: int, node_id: Any = None) -> None:
        self._host, self.total = host, total
        self.shown: list[tuple[int, int]] = []
        host.bars.append(self)

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.total = self.total if total is None else total
        if not self.shown or value >= self.total or preview is not None:
            self._host.throw_exception_if_processing_interrupted()
        self.shown.append((min(value, self.total), self.total))
        self._host.previews += [] if preview is None else [preview]


class Previewer:
    """It gives the latent itself in place of a picture."""

    def decode_latent_to_preview_image(self, preview_format: str, x0: Tensor) -> tuple[str, Tensor, int]:
        return preview_format, x0.clone(), 512


# --- the host


@dataclass
class Host:
    """The stub, with a record of what the nodes asked of it.

    modules: the stub's, by their names. nodes: the pack's, by their ids. core: the pack's own copy of
    `fmboost_core`, whose errors the nodes raise. bars: every progress bar. loads: (models, memory in bytes) that were
    asked for. previews: what was shown of latents, where `shows_previews`. routes: the server's handlers, by path.
    emptied: how often the cache was. running: the workflow that runs, as the server's queue has it; `of_workflow` puts
    one there.
    """

    models_dir: Path
    folders: dict[str, tuple[list[str], set[str]]] = field(default_factory=dict)
    bars: list[ProgressBar] = field(default_factory=list)
    loads: list[tuple[list[Any], float]] = field(default_factory=list)
    previews: list[Any] = field(default_factory=list)
    routes: dict[str, Callable[..., Any]] = field(default_factory=dict)
    shows_previews: bool = False
    interrupted: bool = False
    emptied: int = 0
    modules: dict[str, ModuleType] = field(default_factory=dict)
    nodes: dict[str, type[Any]] = field(default_factory=dict)
    core: Any = None
    asked: dict[str, Any] = field(default_factory=dict)  # values of widgets instead of their defaults
    running: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    def run(self, node_id: str, **inputs: Any) -> NodeOutput:
        """`execute` as the host calls it: with checked inputs, on a locked class, in inference mode."""
        node = self.nodes[node_id]
        schema = node.GET_SCHEMA()
        names = {one.id for one in schema.inputs}
        asked = {name: value for name, value in self.asked.items() if name in names}
        with torch.inference_mode():
            output = self.copy_of(node).execute(**checked(schema, asked | inputs))
        assert isinstance(output, NodeOutput) and len(output.args) == len(schema.outputs), node_id
        json.dumps(output.ui)  # it is sent to the page
        return output

    def copy_of(self, node: type[Any]) -> Any:
        """A node as the host calls it."""
        return Locked(node.__name__, (node,), {})

    def of_workflow(self, *others: dict[str, Any]) -> None:
        """Let a workflow run in which these are the inputs of other nodes than the one that `run` runs."""
        workflow = {NODE_ID: {"inputs": {}}} | {str(100 + n): {"inputs": inputs} for n, inputs in enumerate(others)}
        self.running[0] = (0, "the prompt's id", workflow, {}, [])

    def renew(self, models_dir: Path) -> None:
        """Forget what was asked of the host, and look for models in another folder."""
        self.models_dir = models_dir
        self.modules["folder_paths"].models_dir = str(models_dir)
        self.interrupted, self.shows_previews, self.emptied = False, False, 0
        for record in (self.folders, self.bars, self.loads, self.previews, self.running):
            record.clear()

    # model_management

    def interrupt_current_processing(self, value: bool = True) -> None:
        self.interrupted = value

    def throw_exception_if_processing_interrupted(self) -> None:
        if self.interrupted:
            self.interrupted = False
            raise InterruptProcessingException

    def load_models_gpu(
        self, models: Iterable[Any], memory_required: float = 0, force_patch_weights: bool = False,
        minimum_memory_required: float | None = None, force_full_load: bool = False,
    ) -> None:  # fmt: skip
        self.loads.append((list(models), memory_required))

    def soft_empty_cache(self, force: bool = False) -> None:
        self.emptied += 1

    # folder_paths

    def add_model_folder_path(self, folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
        paths, _ = self.folders.setdefault(folder_name, ([], set()))
        if full_folder_path not in paths:
            paths.insert(0 if is_default else len(paths), full_folder_path)

    def get_filename_list(self, folder_name: str) -> list[str]:
        """Files of a folder and its folders; an empty set of extensions stands for all."""
        paths, extensions = self.folders[folder_name]
        found = {file.relative_to(path).as_posix() for path in paths for file in Path(path).rglob("*.*")}
        return sorted(name for name in found if not extensions or Path(name).suffix.lower() in extensions)

    def get_full_path(self, folder_name: str, filename: str) -> str | None:
        paths, _ = self.folders[folder_name]
        return next((str(Path(path, filename)) for path in paths if Path(path, filename).is_file()), None)

    # latent_preview, server

    def get_previewer(self, device: torch.device, latent_format: LatentFormat) -> Previewer | None:
        return Previewer() if self.shows_previews else None

    def get(self, path: str) -> Callable[[Callable[..., Any]], None]:
        """The decorator `routes.get(path)`."""
        return lambda handler: self.routes.__setitem__(path, handler)


def unet_dtype(
    device: Any = None, model_params: int = 0, supported_dtypes: Iterable[torch.dtype] = DTYPES,
    weight_dtype: torch.dtype | None = None,
) -> torch.dtype:  # fmt: skip
    """The type of the weights on a CPU."""
    return torch.float32


def unet_manual_cast(
    weight_dtype: torch.dtype, inference_device: Any, supported_dtypes: Iterable[torch.dtype] = DTYPES
) -> torch.dtype | None:
    """The type to compute in on a CPU; None is that of the weights."""
    return None if weight_dtype == torch.float32 else torch.float32


def contents(host: Host) -> dict[str, dict[str, Any]]:
    """What is in the stub's modules, by their names; tests/hosts compares it with the host's."""
    cpu = torch.device("cpu")
    out_of_memory = torch.cuda.OutOfMemoryError
    return {
        "comfy_api.latest": {"io": IO, "ComfyExtension": ComfyExtension},
        "comfy.latent_formats": {"LatentFormat": LatentFormat, "SD15": SD15, "SDXL": SDXL, "SD3": SD3, "Flux": Flux},
        "comfy.ldm.modules.attention": {"SpatialVideoTransformer": SpatialVideoTransformer},
        "comfy.ldm.modules.diffusionmodules.openaimodel": {"UNetModel": UNetModel},
        "comfy.model_management": {
            "get_torch_device": lambda: cpu, "unet_offload_device": lambda: cpu, "intermediate_device": lambda: cpu,
            "should_use_fp16": lambda device=None: False, "unet_dtype": unet_dtype,
            "unet_manual_cast": unet_manual_cast, "load_models_gpu": host.load_models_gpu,
            "soft_empty_cache": host.soft_empty_cache, "OOM_EXCEPTION": out_of_memory,
            "is_oom": lambda e: isinstance(e, out_of_memory),
            "InterruptProcessingException": InterruptProcessingException,
            "interrupt_current_processing": host.interrupt_current_processing,
            "throw_exception_if_processing_interrupted": host.throw_exception_if_processing_interrupted,
        },
        "comfy.model_patcher": {"ModelPatcher": ModelPatcher},
        "comfy.ops": {"manual_cast": MANUAL_CAST},
        "comfy.utils": {"ProgressBar": partial(ProgressBar, host)},
        "folder_paths": {
            "models_dir": str(host.models_dir), "folder_names_and_paths": host.folders,
            "add_model_folder_path": host.add_model_folder_path, "get_filename_list": host.get_filename_list,
            "get_full_path": host.get_full_path,
        },
        "comfy_extras.nodes_upscale_model": {"ImageUpscaleWithModel": ImageUpscaleWithModel},
        "comfy_execution": {},
        "comfy_execution.graph_utils": {"ExecutionBlocker": ExecutionBlocker},
        "comfy_execution.utils": {"get_executing_context": lambda: SimpleNamespace(node_id=NODE_ID)},
        "latent_preview": {"get_previewer": host.get_previewer},
        "server": {
            "PromptServer": SimpleNamespace(
                instance=SimpleNamespace(
                    routes=SimpleNamespace(get=host.get), prompt_queue=SimpleNamespace(currently_running=host.running)
                )
            )
        },
        "aiohttp": {"web": SimpleNamespace(json_response=lambda data: data)},
    }  # fmt: skip


def forget_pack() -> None:
    """Take the pack out of `sys.modules`, so that the next import of it is fresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACK]:
        del sys.modules[name]


def _imported_pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    pack = sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    return pack


def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """Put the stub into `sys.modules` and import the pack as the host does. Afterwards, call `forget_pack`."""
    forget_pack()
    host = Host(tmp_path / "models")
    packages = (
        "comfy",
        "comfy_api",
        "comfy_extras",
        "comfy.ldm",
        "comfy.ldm.modules",
        "comfy.ldm.modules.diffusionmodules",
    )
    for name, members in {**{key: {} for key in packages}, **contents(host)}.items():
        module = host.modules[name] = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)  # the pack looks for it before it imports its nodes
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(host.modules[parent], child, module)
    nodes = asyncio.run(_nodes(_imported_pack()))
    host.core = importlib.import_module(f"{PACK}.fmboost_core")
    host.nodes = {node.GET_SCHEMA().node_id: node for node in nodes}
    return host


async def _nodes(pack: ModuleType) -> list[type[Any]]:
    extension = await pack.comfy_entrypoint()
    return list(await extension.get_node_list())
