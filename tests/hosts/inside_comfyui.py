"""What cannot be seen from outside a ComfyUI, looked at in its own process: `python inside_comfyui.py HOST`.

Runs each `check_...` and prints what became of them, {name: "" or the traceback}, as the last line.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

PACK = Path(__file__).parents[2]


def imported_pack() -> ModuleType:
    """The pack as the host imports it: by its path, under a name that is none."""
    spec = importlib.util.spec_from_file_location(
        "FMBoost", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["FMBoost"] = module
    spec.loader.exec_module(module)
    return module


class BundledVAE:
    """The bundled codec with the face of the host's VAE: pixels (B,H,W,3) in [0,1], raw latents."""

    latent_channels = 4

    def __init__(self) -> None:
        from FMBoost.fmboost_core import load_codec

        self.codec = load_codec("builtin")

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.codec.encode(pixels.movedim(-1, 1) * 2 - 1) / 0.18215

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.codec.decode(latents * 0.18215).movedim(1, -1) / 2 + 0.5


def latent(*size: int, **others: Any) -> dict[str, Any]:
    return {"samples": torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0)) / 0.18215, **others}


def upscaled(model: Any, small: dict[str, Any], tile: str = "auto", **size: Any) -> dict[str, Any]:
    from FMBoost.nodes.upscale import Upscale

    wish = {"size_by": "scale", "scale": 2.0, "width": 512, "height": 512, "megapixels": 1.0, **size}
    options = {"nfe": 1, "seed": 3, "solver": "euler", "noise_step": -1, "method": "psu", "tiled_vae": False}
    return dict(Upscale.execute(latent=small, vae=BundledVAE(), cfm=model, tile=tile, **wish, **options).args[0])


