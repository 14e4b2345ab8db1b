"""The nodes' `execute` by a stub of their host, with the bundled weights; tests/hosts runs them in the real one.

What a node makes is compared with what the core makes of the same input, in the VAE's raw scale of the host's wires.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comfy_stub import (
    IO,
    NODE_ID,
    PACK,
    SD3,
    SD15,
    SDXL,
    VAE,
    Flux,
    Host,
    InterruptProcessingException,
    ModelPatcher,
    SpatialVideoTransformer,
    UNetModel,
    Widget,
    codec_of,
    forget_pack,
    install,
)  # fmt: skip
from torch import Tensor, nn

from fmboost_core import FAMILIES, alpha_bar, boost, flow, load_codec, load_model, noise_augment, upscale_image
from fmboost_core.codecs.load import has_builtin_codec
from fmboost_core.files.checkpoint import save_model
from fmboost_core.files.locate import bundled_models, bundled_upscale_models
from fmboost_core.files.upscale_model import find_upscale_model, load_upscale_model
from fmboost_core.files.upscale_network import load_upscale_network
from fmboost_core.sampling.upscale_model import enlarged as enlarged_by

MODEL, FAST, SDXL_MODEL = "sd15-x2", "sd15-x2-fast", "sdxl-x2"  # each made for one evaluation
DIRECT = "sd15-x2-direct"  # with a guide network
FORMATS = {"sd15": SD15(), "sdxl": SDXL(), "sd3": SD3(), "flux1": Flux()}
DOUBLING = [name for name in bundled_models() if name.endswith("-x2")]  # one for each family that has weights
SPACES = {  # channels, scaling factor and shift, as the families' authors published them
    "sd15": (4, 0.18215, 0.0), "sdxl": (4, 0.13025, 0.0), "sd3": (16, 1.5305, 0.0609), "flux1": (16, 0.3611, 0.1159),
}  # fmt: skip
OPTIONAL = {  # what a saved graph may leave out
    "FMBoostNoiseAugment": {"cfm"}, "FMBoostCFMSample": {"trajectory_length", "tileable", "strength"},
    "FMBoostUpscaleImage": {"vae", "mask", "tileable", "strength", "upscale_model"},
    "FMBoostPSUUpsample": {"vae", "tileable", "model", "cfm", "upscale_model"},
    "FMBoostUpscale": {"vae", "decode", "tileable", "strength", "model", "upscale_model"},
    "FMBoostRestore": {"tileable"},
}  # fmt: skip
WEIGHTS = Path(__file__).parents[1] / "fmboost_core/weights/models"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with pytest.MonkeyPatch.context() as patch:
        yield install(patch, tmp_path_factory.mktemp("host"))
        LOADED.clear()
        forget_pack()


@pytest.fixture
def host(installed: Host, tmp_path: Path) -> Host:
    """The method is psu, which interpolates, unless a test names another: the bundled upscale models take long."""
    installed.renew(tmp_path / "models")
    installed.asked["method"] = "psu"
    return installed


def load(host: Host, name: str = MODEL, dtype: str = "fp32") -> Any:
    return host.run("FMBoostLoadCFM", model=name, dtype=dtype).args[0]


LOADED: dict[str, Any] = {}


def ready(host: Host, name: str = MODEL) -> Any:
    """A model that is loaded once, as the host keeps it, for tests that leave it as it is."""
    if name not in LOADED:
        LOADED[name] = load(host, name)
    return LOADED[name]


def family_of(name: str) -> str:
    return name.partition("-")[0]


def vae_of(name: str) -> VAE:
    return VAE(FORMATS[family_of(name)])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latent(*size: int, batch: int = 1, family: str = "sd15", seed: int = 0, **others: Any) -> dict[str, Any]:
    """A LATENT as KSampler gives it: of the VAE's raw scale."""
    channels, factor, shift = SPACES[family]
    return {"samples": noise(batch, channels, *size, seed=seed) / factor + shift, **others}


def photo(height: int, width: int, batch: int = 1, channels: int = 3, seed: int = 0) -> Tensor:
    """A smooth IMAGE (B,H,W,channels) in [0,1]."""
    coarse = torch.rand(batch, channels, 5, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).movedim(1, -1)


def detailed(side: int) -> Tensor:
    """An IMAGE (1,side,side,3) in [0,1] with blobs of many sizes."""
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(1, 3, n, n, generator=generator) / n for n in (4, 8, 16, 32)]
    blobs = torch.stack([F.interpolate(layer, (side, side), mode="bicubic") for layer in layers]).sum(0)
    return (blobs + 0.5).clamp(0, 1).movedim(1, -1)


# --- the core's answers, in the host's scales


@cache
def core_model(name: str) -> Any:
    return load_model(name)


def boosted(samples: Tensor, name: str = MODEL, **options: Any) -> Tensor:
    """`boost` from raw samples to raw samples."""
    space = FORMATS[family_of(name)]
    codec = codec_of(space.latent_channels)
    return space.process_out(boost(space.process_in(samples), core_model(name), codec, **options))


def flowed(start: Tensor, guide: Tensor, name: str = MODEL, **options: Any) -> Tensor:
    """`flow` from raw samples to raw samples."""
    space = FORMATS[family_of(name)]
    return space.process_out(flow(space.process_in(start), space.process_in(guide), core_model(name), **options))


def enlarged(image: Tensor, name: str = MODEL, codec: Any = None, **options: Any) -> Tensor:
    """`upscale_image` from IMAGE to IMAGE."""
    codec = codec_of(FORMATS[family_of(name)].latent_channels)
    large = upscale_image(image.movedim(-1, 1) * 2 - 1, core_model(name), codec, **options)
    return large.movedim(1, -1) / 2 + 0.5


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def chain(host: Host, small: dict[str, Any], cfm: Any, *, noise_step: int = -1, seed: int = 0, **sample: Any) -> Any:
    """PSU Upsample, Noise Augment, CFM Sample: the last one's output, the start and the guide."""
    vae = vae_of(cfm.spec.name)
    guide = host.run("FMBoostPSUUpsample", latent=small, vae=vae, cfm=cfm).args[0]
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, noise_step=noise_step, seed=seed).args[0]
    return host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide, **sample), start, guide


# --- schemas


def test_every_schema_is_one_that_the_host_takes(host: Host) -> None:
    assert set(host.nodes) == {
        "FMBoostLoadCFM", "FMBoostPSUUpsample", "FMBoostNoiseAugment", "FMBoostCFMSample", "FMBoostUpscale",
        "FMBoostUpscaleImage", "FMBoostRestore", "FMBoostAttentionScale",
    }  # fmt: skip
    for node_id, node in host.nodes.items():
        schema = node.GET_SCHEMA()
        assert schema.category == "FMBoost" and schema.display_name and schema.description, node_id
        assert all(output.display_name for output in schema.outputs), node_id
        for widget in schema.inputs:
            if isinstance(widget, Widget):
                assert widget.tooltip and widget.problem(widget.start()) is None, f"{node_id}: {widget.id}"
        optional = {i.id for i in schema.inputs if i.optional}
        assert optional == OPTIONAL.get(node_id, set()), node_id
        required = {i.id: None for i in schema.inputs if i.id not in optional}
        inspect.signature(node.execute).bind(**required)
        inspect.signature(node.execute).bind(**{i.id: None for i in schema.inputs})


def test_the_stub_refuses_what_the_host_refuses(host: Host) -> None:
    shared = IO.Schema("Shared", inputs=[IO.Latent.Input("latent")], outputs=[IO.Latent.Output("latent")])
    with pytest.raises(ValueError, match="must be unique between inputs and outputs"):
        shared.validate()
    with pytest.raises(TypeError, match="search_aliases"):
        IO.Schema("New", search_aliases=["newer than the oldest host"])
    for value, problem in [(-2, "value_smaller_than_min"), (1000, "value_bigger_than_max")]:
        with pytest.raises(ValueError, match=problem):
            host.run("FMBoostNoiseAugment", latent=latent(8, 8), noise_step=value)
    with pytest.raises(ValueError, match="value_not_in_list"):
        host.run("FMBoostLoadCFM", model="none")
    with pytest.raises(TypeError, match="required_input_missing: latent"):
        host.run("FMBoostNoiseAugment")


# --- Load CFM


def test_the_folder_of_models_is_added_to_what_is_there(host: Host, tmp_path: Path) -> None:
    host.add_model_folder_path("fmboost", "/another/disk")
    for name in ("own.safetensors", "sub/deep.safetensors", "notes.txt"):
        (tmp_path / "models/fmboost" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models/fmboost" / name).touch()
    (widget,) = (i for i in host.nodes["FMBoostLoadCFM"].GET_SCHEMA().inputs if i.id == "model")
    *bundled, own, deep = widget.options
    assert (own, deep, bundled[0]) == ("own.safetensors", "sub/deep.safetensors", MODEL)
    assert sorted(bundled) == sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    paths, suffixes = host.folders["fmboost"]
    assert paths == ["/another/disk", str(tmp_path / "models/fmboost")] and suffixes == {".safetensors"}


def test_the_bundled_upscale_models_are_among_the_host_s(host: Host) -> None:
    host.nodes["FMBoostLoadCFM"].GET_SCHEMA()  # as the host does when it starts
    host.folders["upscale_models"][1].update({".safetensors", ".pth"})  # as the host sets them
    found = host.get_filename_list("upscale_models")
    assert sorted(found) == sorted(f"{name}.safetensors" for name in bundled_upscale_models())


def test_the_server_tells_the_page_what_the_models_are_for(host: Host, tmp_path: Path) -> None:
    (tmp_path / "models/fmboost").mkdir(parents=True)
    (tmp_path / "models/fmboost/broken.safetensors").write_bytes(b"none")
    host.nodes["FMBoostLoadCFM"].GET_SCHEMA()  # as the host does when it starts: it makes the folder known
    steps = asyncio.run(host.routes["/fmboost/solvers"](None))
    assert (steps["euler"], steps["heun"], steps["rk4"], steps["dopri5"]) == (1, 2, 4, 0)
    facts = asyncio.run(host.routes["/fmboost/models"](None))
    assert facts["sd15-x4"] == {"scale": 4.0, "nfe": 4, "noise_step": 400, "strength": 1.0, "guide": "psu"}
    assert facts[FAST] == {"scale": 2.0, "nfe": 1, "noise_step": 400, "strength": 1.0, "guide": "psu"}
    assert facts[DIRECT]["guide"] == "fast"
    assert "broken.safetensors" not in facts


@pytest.mark.parametrize(
    ("dtype", "weights", "tolerance"),
    [
        ("auto", torch.float32, 1e-6),
        ("fp32", torch.float32, 1e-6),
        ("fp16", torch.float16, 1e-2),
        ("bf16", torch.bfloat16, 0.1),
    ],
)
def test_weights_have_the_type_that_is_chosen_and_the_cpu_computes_in_single(
    host: Host, dtype: str, weights: torch.dtype, tolerance: float
) -> None:
    cfm = load(host, dtype=dtype)
    assert {p.dtype for p in cfm.network.parameters()} == {weights}
    assert cfm.dtype == torch.float32 and cfm.device == torch.device("cpu")
    x, guide = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    expected = core_model(MODEL).velocity(x, 0.5, core_model(MODEL).conditioning(guide))
    with torch.inference_mode():
        assert difference(cfm.velocity(x, 0.5, cfm.conditioning(guide)), expected) < tolerance


def test_auto_is_what_the_host_chooses_for_so_many_parameters(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def unet_dtype(device: Any = None, model_params: int = 0, supported_dtypes: Any = ()) -> torch.dtype:
        asked.append((device, model_params, set(supported_dtypes)))
        return torch.bfloat16

    mm = host.modules["comfy.model_management"]
    monkeypatch.setattr(mm, "unet_dtype", unet_dtype)
    monkeypatch.setattr(mm, "unet_manual_cast", lambda weights, device, supported: None)
    cfm = load(host, dtype="auto")
    parameters = sum(p.numel() for p in core_model(MODEL).network.parameters())
    assert asked == [(torch.device("cpu"), parameters, {torch.float32, torch.bfloat16, torch.float16})]
    assert cfm.dtype == torch.bfloat16 == next(cfm.network.parameters()).dtype
    load(host, dtype="fp16")
    assert len(asked) == 1


def test_every_evaluation_asks_the_host_for_the_memory_it_takes(host: Host) -> None:
    cfm = ready(host)
    host.run("FMBoostUpscale", latent=latent(8, 8), vae=VAE(), cfm=cfm, nfe=3)
    host.run("FMBoostUpscale", latent=latent(8, 8, batch=2), vae=VAE(), cfm=cfm, nfe=2)
    assert all(models == [cfm.patcher] for models, _ in host.loads)
    assert cfm.patcher.model is cfm.network
    single = cfm.working_memory(16 * 16, torch.float32)
    assert [memory for _, memory in host.loads] == [single] * 3 + [2 * single] * 2 and single > 10**5


def test_a_newer_hosts_patcher_is_taken_where_there_is_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(load(host).patcher) is ModelPatcher
    newer = type("CoreModelPatcher", (ModelPatcher,), {})
    monkeypatch.setattr(host.modules["comfy.model_patcher"], "CoreModelPatcher", newer, raising=False)
    assert type(load(host).patcher) is newer


def test_a_replaced_file_is_loaded_again_and_a_missing_one_is_named(host: Host, tmp_path: Path) -> None:
    file, node = tmp_path / "models/fmboost/sub/own.safetensors", host.nodes["FMBoostLoadCFM"]
    file.parent.mkdir(parents=True)
    shutil.copy(WEIGHTS / f"{FAST}.safetensors", file)
    assert load(host, "sub/own.safetensors").spec.name == FAST
    before = node.fingerprint_inputs(model="sub/own.safetensors", dtype="fp32")
    assert node.fingerprint_inputs(model="sub/own.safetensors", dtype="fp32") == before
    assert node.fingerprint_inputs(model="sub/own.safetensors", dtype="fp16") != before
    assert node.fingerprint_inputs(model=FAST, dtype="fp32") != before
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1000))
    assert node.fingerprint_inputs(model="sub/own.safetensors", dtype="fp32") != before
    file.unlink()
    for call in (node.execute, node.fingerprint_inputs):
        with pytest.raises(host.core.CheckpointError, match=r"no model 'sub/own.safetensors' any more.*sd15-x2"):
            call(model="sub/own.safetensors", dtype="fp32")