def out_of_memory_above(model: Any, positions: int) -> list[int]:
    """Let the network fail as a full device does on more than so many positions; what it was asked for, in order."""
    forward, asked = model.network.forward, []

    def failing(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked.append(x.shape[-2] * x.shape[-1])
        if asked[-1] > positions:
            raise torch.cuda.OutOfMemoryError("as if the device were full")
        return forward(x, *rest)

    model.network.forward = failing
    return asked


def check_out_of_memory_goes_on_with_smaller_tiles() -> None:
    from FMBoost.nodes.host import load_cfm

    small = latent(60, 80)
    whole = upscaled(load_cfm("sd15-x2", "fp32"), small, tile="off")
    model = load_cfm("sd15-x2", "fp32")
    asked = out_of_memory_above(model, 100 * 100)
    tiled = upscaled(model, small, tile="off")
    assert asked[0] == 120 * 160 and max(asked[-4:]) <= 100 * 100, asked
    # The overlap leaves some 2e-4, of latents that are 5.5 times as large here (research/tiling.md).
    assert (tiled["samples"] - whole["samples"]).abs().max() < 5e-3


def check_out_of_memory_everywhere_is_the_hosts_own_error() -> None:
    from FMBoost.nodes.host import load_cfm

    model = load_cfm("sd15-x2", "fp32")
    asked = out_of_memory_above(model, 0)
    try:
        upscaled(model, latent(60, 80))
    except torch.cuda.OutOfMemoryError:
        assert 1 < len(asked) < 10, asked
    else:
        raise AssertionError("a full device went unnoticed")


def check_weights_that_stay_off_the_device_give_the_same() -> None:
    """Partial loading: most layers are cast when they are used."""
    import comfy.model_management as mm
    from FMBoost.nodes.host import load_cfm

    x, guide = latent(16, 24)["samples"] * 0.18215, latent(16, 24)["samples"] * 0.1
    model = load_cfm("sd15-x2", "fp32")
    conditioning = model.conditioning(guide)
    whole = model.velocity(x, 0.5, conditioning)
    model = load_cfm("sd15-x2", "fp32")
    model.patcher.load(torch.device("cpu"), lowvram_model_memory=1_000_000)
    cast = [m for m in model.network.modules() if getattr(m, "comfy_cast_weights", False)]
    assert len(cast) > 10
    load, mm.load_models_gpu = mm.load_models_gpu, lambda *_, **__: None
    try:
        part = model.velocity(x, 0.5, conditioning)
    finally:
        mm.load_models_gpu = load
    assert (whole - part).abs().max() < 1e-5


def check_a_mask_is_cut_where_its_latent_is() -> None:
    """From 64x64 latents to 16:9: the top and the bottom go, and with them what the mask has there."""
    from FMBoost.nodes.host import load_cfm

    mask = torch.zeros(1, 512, 512)
    mask[:, :32], mask[:, 240:272, 100:200] = 1, 1
    small = latent(64, 64, noise_mask=mask, kept="as it was")
    large = upscaled(load_cfm("sd15-x2", "fp32"), small, size_by="width x height", width=1024, height=576)
    assert large["samples"].shape == (1, 4, 72, 128) and large["kept"] == "as it was"
    found = large["noise_mask"]
    assert found.shape == (1, 576, 1024)
    assert found[:, :200].max() == 0  # the upper stripe was cut away
    assert found[:, 280:296, 220:380].min() == 1  # and the middle is where it was, twice as large


def check_folders_that_are_there_already_stay() -> None:
    """As extra_model_paths.yaml adds them, before the pack is loaded."""
    import folder_paths
    from FMBoost.nodes import host

    folder_paths.add_model_folder_path(host.FOLDER, "/another/disk/fmboost")
    others = {name: value for name, value in folder_paths.folder_names_and_paths.items() if name != host.FOLDER}
    host.register_folder()
    paths, suffixes = folder_paths.folder_names_and_paths[host.FOLDER]
    assert "/another/disk/fmboost" in paths and str(Path(folder_paths.models_dir) / "fmboost") in paths
    assert len(paths) == len(set(paths)) and ".safetensors" in suffixes
    assert all(folder_paths.folder_names_and_paths[name] is value for name, value in others.items())


NEWER = {"is_oom", "advanced", "search_aliases"}  # what the oldest host lacks; the nodes ask before they use it


def check_the_stub_has_the_hosts_signatures() -> None:
    """tests/comfy_stub.py, in which the nodes run without a host: what it has, the host has, and takes alike."""
    sys.path.append(str(PACK / "tests"))
    import comfy.sd
    import comfy_stub
    from comfy_api.latest import io

    for name, members in comfy_stub.contents(comfy_stub.Host(Path())).items():
        for key, member in members.items() if name.startswith(("comfy", "folder", "latent")) else ():
            real = getattr(importlib.import_module(name), key, None)
            if real is None and key in NEWER:
                continue
            if inspect.isroutine(member) or key in ("ModelPatcher", "ProgressBar"):
                assert parameters(member) == parameters(real)[: len(parameters(member))], f"{name}.{key}"
    for key in ("encode", "decode", "encode_tiled", "decode_tiled", "spacial_compression_encode"):
        assert parameters(getattr(comfy_stub.VAE, key)) == parameters(getattr(comfy.sd.VAE, key)), key
    for key, kind in vars(comfy_stub.IO).items():
        for side in ("Input", "Output") if hasattr(kind, "io_type") else ():
            if hasattr(kind, side) and key not in ("Input", "Output"):
                theirs = {*parameters(getattr(getattr(io, key), side)), *NEWER}
                assert set(parameters(getattr(kind, side))) <= theirs, key
    for kind in ("Schema", "NodeOutput"):
        assert set(parameters(getattr(comfy_stub.IO, kind))) <= {*parameters(getattr(io, kind)), *NEWER}, kind


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's or a class's parameters, in order."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def check_the_stub_has_the_hosts_latent_scales() -> None:
    sys.path.append(str(PACK / "tests"))
    import comfy.latent_formats
    import comfy_stub

    x = torch.randn(1, 16, 4, 4)
    for name in ("LatentFormat", "SD15", "SDXL", "SD3", "Flux"):
        ours, real = getattr(comfy_stub, name)(), getattr(comfy.latent_formats, name)()
        assert ours.latent_channels == real.latent_channels
        assert torch.allclose(ours.process_in(x), real.process_in(x))
        assert torch.allclose(ours.process_out(x), real.process_out(x), atol=1e-5)


def check_models_load_where_the_host_streams_weights() -> None:
    """DynamicVRAM, the default on GPUs of NVIDIA with PyTorch 2.8: linear layers have no weights before loading."""
    import comfy.memory_management
    import comfy.model_patcher
    from FMBoost.nodes.host import load_bundled_upscale_model, load_cfm

    wanted, image = upscaled(load_cfm("sd15-x2", "auto"), latent(16, 16)), torch.rand(1, 3, 32, 32)
    large = load_bundled_upscale_model("fmboost-image-x2")(image)
    if not hasattr(comfy.memory_management, "aimdo_enabled"):  # an older host
        return
    before = comfy.model_patcher.CoreModelPatcher
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    try:
        found = upscaled(load_cfm("sd15-x2", "auto"), latent(16, 16))
        again = load_bundled_upscale_model("fmboost-image-x2")(image)
    finally:
        comfy.memory_management.aimdo_enabled = False
        comfy.model_patcher.CoreModelPatcher = before
    assert torch.equal(found["samples"], wanted["samples"]) and torch.equal(again, large)


def check_every_foreign_space_is_one_of_the_hosts() -> None:
    """Its channels, and whether its latents have frames; classes that this host lacks are of a newer or older one."""
    import comfy.latent_formats
    from FMBoost.fmboost_core.families import FAMILIES
    from FMBoost.fmboost_core.foreign import SHAPES, SOUND, SPACES, VIDEO, space_of_class

    axes = {VIDEO: {3}, SOUND: {1, 2}, SHAPES: {1, 2, 3}}
    for space in SPACES:
        for name in space.classes:
            format_ = getattr(comfy.latent_formats, name, None)
            if format_ is not None and name != "MiniMaxH3AV":  # video and sound in one
                assert format_.latent_channels == space.channels, name
                assert format_.latent_dimensions in axes.get(space.kind, {2, 3}), name
    formats = {
        name: value for name, value in vars(comfy.latent_formats).items()
        if inspect.isclass(value) and issubclass(value, comfy.latent_formats.LatentFormat)
    }  # fmt: skip
    known = {"LatentFormat", "SDXL_Playground_2_5", *(family.comfyui for family in FAMILIES.values())}
    assert not [name for name in formats if name not in known and space_of_class(name) is None]


def main() -> None:
    host = Path(sys.argv[1])
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, str(host))
    import comfy.options  # before anything else of the host's, or it reads no options

    comfy.options.enable_args_parsing()
    imported_pack()
    checks = {name: value for name, value in globals().items() if name.startswith("check_")}
    print(json.dumps({name: outcome(check) for name, check in checks.items()}))


def outcome(check: Callable[[], None]) -> str:
    """Nothing, or the traceback."""
    try:
        check()
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    main()