# --- the chain


@pytest.mark.parametrize("name", DOUBLING)
def test_the_chain_and_the_one_node_are_boost(host: Host, name: str) -> None:
    small, cfm = latent(8, 10, batch=2, family=family_of(name)), ready(host, name)
    wanted = boosted(small["samples"], name, seed=5)
    assert wanted.std() * SPACES[family_of(name)][1] > 0.1  # raw
    in_three, _, _ = chain(host, small, cfm, seed=5)
    in_one = host.run("FMBoostUpscale", latent=small, vae=vae_of(name), cfm=cfm, seed=5)
    for output in (in_three, in_one):
        assert output.ui is None and difference(output.args[0]["samples"], wanted) < 1e-4


@pytest.mark.parametrize(("family", "space"), SPACES.items())
def test_a_start_is_mixed_in_the_scale_of_its_family(host: Host, family: str, space: tuple[int, float, float]) -> None:
    """The closed form, in numbers that are neither the core's nor the host's; both have the same."""
    known = FAMILIES[family]
    assert (known.channels, known.scaling_factor, known.shift) == space
    guide, (channels, factor, shift) = latent(8, 9, family=family), space
    start = host.run("FMBoostNoiseAugment", latent=guide, family=family, noise_step=300, seed=11).args[0]["samples"]
    kept = 1 / (1 + math.tan(math.pi * 300 / 2000) ** 2)
    mixed = math.sqrt(kept) * (guide["samples"] - shift) * factor + math.sqrt(1 - kept) * noise(
        1, channels, 8, 9, seed=11
    )
    assert difference(start, mixed / factor + shift) < 1e-3
    assert (
        difference(
            host.run("FMBoostNoiseAugment", latent=guide, family=family, noise_step=0).args[0]["samples"],
            guide["samples"],
        )
        < 1e-4
    )


def test_without_a_model_the_start_has_the_papers_noise(host: Host) -> None:
    own, paper, other = (
        host.run("FMBoostNoiseAugment", latent=latent(8, 8), noise_step=step).args[0]["samples"]
        for step in (-1, 400, 401)
    )
    assert torch.equal(own, paper) and difference(own, other) > 1e-3


def test_a_model_tells_its_own_noise_step_and_family(host: Host) -> None:
    """SDXL's is 100. The widget of the family is not used where a model is connected."""
    guide, cfm = latent(8, 8, family="sdxl"), ready(host, SDXL_MODEL)
    own, typed, other = (
        host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, family="sd15", noise_step=step).args[0]["samples"]
        for step in (-1, 100, 400)
    )
    mixed = noise_augment(SDXL().process_in(guide["samples"]), alpha_bar(100), noise(1, 4, 8, 8))
    assert torch.equal(own, typed) and difference(own, other) > 0.1
    assert difference(own, SDXL().process_out(mixed)) < 1e-3


def test_the_noise_step_goes_from_noise_augment_to_cfm_sample(host: Host) -> None:
    """The network is told how much noise the start has: another number makes another latent."""
    cfm = ready(host)
    output, start, guide = chain(host, latent(8, 8), cfm, noise_step=600)
    found = output.args[0]["samples"]
    told = {step: flowed(start["samples"], guide["samples"], noise_step=step) for step in (400, 600)}
    assert difference(found, told[600]) < 1e-4 and difference(found, told[400]) > 1e-2
    assert difference(found, boosted(latent(8, 8)["samples"], noise_step=600)) < 1e-4
    foreign = {"samples": start["samples"]}  # from another pack: nobody knows its step
    alone = host.run("FMBoostCFMSample", cfm=cfm, start=foreign, guide=guide).args[0]["samples"]
    assert difference(alone, told[400]) < 1e-4


def test_zero_evaluations_are_the_models_own(host: Host) -> None:
    small, fast = latent(8, 8), ready(host, FAST)
    once, four = boosted(small["samples"], FAST, nfe=1), boosted(small["samples"], FAST, nfe=4)
    output, _, _ = chain(host, small, fast, nfe=0)
    assert difference(output.args[0]["samples"], once) < 1e-4 < difference(once, four)
    output, _, _ = chain(host, small, fast, nfe=4)
    assert difference(output.args[0]["samples"], four) < 1e-4


def test_cfm_sample_follows_the_flow_as_its_widgets_say(host: Host) -> None:
    start, guide, cfm = latent(8, 120), latent(8, 120, seed=1), ready(host)
    found = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide, nfe=4, solver="heun", tile="48").args[0]
    wanted = flowed(start["samples"], guide["samples"], nfe=4, solver="heun", tile=48)
    assert difference(found["samples"], wanted) < 1e-4
    assert host.bars[-1].shown[-1] == (8, 8)  # four evaluations of two tiles
    euler = flowed(start["samples"], guide["samples"], nfe=4, tile=48)
    assert difference(found["samples"], euler) > 1e-2


@pytest.mark.parametrize(
    ("size", "whole", "shape"),
    [
        ({}, (32, 48), (32, 48)),
        ({"size_by": "scale", "scale": 1.5}, (24, 36), (24, 36)),
        ({"size_by": "width x height", "width": 256, "height": 256}, (32, 48), (32, 32)),
        ({"size_by": "megapixels", "megapixels": 0.2}, (46, 68), (46, 68)),
    ],
)
@pytest.mark.parametrize("method", ["psu", "bilinear", "nearest"])
def test_psu_upsample_makes_a_guide_of_the_size_that_is_chosen(
    host: Host, size: dict[str, Any], whole: tuple[int, int], shape: tuple[int, int], method: str
) -> None:
    """Each widget of the size counts with its own choice alone. Another aspect covers and is cut at the centre."""
    small, edge = latent(16, 24), (whole[1] - shape[1]) // 2
    found = host.run("FMBoostPSUUpsample", latent=small, vae=VAE(), method=method, **size).args[0]["samples"]
    if method == "psu":
        pixels = VAE().decode(small["samples"]).movedim(-1, 1)
        large = F.interpolate(pixels, (whole[0] * 8, whole[1] * 8), mode="bilinear").movedim(1, -1)
        wanted = VAE().encode(large[:, :, edge * 8 : large.shape[2] - edge * 8])
    else:
        mode = "bilinear" if method == "bilinear" else "nearest-exact"
        wanted = F.interpolate(small["samples"], whole, mode=mode)[..., edge : whole[1] - edge]
    assert found.shape == (1, 4, *shape) and difference(found, wanted) < 1e-4


@pytest.mark.parametrize("size", [{"scale": 2.0}, {"size_by": "width x height", "width": 160, "height": 112}])
def test_a_direct_model_needs_no_vae(host: Host, size: dict[str, Any]) -> None:
    """FMBoost Upscale and the three nodes give what `boost` gives without a codec."""
    name = DIRECT
    small, cfm = latent(8, 12, family=family_of(name), batch=2), ready(host, name)
    whole = host.run("FMBoostUpscale", latent=small, cfm=cfm, seed=3, method="auto", **size).args[0]
    guide = host.run("FMBoostPSUUpsample", latent=small, cfm=cfm, method="auto", **size).args[0]
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, seed=3).args[0]
    parts = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide).args[0]
    target = {"size": (160, 112)} if "width" in size else {"scale": 2}
    space = FORMATS[family_of(name)]
    wanted = space.process_out(boost(space.process_in(small["samples"]), core_model(name), None, seed=3, **target))
    assert difference(whole["samples"], wanted) < 1e-3
    assert difference(parts["samples"], wanted) < 1e-3
    assert whole["fmboost_family"] == parts["fmboost_family"] == family_of(name)
    assert guide["fmboost_kind"] == "latent"


def test_what_needs_a_vae_or_a_guide_network_asks_for_it(host: Host) -> None:
    small, cfm, error = latent(8, 8), ready(host), host.core.ConfigError
    for node, more in (("FMBoostPSUUpsample", {}), ("FMBoostUpscale", {"cfm": cfm})):
        with pytest.raises(error, match=r"The method psu needs the VAE .*; connect one, or choose the method auto"):
            host.run(node, latent=small, **more)
    with pytest.raises(error, match=r"The input decode needs the VAE .*; connect one, or switch decode off"):
        host.run("FMBoostUpscale", latent=small, cfm=ready(host, DIRECT), method="auto", decode=True)
    for more in ({}, {"cfm": cfm}):
        with pytest.raises(
            error, match="method fast needs a model with a guide network, as those have whose names end in -direct"
        ):
            host.run("FMBoostPSUUpsample", latent=small, method="fast", **more)
    with pytest.raises(error, match="sd15-x2 has no guide network"):
        host.run("FMBoostUpscale", latent=small, cfm=cfm, method="fast")
    resized = host.run("FMBoostPSUUpsample", latent=small, method="bilinear").args[0]
    assert resized["samples"].shape == (1, 4, 16, 16)
    with pytest.raises(host.core.LatentError, match="SDXL"):  # another family's guide network
        foreign = latent(8, 8, fmboost_family="sdxl")
        host.run("FMBoostPSUUpsample", latent=foreign, cfm=ready(host, DIRECT), method="auto")


@pytest.mark.parametrize("node_id", ["FMBoostPSUUpsample", "FMBoostUpscale"])
def test_a_fast_guide_at_another_factor_is_warned_of(host: Host, node_id: str) -> None:
    wish = {"latent": natural("sd15", 16, 16), "cfm": ready(host, DIRECT), "method": "auto"}
    (text,) = host.run(node_id, scale=1.5, **wish).ui["text"]
    assert text.startswith(f"{DIRECT} was trained at 2x: at 1.5x its latents are blurred; choose 2x, or")
    twice = host.run(node_id, scale=2.0, **wish)
    assert "blurred" not in str(twice.ui)


def test_a_model_that_begins_without_noise_takes_the_guide_as_its_start(host: Host) -> None:
    """FMBoost Noise Augment leaves the guide as it is, and may be left out."""
    cfm = ready(host, "sdxl-x2-direct")
    guide = host.run("FMBoostPSUUpsample", latent=natural("sdxl", 16, 16), cfm=cfm, method="auto").args[0]
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm).args[0]
    assert torch.allclose(start["samples"], guide["samples"], atol=1e-5)
    made = [
        host.run("FMBoostCFMSample", cfm=cfm, start=x, guide=y)
        for x, y in ((start, guide), (guide, guide), (start, start))
    ]
    assert all(node.ui is None for node in made)
    for node in made[1:]:
        assert torch.allclose(node.args[0]["samples"], made[0].args[0]["samples"], atol=1e-4)


@pytest.mark.parametrize("connected", [True, False])
def test_a_bare_latent_beside_the_picture_is_warned_of_where_it_is_connected(
    host: Host, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    monkeypatch.setattr(sys.modules[f"{PACK}.nodes.host"], "is_connected", lambda output: connected)
    wish = {"latent": natural("sd15", 16, 16), "cfm": ready(host, DIRECT), "method": "auto", "vae": VAE()}
    made = host.run("FMBoostUpscale", scale=1.5, decode=True, **wish)
    assert ("blurred" in str(made.ui)) == connected


def test_a_resized_guide_is_told_to_the_model_as_one(host: Host) -> None:
    """`sdxl-x2` knows resized latents as a kind of their own."""
    small, cfm = latent(8, 8, family="sdxl"), ready(host, SDXL_MODEL)
    guide = host.run("FMBoostPSUUpsample", latent=small, vae=vae_of(SDXL_MODEL), method="bilinear").args[0]
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, seed=3).args[0]
    found = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide).args[0]
    wanted = boosted(small["samples"], SDXL_MODEL, upsample="bilinear", seed=3)
    assert difference(found["samples"], wanted) < 1e-3
    assert set(found) == {"samples", "fmboost_family"}


# --- trajectory


@pytest.mark.parametrize(
    ("length", "places"),
    [(0, [4]), (1, [4]), (2, [0, 4]), (3, [0, 2, 4]), (4, [0, 1, 3, 4]), (5, [0, 1, 2, 3, 4]), (64, [0, 1, 2, 3, 4])],
)
def test_a_trajectory_is_evenly_chosen_from_start_to_end(host: Host, length: int, places: list[int]) -> None:
    """Of the first item, at four evaluations: the start and four states."""
    start, guide = latent(8, 8, batch=2, noise_mask=torch.ones(2, 8, 8)), latent(8, 8, batch=2, seed=1)
    states: list[Tensor] = [SD15().process_in(start["samples"])]
    flowed(start["samples"], guide["samples"], nfe=4, on_state=lambda t, state: states.append(state))
    wanted = SD15().process_out(torch.cat([states[place][:1] for place in places]))
    for strength in (1.0, 1.4):
        end, path = host.run(
            "FMBoostCFMSample", cfm=ready(host), start=start, guide=guide, nfe=4, trajectory_length=length,
            strength=strength,
        ).args  # fmt: skip
        assert set(path) == {"samples", "fmboost_family"}
        assert torch.allclose(path["samples"][:-1], wanted[:-1], atol=1e-4)
        assert torch.equal(path["samples"][-1:], end["samples"][:1])
        assert (difference(end["samples"][:1], wanted[-1:]) < 1e-4) is (strength == 1)


def test_an_adaptive_solver_tells_the_start_and_the_end(host: Host) -> None:
    pytest.importorskip("torchdiffeq")
    start, guide = latent(8, 8), latent(8, 8, seed=1)
    options = {"cfm": ready(host), "start": start, "guide": guide, "solver": "bosh3", "trajectory_length": 5}
    end, path = host.run("FMBoostCFMSample", **options).args
    assert difference(path["samples"], torch.cat([start["samples"], end["samples"]])) < 1e-4
    (bar,) = host.bars
    values = [value for value, _ in bar.shown]
    assert values == list(range(1, len(values) + 1)) and all(value < total for value, total in bar.shown)


# --- what a LATENT carries


@pytest.mark.parametrize(("node_id", "shape"), [("FMBoostPSUUpsample", (18, 32)), ("FMBoostUpscale", (18, 32))])
def test_a_mask_is_resized_and_cut_with_its_latent(host: Host, node_id: str, shape: tuple[int, int]) -> None:
    """From 1:1 to 16:9, twice as wide: what is in the upper 28 of 128 rows is cut away."""
    mask = torch.zeros(2, 128, 128)
    mask[:, :20], mask[:, 60:68, 20:60] = 1, 1
    small = latent(16, 16, batch=2, noise_mask=mask, kept=["as it was"], downscale_ratio_spacial=8)
    before = dict(small)
    cfm = {"cfm": ready(host), "nfe": 1} if node_id == "FMBoostUpscale" else {}
    options = {"method": "nearest", "size_by": "width x height", "width": 256, "height": 144}
    large = host.run(node_id, latent=small, vae=VAE(), **options, **cfm).args[0]
    assert large["samples"].shape == (2, 4, *shape) and large["noise_mask"].shape == (2, 144, 256)
    assert large["noise_mask"][:, :50].max() == 0
    assert large["noise_mask"][:, 66:78, 42:118].min() == 1 and large["noise_mask"][:, :, 124:].max() == 0
    assert large["kept"] is small["kept"] and "downscale_ratio_spacial" not in large
    assert small == before  # the host caches what comes in


def test_a_mask_of_latents_keeps_its_shape_and_type(host: Host) -> None:
    mask = torch.eye(16).half().reshape(1, 1, 16, 16)
    large = host.run("FMBoostPSUUpsample", latent=latent(16, 16, noise_mask=mask), vae=VAE(), method="nearest").args[0]
    assert large["noise_mask"].shape == (1, 1, 32, 32) and large["noise_mask"].dtype == torch.float16


def test_extra_keys_go_along_the_chain(host: Host) -> None:
    small = latent(8, 8, noise_mask=torch.ones(1, 64, 64), batch_index=[3], kept="as it was")
    output, start, guide = chain(host, small, ready(host), nfe=1)
    for made in (guide, start, output.args[0]):
        assert made["kept"] == "as it was" and made["batch_index"] == [3] and made["noise_mask"].shape[-1] == 128
    assert set(output.args[0]) == {*small, "fmboost_family"}  # and no longer what is a start's
    start["kept"] = "the start's"
    sampled = host.run("FMBoostCFMSample", cfm=ready(host), start=start, guide=guide, nfe=1).args[0]
    assert sampled["kept"] == "the start's"


@pytest.mark.parametrize("node_id", ["chain", "FMBoostUpscale"])
def test_an_item_keeps_the_noise_of_its_place_in_the_batch(host: Host, node_id: str) -> None:
    cfm, batch = ready(host), latent(8, 8, batch=3)

    def made(small: dict[str, Any]) -> Tensor:
        if node_id == "chain":
            return chain(host, small, cfm, seed=7, nfe=1)[0].args[0]["samples"]
        return host.run(node_id, latent=small, vae=VAE(), cfm=cfm, seed=7, nfe=1).args[0]["samples"]

    whole = made(batch)
    assert difference(whole, boosted(batch["samples"], seed=[7, 8, 9], nfe=1)) < 1e-4
    picked = made({"samples": batch["samples"][[2, 0]], "batch_index": [2, 0]})
    assert difference(picked, whole[[2, 0]]) < 1e-4
    assert difference(made({"samples": batch["samples"][2:]}), whole[2:]) > 0.1  # without its place


def test_the_greatest_seed_works(host: Host) -> None:
    seeds = [2**64 - 1, 2**64]
    found = host.run(
        "FMBoostUpscale", latent=latent(8, 8, batch=2), vae=VAE(), cfm=ready(host), seed=seeds[0], nfe=1
    ).args[0]["samples"]  # fmt: skip
    assert difference(found, boosted(latent(8, 8, batch=2)["samples"], seed=seeds, nfe=1)) < 1e-4


def test_a_latent_in_half_precision_is_taken(host: Host) -> None:
    small = latent(8, 8)["samples"].half()
    found = host.run("FMBoostUpscale", latent={"samples": small}, vae=VAE(), cfm=ready(host), nfe=1).args[0]["samples"]
    assert found.dtype == torch.float32 and difference(found, boosted(small.float(), nfe=1)) < 1e-4


# --- Upscale


@pytest.mark.filterwarnings("ignore:.*was trained at noise step")
@pytest.mark.parametrize(
    ("widgets", "options"),
    [
        ({}, {}),
        ({"scale": 3.5, "nfe": 2}, {"scale": 3.5, "nfe": 2}),  # two stages
        ({"size_by": "width x height", "width": 160, "height": 112}, {"scale": None, "size": (160, 112)}),
        ({"size_by": "megapixels", "megapixels": 0.03}, {"scale": None, "megapixels": 0.03}),
        ({"nfe": 2, "solver": "midpoint"}, {"nfe": 2, "solver": "midpoint"}),
        ({"seed": 9}, {"seed": 9}),
        ({"noise_step": 150}, {"noise_step": 150}),
        ({"noise_step": 0}, {"noise_step": 0}),
        ({"method": "bilinear"}, {"upsample": "bilinear"}),
        ({"method": "nearest"}, {"upsample": "nearest"}),
        ({"tileable": "x"}, {"tileable": "x"}),
        ({"strength": 1.4}, {"strength": 1.4}),
    ],
)
def test_each_widget_of_upscale_is_an_option_of_boost(
    host: Host, widgets: dict[str, Any], options: dict[str, Any]
) -> None:
    small, usual = latent(8, 10), {"scale": 2.0, "nfe": 1, "seed": 0}
    found = host.run("FMBoostUpscale", latent=small, vae=VAE(), cfm=ready(host), **widgets).args[0]["samples"]
    assert difference(found, boosted(small["samples"], **usual | options)) < 1e-4
    default = boosted(small["samples"], **usual)
    assert not widgets or found.shape != default.shape or difference(found, default) > 1e-2


def test_upscale_to_four_times_with_the_model_for_it(host: Host) -> None:
    found = host.run("FMBoostUpscale", latent=latent(8, 8), vae=VAE(), cfm=ready(host, "sd15-x4"), scale=4.0).args[0]
    assert difference(found["samples"], boosted(latent(8, 8)["samples"], "sd15-x4", scale=4)) < 1e-4
    assert host.bars[-1].shown == [(1, 4), (2, 4), (3, 4), (4, 4)]  # in one stage


def test_the_tile_is_the_networks(host: Host) -> None:
    small, cfm, seen = latent(4, 60), load(host), []
    forward = cfm.network.forward
    cfm.network.forward = lambda x, *rest: seen.append(x.shape[-1]) or forward(x, *rest)
    host.run("FMBoostUpscale", latent=small, vae=VAE(), cfm=cfm, nfe=1, tile="48")
    assert len(seen) == 2 and max(seen) < 120
    host.run("FMBoostUpscale", latent=small, vae=VAE(), cfm=cfm, nfe=1, tile="off")
    assert seen[2:] == [120]


def test_the_vae_works_in_tiles_where_it_is_told_to(host: Host) -> None:
    cfm, image = {"cfm": ready(host), "nfe": 1}, photo(32, 32)
    for node_id, given in [
        ("FMBoostPSUUpsample", {"latent": latent(8, 8)}), ("FMBoostUpscale", {"latent": latent(8, 8)} | cfm),
        ("FMBoostUpscaleImage", {"image": image} | cfm),
    ]:  # fmt: skip
        for tiled, widget in ((False, {}), (True, {"tiled_vae": True})):
            vae = VAE()
            host.run(node_id, vae=vae, **widget, **given)
            assert vae.calls and all(call.endswith("_tiled") == tiled for call in vae.calls), node_id


# --- Upscale Image


def test_a_seamless_texture_stays_seamless_through_every_node(host: Host) -> None:
    small, image, cfm = latent(8, 6), photo(32, 24), ready(host, FAST)
    guide = host.run("FMBoostPSUUpsample", latent=small, vae=VAE(), tileable="both").args[0]
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, seed=5).args[0]
    found = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide, tileable="both").args[0]["samples"]
    assert difference(found, boosted(small["samples"], FAST, seed=5, tileable="both")) < 1e-4
    large = host.run("FMBoostUpscaleImage", image=image, cfm=cfm, tileable="y").args[0]
    assert difference(large, enlarged(image, FAST, tileable="y")) < 1e-4
    moved = [torch.roll(pictures, (k, 2 * k), (1, 2)) for k, pictures in ((4, large), (2, image))]
    rolled, plain = (
        host.run("FMBoostRestore", image=i, small=s, tileable="both").args[0] for i, s in (moved, (large, image))
    )
    assert difference(rolled, torch.roll(plain, (4, 8), (1, 2))) < 1e-5
    shifted, direct = {"samples": small["samples"].roll((2, 3), (2, 3))}, ready(host, DIRECT)
    here, there = (
        host.run("FMBoostPSUUpsample", latent=x, cfm=direct, method="auto", tileable="both").args[0]["samples"]
        for x in (small, shifted)
    )
    assert difference(there, here.roll((4, 6), (2, 3))) < 1e-4
    with pytest.raises(host.core.ConfigError, match="cannot be cropped"):
        size = {"size_by": "width x height", "width": 128, "height": 128}
        host.run("FMBoostPSUUpsample", latent=small, vae=VAE(), tileable="both", **size)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ({"scale": 2.5}, {"scale": 2.5}),
        ({"size_by": "width x height", "width": 72, "height": 64}, {"size": (72, 64)}),
        ({"size_by": "megapixels", "megapixels": 0.01}, {"megapixels": 0.01}),
    ],
)
@pytest.mark.parametrize("with_vae", [False, True])
def test_upscale_image_makes_any_size_with_and_without_a_vae(
    host: Host, size: dict[str, Any], options: dict[str, Any], with_vae: bool
) -> None:
    image, vae = photo(33, 21, channels=4), {"vae": VAE()} if with_vae else {}
    found = host.run("FMBoostUpscaleImage", image=image, cfm=ready(host), seed=4, nfe=2, **size, **vae).args[0]
    wanted = enlarged(image, seed=4, nfe=2, **options)
    assert difference(found, wanted) < 1e-4
    if "scale" in size:
        assert found.shape == (1, 82, 52, 4)


def test_the_width_and_height_of_a_picture_are_any_number_of_pixels(host: Host) -> None:
    """301x299 is enlarged to 602x598, as on the command line; latents come in steps of 8 pixels."""
    steps = {
        node_id: {i.step for i in host.nodes[node_id].GET_SCHEMA().inputs if i.id in ("width", "height")}
        for node_id in ("FMBoostUpscale", "FMBoostUpscaleImage")
    }
    assert steps == {"FMBoostUpscale": {8}, "FMBoostUpscaleImage": {1}}
    size = {"size_by": "width x height", "width": 61, "height": 43}
    found = host.run("FMBoostUpscaleImage", image=photo(21, 30), cfm=ready(host, FAST), vae=VAE(), **size).args[0]
    assert found.shape == (1, 43, 61, 3)


@pytest.mark.parametrize("given", ["mask", "alpha"])
def test_what_is_hidden_leaves_no_fringe_and_the_mask_goes_along(host: Host, given: str) -> None:
    """Load Image gives the colours of the file and 1 - alpha as the mask; both ways are the core's one."""
    shown = (photo(24, 30)[..., :1] * 3 - 1).clamp(0, 1)
    image = torch.where(shown > 0, torch.full((1, 24, 30, 3), 0.8), torch.tensor(0.0))
    whole = torch.cat([image, shown], dim=-1)
    inputs = {"image": whole} if given == "alpha" else {"image": image, "mask": 1 - shown[..., 0]}
    large, mask = host.run("FMBoostUpscaleImage", cfm=ready(host, FAST), **inputs).args
    wanted = enlarged(whole, FAST, scale=2)
    assert difference(large, wanted if given == "alpha" else wanted[..., :3]) < 1e-4
    assert difference(mask, 1 - wanted[..., 3]) < 1e-4
    bright = enlarged(torch.full((1, 24, 30, 3), 0.8), FAST, scale=2)
    assert difference(large[..., :3], bright) < 1e-4


def test_the_mask_of_an_opaque_picture_changes_nothing(host: Host) -> None:
    """Load Image gives 64x64 zeros for a picture without transparency."""
    image, cfm = photo(24, 30, batch=2), ready(host, FAST)
    large, mask = host.run("FMBoostUpscaleImage", image=image, cfm=cfm, mask=torch.zeros(1, 64, 64)).args
    assert torch.equal(large, host.run("FMBoostUpscaleImage", image=image, cfm=cfm).args[0])
    assert mask.shape == (2, 48, 60) and not mask.any()
    with pytest.raises(host.core.ImageError, match="2 pictures and 3 masks"):
        host.run("FMBoostUpscaleImage", image=image, cfm=cfm, mask=torch.ones(3, 24, 30))


@pytest.mark.parametrize("method", ["psu", "bilinear"])
def test_upscale_also_gives_the_decoded_and_restored_picture(host: Host, method: str) -> None:
    """As VAE Decode and Restore behind it do, and with no decoding more than they need."""
    small, cfm, vae, widgets = latent(8, 8, batch=2), ready(host), VAE(), {"nfe": 1, "method": method}
    alone, blocked = host.run("FMBoostUpscale", latent=small, vae=VAE(), cfm=cfm, **widgets).args
    assert "switch it on" in blocked.message
    large, image = host.run("FMBoostUpscale", latent=small, vae=vae, cfm=cfm, decode=True, **widgets).args
    assert torch.equal(large["samples"], alone["samples"]) and vae.calls.count("decode") == 2
    pictures = [VAE().decode(samples) for samples in (large["samples"], small["samples"])]
    wanted = host.run("FMBoostRestore", image=pictures[0], small=pictures[1]).args[0]
    assert image.shape == (2, 128, 128, 3) and difference(image, wanted) < 1e-5


def sharper(image: Tensor) -> Tensor:
    """An upscale model: (B,3,h,w) in [0,1] to four times the size, with contrast that interpolation does not make."""
    return (F.interpolate(image, scale_factor=4, mode="bicubic") * 1.2 - 0.1).clamp(0, 1)


def test_an_upscale_model_enlarges_in_the_place_of_interpolation(host: Host) -> None:
    small, cfm = latent(8, 8, batch=2), ready(host)
    wanted = boosted(small["samples"], upscale_model=sharper, scale=2, seed=3)
    one = host.run("FMBoostUpscale", latent=small, vae=VAE(), cfm=cfm, seed=3, upscale_model=sharper, decode=True)
    assert difference(one.args[0]["samples"], wanted) < 1e-3
    assert one.args[1].shape == (2, 128, 128, 3)
    guide = host.run("FMBoostPSUUpsample", latent=small, vae=VAE(), upscale_model=sharper).args[0]
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, seed=3).args[0]
    parts = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide).args[0]
    assert difference(parts["samples"], wanted) < 1e-3, "CFM Sample knows of it, and takes its strength"
    full = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide, strength=1).args[0]
    assert difference(full["samples"], wanted) > 1e-2
    own = {"cfm": ready(host, DIRECT), "method": "auto"}
    direct = host.run("FMBoostPSUUpsample", latent=small, vae=VAE(), upscale_model=sharper, **own)
    assert difference(direct.args[0]["samples"], guide["samples"]) < 1e-4, "a model with a guide network leaves it out"


@pytest.mark.parametrize("name", bundled_upscale_models())
def test_the_flow_adds_little_behind_a_bundled_upscale_model(host: Host, name: str) -> None:
    """The host does not tell which file it has loaded: its weights do."""
    bundled = connected(name)
    fixed = {"latent": latent(8, 8), "vae": VAE(), "cfm": ready(host), "upscale_model": bundled, "seed": 3}
    found, weak, strong = (
        host.run("FMBoostUpscale", **fixed, **asked).args[0]["samples"]
        for asked in ({}, {"strength": 0.05}, {"strength": 0.3})
    )
    assert difference(found, weak) < 1e-5 and difference(found, strong) > 0.02


@pytest.mark.parametrize("method", ["auto", "psu"])
def test_a_latent_that_nothing_takes_is_not_made(host: Host, method: str) -> None:
    """Behind a bundled upscale model the picture then takes no more of the VAE than the small picture."""
    vae, small, whole = VAE(), latent(4, 4), {"cfm": ready(host), "seed": 3, "method": method}
    large, image = host.run("FMBoostUpscale", latent=small, vae=VAE(), decode=True, **whole).args
    host.of_workflow({"images": [NODE_ID, 1]}, {"samples": ["8", 0]})
    unmade, alone = host.run("FMBoostUpscale", latent=small, vae=vae, decode=True, **whole).args
    assert "nothing was connected" in unmade.message and torch.equal(alone, image)
    assert vae.calls == (["decode"] if method == "auto" else ["decode", "encode", "decode"])
    host.of_workflow({"images": [NODE_ID, 1]}, {"samples": [NODE_ID, 0]})
    made = host.run("FMBoostUpscale", latent=small, vae=VAE(), decode=True, **whole).args[0]
    assert torch.equal(made["samples"], large["samples"])


def test_the_host_runs_the_node_again_when_something_takes_its_latent(host: Host) -> None:
    def fingerprint(*others: dict[str, Any], **given: Any) -> Any:
        host.of_workflow(*others)
        return host.copy_of(host.nodes["FMBoostUpscale"]).fingerprint_inputs(seed=1, **given)

    image, both = [{"images": [NODE_ID, 1]}], [{"images": [NODE_ID, 1]}, {"samples": [NODE_ID, 0]}]
    for decode in (True, None):  # None: a link decides
        assert fingerprint(*image, decode=decode) != fingerprint(*both, decode=decode)
    for given in ({}, {"decode": False}):
        assert fingerprint(*image, **given) == fingerprint(*both, **given), "the latent is made in any case"
    host.running.clear()
    unknown = host.copy_of(host.nodes["FMBoostUpscale"]).fingerprint_inputs(decode=True)
    assert unknown == fingerprint(*both, decode=True), "where the host does not tell, the latent is made"


def test_sd3_has_an_upscale_model_of_its_own(host: Host) -> None:
    """The family comes from the model of FMBoost."""
    vae, cfm, asked = vae_of("sd3-x2"), ready(host, "sd3-x2"), {"method": "auto"}
    small = {"samples": FAMILIES["sd3"].to_raw(torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0)))}
    image = host.run("FMBoostUpscale", latent=small, vae=vae, cfm=cfm, decode=True, **asked).args[1].movedim(-1, 1)
    seen = vae.decode(small["samples"]).movedim(-1, 1) * 2 - 1
    mean = enlarged_by(seen.clamp(-1, 1), (64, 64), load_upscale_model("fmboost-mean-x2")) / 2 + 0.5
    assert difference(image, mean) < 1e-3
    with_cfm = host.run("FMBoostPSUUpsample", latent=small, vae=vae, cfm=cfm, **asked).args[0]["samples"]
    assert difference(with_cfm, vae.encode(mean.movedim(1, -1))) < 1e-2


class Described:
    """A network as spandrel describes it, which the host's loader uses."""

    def __init__(self, network: Any) -> None:
        self.model = network

    def __call__(self, image: Tensor) -> Tensor:
        large: Tensor = self.model(image)
        return large


def connected(name: str) -> Described:
    """A bundled upscale model as the host's loader gives it."""
    return Described(load_upscale_network(find_upscale_model(name)))


def test_auto_takes_the_bundled_upscale_models(host: Host) -> None:
    """The family's for latents in the chain and in FMBoost Upscale, the one for images in FMBoost Upscale Image."""
    small, image, vae, cfm = latent(8, 8), photo(32, 40), VAE(), ready(host)
    bundled = {"upscale_model": connected("fmboost-latent-x2")}

    def three(**asked: Any) -> Tensor:
        guide = host.run("FMBoostPSUUpsample", latent=small, vae=vae, **asked).args[0]
        start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, seed=3).args[0]
        parts = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide).args[0]
        assert set(parts) == {"samples", "fmboost_family"}, "what a guide tells stays behind"
        return parts["samples"]

    whole = {"latent": small, "vae": vae, "cfm": cfm, "seed": 3}
    found = host.run("FMBoostUpscale", method="auto", **whole).args[0]["samples"]
    assert difference(found, host.run("FMBoostUpscale", **whole, **bundled).args[0]["samples"]) < 1e-4
    assert difference(found, host.run("FMBoostUpscale", method="psu", **whole).args[0]["samples"]) > 0.1
    assert difference(found, three(method="auto")) < 1e-3, "CFM Sample takes the strength behind it too"
    assert difference(found, three(**bundled)) < 1e-3
    small = whole["latent"] = latent(2, 2)
    twice = host.run("FMBoostUpscale", method="auto", **whole, scale=4).args[0]["samples"]
    assert difference(twice, three(method="auto", scale=4)) < 1e-3, "any scale takes one stage"
    picture = {"image": image, "cfm": cfm, "vae": vae, "seed": 2}
    large = host.run("FMBoostUpscaleImage", method="auto", **picture).args[0]
    wanted = host.run("FMBoostUpscaleImage", **picture, upscale_model=connected("fmboost-image-x2")).args[0]
    assert difference(large, wanted) < 1e-4


def test_a_second_guide_forgets_the_first_ones_strength(host: Host) -> None:
    """As where the large latent of FMBoost goes through KSampler, and is enlarged once more."""
    small, vae, cfm = latent(4, 4), VAE(), ready(host)
    first = host.run("FMBoostPSUUpsample", latent=small, vae=vae, method="auto").args[0]
    assert first["fmboost_strength"] == 0.05 and first["fmboost_kind"] == "enlarged"
    second = host.run("FMBoostPSUUpsample", latent=first, vae=vae, method="psu").args[0]
    assert "fmboost_strength" not in second and second["fmboost_kind"] == "latent"
    whole = host.run("FMBoostUpscale", latent=first, vae=vae, cfm=cfm).args[0]
    assert not {"fmboost_strength", "fmboost_kind"} & set(whole)


def test_a_bundled_upscale_model_works_in_smaller_tiles_where_memory_runs_out(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, vae, cfm = photo(64, 48), VAE(), ready(host)
    wanted = host.run("FMBoostUpscaleImage", image=image, cfm=cfm, vae=vae, method="auto").args[0]
    asked = []

    def load(models: Any, memory_required: float = 0, **_: Any) -> None:
        asked.append(memory_required)
        if len(asked) == 1:
            raise torch.cuda.OutOfMemoryError("no more")

    monkeypatch.setattr(sys.modules["comfy.model_management"], "load_models_gpu", load)
    found = host.run("FMBoostUpscaleImage", image=image, cfm=cfm, vae=vae, method="auto").args[0]
    assert difference(found, wanted) < 1e-3 and host.emptied == 1


def test_auto_refuses_before_it_loads_an_upscale_model(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = sys.modules[f"{PACK}.nodes.upscale_model"].BundledUpscaleModel
    monkeypatch.setattr(bundled, "__call__", lambda *_: pytest.fail("it was used"))
    for node in ("FMBoostPSUUpsample", "FMBoostUpscale"):
        with pytest.raises(host.core.ConfigError, match="The method psu needs the VAE"):
            host.run(node, latent=latent(8, 8), cfm=ready(host), method="auto")


def test_the_picture_behind_an_upscale_model_is_its_own_with_the_flow_s_change(host: Host) -> None:
    image, cfm = photo(32, 40), ready(host)
    found = host.run("FMBoostUpscaleImage", image=image, cfm=cfm, vae=VAE(), upscale_model=sharper, seed=2).args[0]
    assert difference(found, enlarged(image, scale=2, seed=2, upscale_model=sharper)) < 1e-4


@pytest.mark.parametrize("method", ["fast", "bilinear", "nearest"])
def test_an_upscale_model_needs_pictures(host: Host, method: str) -> None:
    inputs = {"latent": latent(8, 8), "vae": VAE(), "cfm": ready(host, DIRECT), "upscale_model": sharper}
    for node in ("FMBoostUpscale", "FMBoostPSUUpsample"):
        with pytest.raises(host.core.ConfigError, match=f"but the guide method {method} works on latents"):
            host.run(node, method=method, **inputs)


@pytest.mark.parametrize("name", [name for name in DOUBLING if name != MODEL])
def test_a_picture_is_enlarged_through_its_familys_vae(host: Host, name: str) -> None:
    image, cfm = photo(32, 40), ready(host, name)
    found = host.run("FMBoostUpscaleImage", image=image, cfm=cfm, vae=vae_of(name), seed=2).args[0]
    assert difference(found, enlarged(image, name, scale=2, seed=2)) < 1e-4


@pytest.mark.parametrize("name", [name for name in DOUBLING if has_builtin_codec(name.partition("-")[0])])
def test_a_picture_is_enlarged_through_the_built_in_codec_of_its_family(host: Host, name: str) -> None:
    image = photo(32, 40)
    found = host.run("FMBoostUpscaleImage", image=image, cfm=ready(host, name), seed=2).args[0]
    codec = load_codec("builtin", family_of(name))
    wanted = upscale_image(image.movedim(-1, 1) * 2 - 1, core_model(name), codec, scale=2, seed=2)
    assert difference(found, wanted.movedim(1, -1) / 2 + 0.5) < 1e-4


def test_without_a_built_in_codec_a_vae_is_asked_for(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[f"{PACK}.fmboost_core.codecs.load"], "BUNDLED_CODECS", tmp_path)
    with pytest.raises(host.core.ConfigError, match="no built-in codec for SDXL latents; connect a VAE"):
        host.run("FMBoostUpscaleImage", image=photo(32, 40), cfm=ready(host, SDXL_MODEL))


def test_what_the_codec_loses_is_put_back_unless_told_otherwise(host: Host) -> None:
    image, cfm = photo(32, 32), ready(host, FAST)
    for restore in (True, False):
        found = host.run("FMBoostUpscaleImage", image=image, cfm=cfm, restore=restore).args[0]
        assert difference(found, enlarged(image, FAST, scale=2, restore=restore)) < 1e-4
    assert difference(found, enlarged(image, FAST, scale=2, restore=True)) > 1e-2


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_upscale_image_takes_the_other_methods(host: Host, method: str) -> None:
    image = photo(32, 32)
    found = host.run("FMBoostUpscaleImage", image=image, cfm=ready(host), nfe=1, method=method, noise_step=200).args[0]
    assert difference(found, enlarged(image, nfe=1, scale=2, upsample=method, noise_step=200)) < 1e-4


def test_an_unrestored_picture_takes_the_flow_behind_a_bundled_upscale_model(host: Host) -> None:
    """As the decoded latent that it is; the bar counts its evaluations alone."""
    host.run("FMBoostUpscaleImage", image=photo(24, 32), cfm=ready(host), method="auto", restore=False, nfe=2)
    assert host.bars[-1].shown == [(1, 2), (2, 2)]


def test_a_batch_of_pictures_is_its_singles_on_one_bar(host: Host) -> None:
    images, cfm = photo(24, 32, batch=3), ready(host)
    whole = host.run("FMBoostUpscaleImage", image=images, cfm=cfm, seed=6, nfe=2).args[0]
    (bar,) = host.bars
    assert bar.shown == [(value, 6) for value in range(1, 7)]
    for item in range(3):
        alone = host.run("FMBoostUpscaleImage", image=images[item : item + 1], cfm=cfm, seed=6 + item, nfe=2).args[0]
        assert torch.equal(alone, whole[item : item + 1])


# --- Restore


def test_restore_gives_the_small_pictures_colours_back(host: Host) -> None:
    """What the small picture shows comes from it; what is finer, and the transparency, from the large one."""
    small, alpha = photo(24, 32, batch=2), torch.rand(2, 48, 64, 1)
    large = F.interpolate(small.movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1) * 0.6 + 0.2
    grain = torch.tensor([0.02, -0.02]).repeat(32).reshape(1, 1, 64, 1)
    found = host.run("FMBoostRestore", image=torch.cat([large + grain, alpha], -1), small=small).args[0]
    assert found.shape == (2, 48, 64, 4) and torch.equal(found[..., 3:], alpha)
    shown = found[..., :3].reshape(2, 24, 2, 32, 2, 3)
    assert (shown.mean(dim=(2, 4)) - small).abs().mean() < 1e-2
    assert (large.reshape(2, 24, 2, 32, 2, 3).mean(dim=(2, 4)) - small).abs().mean() > 5e-2
    inner = (shown[..., 0, :] - shown[..., 1, :])[:, :, :, 4:-4]
    assert float(inner.mean()) == pytest.approx(0.04, abs=5e-3)


def test_restore_takes_one_small_picture_for_all_and_refuses_what_does_not_fit(host: Host) -> None:
    large, small = photo(32, 48, batch=2), photo(16, 24, batch=3)
    one = host.run("FMBoostRestore", image=large, small=small[:1]).args[0]
    two = host.run("FMBoostRestore", image=large, small=small[[0, 0]]).args[0]
    assert torch.equal(one, two)
    with pytest.raises(host.core.ImageError, match="connect them the other way round"):
        host.run("FMBoostRestore", image=small, small=large)
    with pytest.raises(host.core.ImageError, match="2 large images and 3 small ones"):
        host.run("FMBoostRestore", image=large, small=small)


def test_restore_says_on_the_node_where_the_small_picture_is_another(host: Host) -> None:
    large = detailed(96)
    small = F.interpolate(large.movedim(-1, 1), (48, 48), mode="area").movedim(1, -1)
    assert host.run("FMBoostRestore", image=large * 0.8 + 0.1, small=small).ui is None
    for wrong, says in ((small.flip(2), "shows something else"), (small.roll(3, 2), "is another crop")):
        (note,) = host.run("FMBoostRestore", image=large, small=wrong).ui["text"]
        assert says in note and "take the small image that the large one was made from" in note


# --- Attention Scale


@pytest.mark.parametrize(
    ("size", "trained_size", "stride"),
    [((128, 96), 512, 1), ((128, 96), 512, 4), ((32, 32), 512, 2), ((96, 160), 1024, 2), ((64, 64), 64, 8)],
)
def test_queries_are_scaled_by_the_root_of_the_logarithm_of_the_tokens(
    host: Host, size: tuple[int, int], trained_size: int, stride: int
) -> None:
    """sqrt(log_T N) at each level: N tokens now, T at the size that the model was trained on."""
    tokens, trained = (size[0] // stride) * (size[1] // stride), max(2, (trained_size // 8 // stride) ** 2)
    q, k, v, found = attended(host, trained_size, size, tokens)
    assert torch.equal(found[1], k) and torch.equal(found[2], v)
    assert difference(found[0], q * math.sqrt(math.log(tokens) / math.log(trained))) < 1e-5


def test_at_the_trained_size_queries_stay(host: Host) -> None:
    q, _, _, found = attended(host, 768, (96, 96), 48 * 48)
    assert torch.equal(found[0], q)


def attended(host: Host, trained_size: int, size: tuple[int, int], tokens: int) -> Any:
    """A patch of the node's model, called as the host's transformer block calls it: q, k, v and what it makes."""
    model = diffusion_model(UNetModel())
    patched = host.run("FMBoostAttentionScale", model=model, trained_size=trained_size).args[0]
    assert model.model_options == {"transformer_options": {}} and patched is not model
    (patch,) = patched.model_options["transformer_options"]["patches"]["attn1_patch"]
    q, k, v = (noise(2, tokens, 6, seed=seed) for seed in range(3))
    extra = {
        "original_shape": [2, 4, *size], "n_heads": 2, "dim_head": 3, "block": ("input", 1), "block_index": 0,
        "cond_or_uncond": [0, 1], "sigmas": torch.ones(1),
    }  # fmt: skip
    return q, k, v, patch(q, k, v, extra)


def diffusion_model(network: nn.Module | None = None, space: Any = None) -> ModelPatcher:
    """The host's MODEL."""
    cpu = torch.device("cpu")
    return ModelPatcher(SimpleNamespace(diffusion_model=network, latent_format=space or SD15()), cpu, cpu)


class Transformer(nn.Module):
    """SD3, FLUX, Wan: they call patches with other arguments, after the attention, or never."""


def test_attention_of_another_kind_is_refused(host: Host) -> None:
    """A patch there fails while the host samples, or does nothing without a word."""
    video = UNetModel()
    video.add_module("attention", SpatialVideoTransformer())
    for network, name in ((Transformer(), "Transformer"), (video, "UNetModel")):
        with pytest.raises(host.core.ConfigError, match=f"U-Nets of SD1.5, SD2 and SDXL.*{name}; remove or bypass"):
            host.run("FMBoostAttentionScale", model=diffusion_model(network))


# --- refusals and warnings


def test_a_latent_of_other_channels_is_refused_with_the_spaces_it_could_be_of_and_a_way_out(host: Host) -> None:
    wide, narrow, cfm = latent(8, 8, family="flux1"), latent(8, 8), ready(host)
    sentence = (
        r"for SD1.5 latents \(4 channels\), but the latent has 16 channels \(SD3, FLUX.1 or Stable Cascade\); "
        "(FMBoost comes with models for SD1.5 and SDXL: decode the latent and enlarge the picture with FMBoost Upscale "
        "Image|connect a latent of that family, or choose a model for this one in FMBoost Load CFM)"
    )
    for node_id, given in [
        ("FMBoostNoiseAugment", {"latent": wide}), ("FMBoostNoiseAugment", {"latent": wide, "cfm": cfm}),
        ("FMBoostCFMSample", {"cfm": cfm, "start": wide, "guide": narrow}),
        ("FMBoostCFMSample", {"cfm": cfm, "start": narrow, "guide": wide}),
        ("FMBoostUpscale", {"cfm": cfm, "latent": wide, "vae": VAE()}),
    ]:  # fmt: skip
        with pytest.raises(host.core.LatentError, match=sentence):
            host.run(node_id, **given)
    vae = VAE()
    vae.latent_channels = 16
    with pytest.raises(host.core.LatentError, match=r"latent has 4 channels .*but the VAE has 16"):
        host.run("FMBoostPSUUpsample", latent=narrow, vae=vae, method="nearest")
    for node_id, given in [("FMBoostUpscale", {"latent": narrow}), ("FMBoostUpscaleImage", {"image": photo(16, 16)})]:
        whose = "latent" if "latent" in given else "model"
        words = f"but the VAE has 16 channels .*connect the VAE of the {whose}'s family"
        with pytest.raises(host.core.LatentError, match=words):
            host.run(node_id, cfm=cfm, vae=vae, **given)


@pytest.mark.parametrize(
    ("channels", "names"),
    [(3, "pixel space"), (8, "ACE-Step"), (64, "HunyuanImage 2.1"), (128, "FLUX.2"), (99, "no known family")],
)
def test_latents_of_no_familys_channels_are_named(host: Host, channels: int, names: str) -> None:
    """With and without a model or a VAE to compare them with."""
    strange, vae = {"samples": noise(1, channels, 8, 8)}, VAE()
    vae.latent_channels = channels
    for node_id, given in [
        ("FMBoostUpscale", {"vae": VAE(), "cfm": ready(host)}), ("FMBoostUpscale", {"vae": vae, "cfm": ready(host)}),
        ("FMBoostPSUUpsample", {"vae": vae}), ("FMBoostNoiseAugment", {}),
    ]:  # fmt: skip
        with pytest.raises(host.core.LatentError) as refused:
            host.run(node_id, latent=strange, **given)
        assert str(refused.value) == (
            f"The latent has {channels} channels ({names}), for which FMBoost has no model; {DECODE}."
        )


DECODE = "decode the latent and enlarge the picture with FMBoost Upscale Image"
VIDEOS = r"\(Qwen-Image/Wan 2.1, HunyuanVideo, Cosmos, CogVideoX or SeedVR2\)"


@pytest.mark.parametrize(
    ("strange", "words"),
    [
        ({"samples": noise(1, 16, 1, 8, 8)}, f"has 16 channels and an axis of frames {VIDEOS}, for which .*; {DECODE}"),
        ({"samples": noise(1, 48, 3, 8, 8)}, r"has 48 channels and 3 frames or layers \(Wan 2.2\), .* pictures"),
        ({"samples": noise(1, 4, 3, 8, 8)}, r"has 4 channels and 3 frames or layers \(no known family"),
        ({"samples": noise(1, 64, 8)}, r"is of sound \(Stable Audio or ACE-Step 1.5\); connect the latent of an image"),
        ({"samples": noise(1, 8, 16, 8), "type": "audio"}, r"is of sound \(ACE-Step\); connect the latent of an image"),
        ({"samples": noise(1, 64, 8), "type": "hunyuan3dv2"}, "is of a 3D shape; connect the latent of an image"),
        ({"samples": noise(4, 8)}, r"has the shape \(4, 8\)"),
    ],
)
def test_what_is_no_latent_of_images_is_refused_by_its_right_name(host: Host, strange: Any, words: str) -> None:
    cfm, still = ready(host), latent(8, 8)
    for node_id, given in [
        ("FMBoostPSUUpsample", {"latent": strange, "vae": VAE()}), ("FMBoostNoiseAugment", {"latent": strange}),
        ("FMBoostUpscale", {"latent": strange, "vae": VAE(), "cfm": cfm}),
        ("FMBoostCFMSample", {"cfm": cfm, "start": strange, "guide": still}),
        ("FMBoostCFMSample", {"cfm": cfm, "start": still, "guide": strange}),
    ]:  # fmt: skip
        with pytest.raises(host.core.LatentError, match=f"FMBoost enlarges latents .* of images, but this one {words}"):
            host.run(node_id, **given)


@pytest.mark.parametrize("node_id", ["FMBoostPSUUpsample", "FMBoostUpscale"])
def test_the_diffusion_model_names_a_foreign_latent(host: Host, node_id: str) -> None:
    """Where channels leave a choice, its latent format does not; its own VAE is no better then."""
    wan, cascade, vae = space("Wan21", 16), space("SC_Prior", 16), VAE()
    vae.latent_channels = 16
    cfm = {"cfm": ready(host)} if node_id == "FMBoostUpscale" else {}
    for samples, model, sentence in [
        (noise(1, 16, 1, 8, 8), wan, r"axis of frames \(Qwen-Image/Wan 2.1\)"),
        (noise(1, 16, 8, 8), wan, r"^The diffusion model is for Qwen-Image/Wan 2.1 latents \(16 channels\), .*decode"),
        (noise(1, 16, 8, 8), cascade, r"^The diffusion model is for Stable Cascade latents \(16 channels\), for which"),
        (noise(1, 4, 8, 8), space("SC_B", 4), r"is for Stable Cascade's stage B latents \(4 channels\), for which"),
    ]:  # fmt: skip
        with pytest.raises(host.core.LatentError, match=sentence):
            host.run(node_id, latent={"samples": samples}, vae=vae, model=diffusion_model(space=model), **cfm)


def space(name: str, channels: int) -> Any:
    """An object of one of the host's classes of latent formats."""
    return type(name, (), {"latent_channels": channels})()


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"latent_channels": 16, "latent_dim": 3}, r"Qwen-Image/Wan 2.1, HunyuanVideo, .* latents \(16 channels\)"),
        ({"latent_channels": 16, "latent_dim": 3, "first_stage_model": type("WanVAE", (), {})()}, "Qwen-Image/Wan 2.1"),
        ({"latent_channels": 48, "latent_dim": 3, "first_stage_model": type("WanVAE", (), {})()}, "Wan 2.2"),
        ({"latent_channels": 64, "latent_dim": 1}, "Stable Audio or ACE-Step 1.5"),
        ({"latent_channels": 16, "first_stage_model": type("StageC_coder", (), {})()}, "Stable Cascade"),
        ({"first_stage_model": type("StageA", (), {})(), "downscale_ratio": 4}, "Stable Cascade's stage B"),
        ({"downscale_ratio": 4}, "4x4-pixel"),
    ],
)
def test_the_vae_names_a_foreign_latent(host: Host, facts: dict[str, Any], named: str) -> None:
    """By its class, its axes, and the pixels of a latent."""
    vae = VAE(tells=False)
    vars(vae).update(facts)
    sentence = f"^The VAE is for {named}.*, for which FMBoost has no model; {DECODE}"
    for node_id, cfm in (("FMBoostPSUUpsample", {}), ("FMBoostUpscale", {"cfm": ready(host)})):
        with pytest.raises(host.core.LatentError, match=sentence):
            host.run(node_id, latent=latent(8, 8), vae=vae, **cfm)
    sentence = f"for SD1.5 latents .4 channels., but the VAE is for {named}.*connect the VAE of the model's family"
    with pytest.raises(host.core.LatentError, match=sentence):
        host.run("FMBoostUpscaleImage", image=photo(16, 16), vae=vae, cfm=ready(host))
    assert not vae.calls


def test_sound_beside_video_is_refused(host: Host) -> None:
    for channels, name in ((128, "LTX Video"), (24, "MiniMax H3")):
        with pytest.raises(host.core.LatentError, match=rf"is of video with sound \({name}\); decode its video"):
            host.run("FMBoostPSUUpsample", latent={"samples": Nested(channels)}, vae=VAE())


class Nested:
    """A newer host's nested tensor: several tensors in one LATENT, of which it tells the first one's shape."""

    is_nested, ndim = True, 5

    def __init__(self, channels: int) -> None:
        self.shape = (1, channels, 3, 8, 8)


def test_an_error_shows_no_path_in_the_hosts_dialog(host: Host) -> None:
    """The dialog names an error by its module and its class; the module's name has the pack's folder in it."""
    with pytest.raises(host.core.LatentError) as refused:
        host.run("FMBoostNoiseAugment", latent={"samples": noise(4, 8)})
    assert (refused.type.__module__, refused.type.__qualname__) == ("fmboost", "LatentError")


def natural(family: str, *size: int) -> dict[str, Any]:
    """A LATENT whose channels change from position to position as a family's do: clouds, mixed alike."""
    mixes = {"sd15": SD15_STEPS, "sdxl": SDXL_STEPS}
    deviations, correlations = (torch.tensor(values) for values in mixes[family])
    matrix = torch.eye(4)
    pairs = torch.triu_indices(4, 4, offset=1)
    matrix[pairs[0], pairs[1]] = matrix[pairs[1], pairs[0]] = correlations
    clouds = F.avg_pool2d(noise(1, 4, size[0] + 2, size[1] + 2), 3, stride=1) * 3
    mixed = torch.einsum("ij,bjhw->bihw", torch.linalg.cholesky(matrix), clouds)
    return {"samples": mixed * deviations.reshape(1, 4, 1, 1)}


# Standard deviations of the differences between neighbours, and their correlations: means over photographs.
SD15_STEPS = ((4.7, 4.4, 3.8, 3.7), (0.15, 0.06, 0.50, -0.25, 0.07, 0.35))
SDXL_STEPS = ((5.4, 6.6, 8.0, 6.0), (0.45, 0.06, 0.34, -0.16, 0.25, 0.17))
OTHER = (
    "The model sd15-x2 is for SD1.5 latents (4 channels), but the latent looks like one of SDXL; expect wrong colours "
    "or patterns, or connect a latent of that family, or choose a model for this one in FMBoost Load CFM."
)


def test_what_the_core_warns_of_is_on_the_nodes_face(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    cfm, strange = ready(host), natural("sdxl", 32, 32)
    step = "sd15-x2 was trained at noise step 100 to 700, not 900; expect artefacts."
    start = host.run("FMBoostNoiseAugment", latent=strange, cfm=cfm, noise_step=900)
    assert sorted(start.ui["text"]) == [OTHER, step]
    image = host.run("FMBoostUpscaleImage", image=photo(16, 16, batch=2), cfm=cfm, nfe=1, noise_step=900)
    assert image.ui == {"text": [step]}
    assert caplog.text.count(f"FMBoost: {step}") == 2 and caplog.text.count(f"FMBoost: {OTHER}") == 1


def test_values_that_are_far_too_large_are_told_in_the_hosts_terms(host: Host) -> None:
    """A LATENT is raw by contract: that FMBoost takes scaled latents is no advice here."""
    loud = {"samples": latent(16, 16)["samples"] * 5}
    (text,) = host.run("FMBoostUpscale", latent=loud, vae=VAE(), cfm=ready(host), nfe=1).ui["text"]
    assert re.match(r"The latent's values are [45]\.\d times as large as those of SD1.5 usually are.*KSampler", text)


# --- families: what tells them, and the odd one


def test_statistics_name_the_odd_one(host: Host) -> None:
    """Of latent, VAE and model, the one that the other two outvote."""
    sd, xl, cfm = natural("sd15", 32, 32), natural("sdxl", 32, 32), ready(host)
    given = {"cfm": cfm, "nfe": 1, "scale": 1.0}
    assert host.run("FMBoostUpscale", latent=sd, vae=VAE(), **given).ui is None
    (text,) = host.run("FMBoostUpscale", latent=xl, vae=VAE(), **given).ui["text"]
    assert text.startswith("The model sd15-x2 and the VAE are for SD1.5 latents (4 channels), but the latent look")
    refused = [
        (sd, SDXL(), "The model sd15-x2 is for SD1.5 latents (4 channels), as the latent seems to be, but the VAE is "
         "for SDXL latents (4 channels); connect the VAE of the latent's family."),
        (xl, SDXL(), "The VAE is for SDXL latents (4 channels), as the latent seems to be, but the model sd15-x2 is "
         "for SD1.5 latents (4 channels); choose another model in FMBoost Load CFM."),
    ]  # fmt: skip
    for small, space, sentence in refused:
        with pytest.raises(host.core.LatentError) as error:
            host.run("FMBoostUpscale", latent=small, vae=VAE(space), **given)
        assert str(error.value) == sentence
    (text,) = host.run("FMBoostPSUUpsample", latent=sd, vae=VAE(SDXL())).ui["text"]
    assert text == (
        "The latent looks like one of SD1.5, but the VAE is for SDXL latents (4 channels); expect wrong colours or "
        "patterns, or connect the VAE of the latent's family."
    )


def test_a_vae_that_does_not_tell_its_family_is_asked_for_a_test_image(host: Host) -> None:
    """Once, where the node uses it. The bundled codec encodes as SD1.5's VAE does."""
    silent, cfm, known = VAE(tells=False), ready(host, SDXL_MODEL), natural("sdxl", 32, 32)
    (text,) = host.run("FMBoostUpscale", latent=known, vae=silent, cfm=cfm, nfe=1, scale=1.0).ui["text"]
    assert text.startswith(
        "The model sdxl-x2 is for SDXL latents (4 channels), as the latent seems to be, but the VAE looks like one of "
        "SD1.5; expect wrong colours or patterns, or connect the VAE"
    )
    first = len(silent.calls)
    host.run("FMBoostUpscale", latent=known, vae=silent, cfm=cfm, nfe=1, scale=1.0)
    assert len(silent.calls) - first == first - 1
    unused = VAE(tells=False)
    host.run("FMBoostUpscale", latent=known, vae=unused, cfm=cfm, nfe=1, method="nearest", scale=1.0)
    assert not unused.calls


def test_statistics_tell_flux_from_sd3(host: Host, tmp_path: Path) -> None:
    """Both have 16 channels. A VAE that does not tell its family is not taken for one without evidence."""
    from networks import TINY, make_model

    space, small = FAMILIES["flux1"], {"samples": clouds_of(SD3_DEVIATIONS)}
    numbers = {"latent_factor": space.scaling_factor, "latent_shift": space.shift}
    (tmp_path / "models/fmboost").mkdir(parents=True)
    save_model(
        make_model(replace(TINY, channels=16), family="flux1", **numbers), tmp_path / "models/fmboost/f.safetensors"
    )
    given = {"vae": VAE(Flux()), "cfm": load(host, "f.safetensors"), "nfe": 1, "scale": 1.0}
    (text,) = host.run("FMBoostUpscale", latent=small, **given).ui["text"]
    assert text.startswith(
        "The model tiny and the VAE are for FLUX.1 latents (16 channels), but the latent looks like one of SD3; expect"
    )
    assert host.run("FMBoostUpscale", latent=small, **given, model=diffusion_model(space=Flux())).ui is None
    own = {"samples": clouds_of(FLUX_DEVIATIONS)}
    assert host.run("FMBoostUpscale", latent=own, **given).ui is None
    with pytest.raises(
        host.core.LatentError, match=r"but the model tiny is for FLUX.1 latents \(16 channels\); choose"
    ):
        host.run("FMBoostUpscale", latent=small, **given | {"vae": VAE(SD3())}, model=diffusion_model(space=SD3()))


# Standard deviations of the differences between neighbours, means over photographs.
SD3_DEVIATIONS = (0.9, 0.9, 1.0, 1.1, 0.9, 1.1, 1.0, 1.1, 1.0, 0.9, 1.0, 0.9, 0.9, 1.0, 1.2, 1.2)
FLUX_DEVIATIONS = (1.1, 1.3, 1.1, 0.9, 1.0, 0.8, 1.1, 1.0, 0.9, 0.9, 0.9, 0.9, 1.0, 0.9, 1.0, 1.1)


def clouds_of(deviations: tuple[float, ...]) -> Tensor:
    """Clouds (1,16,64,64) whose channels differ as a family's do, but more: their correlations are left out here."""
    clouds = F.avg_pool2d(noise(1, 16, 66, 66), 3, stride=1)
    return clouds * torch.tensor(deviations).reshape(1, 16, 1, 1) ** 3


class Flux2:
    latent_channels = 128


def test_the_diffusion_model_tells_the_family(host: Host) -> None:
    """With it nothing is guessed: the latent has another family's statistics here."""
    cfm, strange = ready(host), natural("sdxl", 32, 32)
    given = {"latent": strange, "vae": VAE(), "cfm": cfm, "nfe": 1, "scale": 1.0}
    assert host.run("FMBoostUpscale", **given).ui is not None
    assert host.run("FMBoostUpscale", **given, model=diffusion_model()).ui is None
    with pytest.raises(host.core.LatentError) as refused:
        host.run("FMBoostUpscale", **{**given, "vae": VAE(SDXL())}, model=diffusion_model(space=SDXL()))
    assert str(refused.value) == (
        "The diffusion model and the VAE are for SDXL latents (4 channels), but the model sd15-x2 is for SD1.5 latents "
        "(4 channels); choose another model in FMBoost Load CFM."
    )
    with pytest.raises(host.core.LatentError, match=r"The diffusion model is for FLUX.2 latents \(128 channels\), for"):
        host.run("FMBoostPSUUpsample", latent=strange, vae=VAE(), model=diffusion_model(space=Flux2()))
    guide = host.run("FMBoostPSUUpsample", latent=strange, vae=VAE(tells=False), model=diffusion_model()).args[0]
    assert guide["fmboost_family"] == "sd15"


def test_what_has_come_through_our_nodes_is_not_guessed_at(host: Host) -> None:
    """The guides, the starts and the large latents of the chain, and a second stage."""
    cfm, xl = ready(host), ready(host, SDXL_MODEL)
    small = {"latent": natural("sdxl", 16, 16), "method": "nearest"}
    assert "fmboost_family" not in host.run("FMBoostPSUUpsample", vae=VAE(), **small).args[0]
    guide = host.run("FMBoostPSUUpsample", vae=VAE(), model=diffusion_model(), **small).args[0]
    assert guide["fmboost_family"] == "sd15"
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm)
    end = host.run("FMBoostCFMSample", cfm=cfm, start=start.args[0], guide=guide, nfe=1)
    again = host.run("FMBoostUpscale", latent=end.args[0], vae=VAE(), cfm=cfm, nfe=1, scale=1.0)
    assert (start.ui, end.ui, again.ui) == (None, None, None)
    with pytest.raises(
        host.core.LatentError, match=r"sdxl-x2 is for SDXL .*but the latent is one of SD1.5 .*check the"
    ):
        host.run("FMBoostNoiseAugment", latent=end.args[0], cfm=xl)
    with pytest.raises(host.core.LatentError, match=r"latent and the VAE are for SD1.5 .*but the model sdxl-x2"):
        host.run("FMBoostUpscale", latent=end.args[0], vae=VAE(), cfm=xl)


# --- starts


def chained(host: Host, name: str = MODEL, **augment: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A model, a guide and its start."""
    cfm, guide = ready(host, name), latent(8, 8, family=family_of(name))
    return cfm, guide, host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm, **augment).args[0]


def test_start_and_guide_the_other_way_round_are_refused(host: Host) -> None:
    cfm, guide, start = chained(host)
    for wrong in (guide, start):
        with pytest.raises(host.core.LatentError, match=r"guide has a start.*connect the guide, from FMBoost PSU"):
            host.run("FMBoostCFMSample", cfm=cfm, start=wrong, guide=start)


@pytest.mark.parametrize("node_id", ["FMBoostPSUUpsample", "FMBoostNoiseAugment", "FMBoostUpscale"])
def test_a_start_is_taken_by_cfm_sample_alone(host: Host, node_id: str) -> None:
    cfm, _, start = chained(host)
    parts = {"FMBoostPSUUpsample": {"vae": VAE()}, "FMBoostUpscale": {"vae": VAE(), "cfm": cfm}}
    with pytest.raises(host.core.LatentError, match="has a start, the noisy latent from FMBoost Noise Augment"):
        host.run(node_id, latent=start, **parts.get(node_id, {}))


def test_a_start_without_noise_augment_is_warned_of(host: Host) -> None:
    cfm, guide, start = chained(host)
    (text,) = host.run("FMBoostCFMSample", cfm=cfm, start=guide, guide=guide, nfe=1).ui["text"]
    assert text.startswith("The input start has no note of FMBoost Noise Augment; noise step 400 is assumed.")
    assert host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide, nfe=1).ui is None


def test_a_start_for_another_model_is_refused(host: Host) -> None:
    _, guide, start = chained(host, FAST)
    with pytest.raises(host.core.LatentError, match=r"for sd15-x2-fast, but FMBoost CFM Sample has the model sd15-x2"):
        host.run("FMBoostCFMSample", cfm=ready(host), start=start, guide=guide)
    without = host.run("FMBoostNoiseAugment", latent=guide, family="sdxl").args[0]
    with pytest.raises(host.core.LatentError, match=r"for SDXL latents, but FMBoost CFM Sample has the model sd15-x2"):
        host.run("FMBoostCFMSample", cfm=ready(host), start=without, guide=guide)


def test_without_a_model_the_step_is_told_and_resolved_by_cfm_sample(host: Host) -> None:
    guide, cfm = latent(8, 8), ready(host)
    start = host.run("FMBoostNoiseAugment", latent=guide, noise_step=600).args[0]
    found = host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide)
    assert found.ui is None
    assert difference(found.args[0]["samples"], flowed(start["samples"], guide["samples"], noise_step=600)) < 1e-4
    start = host.run("FMBoostNoiseAugment", latent=latent(8, 8, family="sdxl"), family="sdxl", noise_step=400).args[0]
    guide = latent(8, 8, family="sdxl")
    (text,) = host.run("FMBoostCFMSample", cfm=ready(host, SDXL_MODEL), start=start, guide=guide, nfe=2).ui["text"]
    assert text == "sdxl-x2 was trained at noise step 100, not 400; expect artefacts."


def test_the_note_is_of_its_own_samples(host: Host) -> None:
    """Other nodes hand on every key. Of what a KSampler has made behind it, the note says nothing."""
    cfm, guide = ready(host), latent(8, 8, batch=3)
    start = host.run("FMBoostNoiseAugment", latent=guide, cfm=cfm).args[0]
    picked = start | {"samples": start["samples"][[2, 0, 2]]}
    assert host.run("FMBoostCFMSample", cfm=cfm, start=picked, guide=guide, nfe=1).ui is None
    sampled = start | {"samples": latent(8, 8, batch=3, seed=9)["samples"]}
    assert host.run("FMBoostUpscale", latent=sampled, vae=VAE(), cfm=cfm, nfe=1, scale=1.0).ui is None
    assert host.run("FMBoostCFMSample", cfm=cfm, start=sampled, guide=guide, nfe=1).ui is not None


def test_sizes_that_differ_are_told_in_pixels(host: Host) -> None:
    cfm, _, start = chained(host)
    with pytest.raises(host.core.LatentError, match="start is 1 of 64x64 pixels and the guide 2 of 32x32 pixels; conn"):
        host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=latent(4, 4, batch=2))


def test_a_start_is_no_evidence_of_a_family(host: Host) -> None:
    """It is noise in part; the guide is not."""
    cfm, strange, plain = ready(host), natural("sdxl", 32, 32), natural("sd15", 32, 32)
    told = host.run("FMBoostCFMSample", cfm=cfm, start=plain, guide=strange, nfe=1).ui["text"]
    untold = host.run("FMBoostCFMSample", cfm=cfm, start=strange, guide=plain, nfe=1).ui["text"]
    assert OTHER in told and OTHER not in untold


def test_latents_go_where_the_host_keeps_them(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = torch.device("meta")
    monkeypatch.setattr(host.modules["comfy.model_management"], "intermediate_device", lambda: elsewhere)
    cfm = ready(host)
    for node_id, given in [
        ("FMBoostPSUUpsample", {"latent": latent(8, 8), "vae": VAE()}),
        ("FMBoostNoiseAugment", {"latent": latent(8, 8)}),
        ("FMBoostCFMSample", {"cfm": cfm, "start": latent(8, 8), "guide": latent(8, 8)}),
        ("FMBoostUpscale", {"cfm": cfm, "latent": latent(8, 8), "vae": VAE()}),
    ]:  # fmt: skip
        outputs = host.run(node_id, **given).args
        latents = [output["samples"] for output in outputs if isinstance(output, dict)]
        assert latents and {samples.device for samples in latents} == {elsewhere}, node_id


# --- memory, interrupt, progress


def full_above(cfm: Any, width: int, after: int = 0) -> list[int]:
    """Let the network fail as a full device does on wider latents; the widths it is asked for, in order.

    after: so many evaluations are done before memory is short.
    """
    forward, asked = cfm.network.forward, []

    def failing(x: Tensor, *rest: Any) -> Tensor:
        asked.append(x.shape[-1])
        if x.shape[-1] > width and len(asked) > after:
            raise torch.cuda.OutOfMemoryError("as if the device were full")
        return forward(x, *rest)

    cfm.network.forward = failing
    return asked


@pytest.fixture
def old_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One that has no `is_oom` yet."""
    monkeypatch.delattr(host.modules["comfy.model_management"], "is_oom")
    return host


def wide_runs(host: Host, cfm: Any) -> dict[str, Callable[[], Any]]:
    start, guide = latent(4, 160), latent(4, 160, seed=1)
    small, image = latent(2, 80), photo(16, 640)
    return {
        "FMBoostCFMSample": lambda: host.run("FMBoostCFMSample", cfm=cfm, start=start, guide=guide, nfe=2, tile="off"),
        "FMBoostUpscale": lambda: host.run("FMBoostUpscale", cfm=cfm, latent=small, vae=VAE(), nfe=2, tile="off"),
        "FMBoostUpscaleImage": lambda: host.run("FMBoostUpscaleImage", cfm=cfm, image=image, nfe=2, tile="off"),
    }


@pytest.mark.parametrize("node_id", ["FMBoostCFMSample", "FMBoostUpscale", "FMBoostUpscaleImage"])
def test_where_memory_runs_out_it_goes_on_in_smaller_tiles(host: Host, node_id: str) -> None:
    cfm = load(host)
    run = wide_runs(host, cfm)[node_id]
    whole = run().args[0]
    asked = full_above(cfm, 100, after=1)
    tiled = run().args[0]
    pair = (whole, tiled) if isinstance(whole, Tensor) else (whole["samples"], tiled["samples"])
    assert difference(*pair) < 0.1
    assert asked[:3] == [160, 160, 112] and max(asked[3:]) <= 100 and host.emptied == 2
    bars = [[(1, 2), (2, 2)], [(1, 2)], [(place + 1, len(asked) - 3) for place in range(len(asked) - 3)]]
    assert [bar.shown for bar in host.bars] == bars


@pytest.mark.parametrize("age", ["host", "old_host"])
def test_where_memory_never_suffices_it_is_the_hosts_own_error(age: str, request: pytest.FixtureRequest) -> None:
    host = request.getfixturevalue(age)
    cfm = load(host)
    asked = full_above(cfm, 0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        wide_runs(host, cfm)["FMBoostCFMSample"]()
    assert asked[0] == 160 and 2 < len(asked) < 10


@pytest.mark.parametrize("known", [True, False])
def test_other_errors_are_raised_at_once(old_host: Host, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has no error for a full device, the oldest host calls every error one."""
    if not known:
        monkeypatch.setattr(old_host.modules["comfy.model_management"], "OOM_EXCEPTION", Exception)
    cfm = load(old_host)
    asked: list[int] = []

    def failing(x: Tensor, *rest: Any) -> Tensor:
        asked.append(x.shape[-1])
        raise RuntimeError("something else")

    cfm.network.forward = failing
    with pytest.raises(RuntimeError, match="something else"):
        wide_runs(old_host, cfm)["FMBoostCFMSample"]()
    assert asked == [160]


@pytest.mark.parametrize("node_id", ["FMBoostCFMSample", "FMBoostUpscale", "FMBoostUpscaleImage"])
@pytest.mark.parametrize("age", ["host", "old_host"])
def test_an_interrupt_stops_after_the_evaluation_it_comes_in(
    age: str, node_id: str, request: pytest.FixtureRequest
) -> None:
    host = request.getfixturevalue(age)
    cfm, asked = load(host), []
    forward = cfm.network.forward

    def interrupted(x: Tensor, *rest: Any) -> Tensor:
        asked.append(x.shape[-1])
        if len(asked) == 2:
            host.modules["comfy.model_management"].interrupt_current_processing()
        return forward(x, *rest)

    cfm.network.forward = interrupted
    given = {
        "FMBoostCFMSample": {"start": latent(8, 8), "guide": latent(8, 8)},
        "FMBoostUpscale": {"latent": latent(8, 8), "vae": VAE()}, "FMBoostUpscaleImage": {"image": photo(16, 16)},
    }[node_id]  # fmt: skip
    with pytest.raises(InterruptProcessingException):
        host.run(node_id, cfm=cfm, nfe=50, **given)
    assert len(asked) == 2
    assert host.run(node_id, cfm=cfm, nfe=1, **given)


def test_progress_counts_evaluations_times_tiles_times_stages(host: Host) -> None:
    cfm = ready(host)
    host.run("FMBoostUpscale", latent=latent(8, 8), vae=VAE(), cfm=cfm, nfe=3, scale=4.0)
    host.run("FMBoostUpscale", latent=latent(4, 60), vae=VAE(), cfm=cfm, nfe=2, tile="48")
    host.run("FMBoostUpscaleImage", image=photo(16, 16), cfm=cfm, scale=3.0, nfe=2)
    totals = [6, 4, 4]
    assert [bar.shown for bar in host.bars] == [[(i + 1, total) for i in range(total)] for total in totals]


def test_previews_are_shown_in_the_scaled_space(host: Host) -> None:
    host.shows_previews = True
    for node_id, given in [
        ("FMBoostCFMSample", {"start": latent(8, 8), "guide": latent(8, 8)}),
        ("FMBoostUpscale", {"latent": latent(8, 8), "vae": VAE()}),
    ]:  # fmt: skip
        host.previews.clear()
        large = host.run(node_id, cfm=ready(host), nfe=3, strength=1.0, **given).args[0]  # 1: the flow's last state
        assert [(kind, size) for kind, _, size in host.previews] == [("JPEG", 512)] * 3
        assert difference(host.previews[-1][1], SD15().process_in(large["samples"])) < 1e-4
        assert max(host.bars[-1].shown) == (3, 3)
