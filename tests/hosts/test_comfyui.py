"""The nodes in a real ComfyUI: its server, its queue, its memory management, its dialogs."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import make_model
from PIL import Image
from safetensors.torch import load_file, save_file
from weight_files import compact

from fmboost_core import boost, load_codec, load_model
from fmboost_core.families import FAMILIES
from fmboost_core.files.checkpoint import save_model
from fmboost_core.model import Model
from fmboost_core.recognition import recognise

from .comfyui import ComfyUI, Graph, Run
from .server import PACK, Refused, peak_memory

MODEL, FAST = "sd15-x2", "sd15-x2-fast"  # each made for one evaluation
NODES = {
    "FMBoostLoadCFM", "FMBoostPSUUpsample", "FMBoostNoiseAugment", "FMBoostCFMSample", "FMBoostUpscale",
    "FMBoostUpscaleImage", "FMBoostRestore", "FMBoostAttentionScale",
}  # fmt: skip
SIZE = {"size_by": "scale", "scale": 2.0, "width": 1024, "height": 1024, "megapixels": 1.0}
FLOW = {
    **SIZE, "nfe": 4, "seed": 7, "solver": "euler", "noise_step": -1, "method": "psu", "tile": "auto",
    "tiled_vae": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def picture(comfyui: ComfyUI) -> str:
    """A picture of 96x64 in the host's input folder."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
    image.save(comfyui.base / "input/picture.png")
    return "picture.png"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def start_graph(picture: str, vae: str = "taesd") -> Graph:
    """1: picture, 2: VAE, 3: its latent, 4: the model."""
    return {
        "1": node("LoadImage", image=picture),
        "2": node("VAELoader", vae_name=vae),
        "3": node("VAEEncode", pixels=["1", 0], vae=["2", 0]),
        "4": node("FMBoostLoadCFM", model=MODEL, dtype="auto"),
    }


def chain(graph: Graph, latent: list[Any], **sample: Any) -> Graph:
    """5: guide, 6: start, 7: end."""
    return graph | {
        "5": node(
            "FMBoostPSUUpsample", latent=latent, vae=["2", 0], cfm=["4", 0], **SIZE, method="psu", tiled_vae=False
        ),
        "6": node(
            "FMBoostNoiseAugment", latent=["5", 0], cfm=["4", 0], noise_step=-1, seed=7, family="sd15"
        ),
        "7": node(
            "FMBoostCFMSample", cfm=["4", 0], start=["6", 0], guide=["5", 0],
            **{"nfe": 4, "solver": "euler", "tile": "auto", "trajectory_length": 0, **sample},
        ),
    }  # fmt: skip


def image_graph(picture: str, side: int = 0, **flow: Any) -> Graph:
    """1: picture, 10: the same with so many pixels a side, 4: the model, 5: the large picture, 6: saved."""
    source = ["10", 0] if side else ["1", 0]
    graph = {
        "1": node("LoadImage", image=picture),
        "4": node("FMBoostLoadCFM", model=MODEL, dtype="auto"),
        "5": node("FMBoostUpscaleImage", image=source, cfm=["4", 0], restore=True, **FLOW | flow),
        "6": node("SaveImage", images=["5", 0], filename_prefix="test/large"),
    }
    scaled = node("ImageScale", image=["1", 0], upscale_method="bicubic", width=side, height=side, crop="disabled")
    return graph | ({"10": scaled} if side else {})


def latent_of(comfyui: ComfyUI, graph: Graph, source: list[Any]) -> torch.Tensor:
    """The samples that a graph makes, as the host saves them."""
    run = comfyui.run(graph | {"99": node("SaveLatent", samples=source, filename_prefix="test/latent")})
    assert run.error is None, run.error
    return load_file(comfyui.file(run, "99", "latents"))["latent_tensor"]


def test_the_host_starts_with_all_nodes_and_no_word_of_trouble(comfyui: ComfyUI) -> None:
    info = comfyui.get("/object_info")
    assert set(info) >= NODES
    assert all(info[name]["category"] == "FMBoost" for name in NODES)
    assert MODEL in info["FMBoostLoadCFM"]["input"]["required"]["model"][1]["options"]
    for name in NODES:
        inputs = {**info[name]["input"].get("required", {}), **info[name]["input"].get("optional", {})}
        widgets = {k: v for k, v in inputs.items() if v[0] in ("INT", "FLOAT", "BOOLEAN", "COMBO")}
        assert all("tooltip" in v[1] for v in widgets.values()), name
    log = comfyui.log.read_text()
    lines = [line for line in log.splitlines() if "FMBoost" in line and "open Templates" not in line]
    assert len(lines) == 1 and "IMPORT FAILED" not in lines[0], lines  # its import time alone


def test_the_first_start_says_what_to_do_and_the_second_does_not(
    comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base, logs = tmp_path_factory.mktemp("first"), []
    for _ in range(2):
        host = ComfyUI(Path(os.environ["COMFYUI_PATH"]), os.environ["COMFYUI_PYTHON"], base)
        logs.append(host.log.read_text())
        host.stop()
    said = [re.findall(r"FMBoost: open Templates, choose (\w+), and run (\w+)", log) for log in logs]
    assert said == [[("FMBoost", "image_upscale")], []] and (PACK / "workflows/image_upscale.json").exists()


def test_an_upscale_model_of_the_host_takes_the_place_of_interpolation(comfyui: ComfyUI, picture: str) -> None:
    """By the host's own loader and node: in one node, in three, and for a picture."""
    folder = comfyui.base / "models/upscale_models"
    folder.mkdir(exist_ok=True)
    save_file(compact(), folder / "compact.safetensors")
    loader = node("UpscaleModelLoader", model_name="compact.safetensors")
    bundled = node("UpscaleModelLoader", model_name="fmboost-latent-x2.safetensors")
    graph, flow = start_graph(picture) | {"20": loader}, FLOW | {"nfe": 1, "strength": 0.0}
    one = node(
        "FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], decode=True, upscale_model=["20", 0], **flow
    )  # fmt: skip
    whole = latent_of(comfyui, graph | {"8": one}, ["8", 0])
    three = chain(graph, ["3", 0], nfe=1)
    three["5"]["inputs"]["upscale_model"] = ["20", 0]
    assert torch.allclose(latent_of(comfyui, three, ["7", 0]), whole, atol=1e-2)
    plain = chain(graph, ["3", 0], nfe=1)
    assert not torch.allclose(latent_of(comfyui, plain, ["7", 0]), whole, atol=0.1)
    run = comfyui.run(graph | {"8": one, "9": node("SaveImage", images=["8", 1], filename_prefix="test/behind")})
    assert run.error is None and Image.open(comfyui.file(run, "9", "images")).size == (192, 128), run.error
    one["inputs"] |= {"upscale_model": ["21", 0], "method": "auto"}
    named = latent_of(comfyui, graph | {"8": one, "21": bundled}, ["8", 0])
    del one["inputs"]["upscale_model"]
    unnamed = latent_of(comfyui, graph | {"8": one}, ["8", 0])
    assert torch.allclose(unnamed, named, atol=1e-2), "auto takes it by itself"  # raw latents, to 8 and more
    one["inputs"]["upscale_model"] = ["20", 0]
    image = image_graph(picture, upscale_model=["20", 0], strength=0.001) | {"20": loader}
    image["30"] = node("ImageUpscaleWithModel", upscale_model=["20", 0], image=["1", 0])
    image["31"] = node("FMBoostRestore", image=["30", 0], small=["1", 0])
    image["32"] = node("SaveImage", images=["31", 0], filename_prefix="test/alone")
    run = comfyui.run(image)
    assert run.error is None, run.error
    ours, alone = (np.asarray(Image.open(comfyui.file(run, key, "images")), dtype=float) for key in ("6", "32"))
    assert np.abs(ours - alone).max() <= 2, "without a change: the upscale model's picture, restored"
    one["inputs"]["method"] = "bilinear"
    wrong = comfyui.run(graph | {"8": one, "9": node("SaveImage", images=["8", 1], filename_prefix="test/no")})
    assert wrong.error is not None and "An upscale model enlarges images, but the guide method bilinear" in wrong.error


def test_a_latent_is_made_when_something_takes_it(comfyui: ComfyUI, picture: str) -> None:
    """The host keeps the result of the node, so it has to notice that an output is connected that was not."""
    asked = FLOW | {"nfe": 1, "strength": 0.0, "method": "auto"}
    one = node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], decode=True, **asked)
    graph = start_graph(picture) | {"8": one}
    graph["9"] = node("SaveImage", images=["8", 1], filename_prefix="test/alone")
    runs = [comfyui.run(graph)]
    taken = graph | {"30": node("VAEDecode", samples=["8", 0], vae=["2", 0])}
    taken["31"] = node("SaveImage", images=["30", 0], filename_prefix="test/taken")
    runs.append(comfyui.run(taken))
    assert [run.error for run in runs] == [None, None]
    decoded = Image.open(comfyui.file(runs[1], "31", "images"))
    first, second = (np.asarray(Image.open(comfyui.file(run, "9", "images"))) for run in runs)
    assert decoded.size == (192, 128) and np.array_equal(first, second), "the picture stays the same"
    again = comfyui.run(taken)
    ran = {data["node"] for data in again.of("executing")}
    assert again.error is None and "8" not in ran, "with the same connections it is not run again"


def test_a_newer_host_is_told_of_search_words_and_rare_widgets(comfyui: ComfyUI) -> None:
    info = comfyui.get("/object_info")
    if "search_aliases" not in info["KSampler"]:
        assert "search_aliases" not in info["FMBoostUpscale"]
        return
    assert all("FMBoost" in info[name]["search_aliases"] for name in NODES)
    assert "latent upscale" in info["FMBoostUpscale"]["search_aliases"]
    assert info["FMBoostUpscale"]["input"]["required"]["solver"][1]["advanced"] is True
    assert "advanced" not in info["FMBoostUpscale"]["input"]["required"]["nfe"][1]


def test_the_page_is_told_what_the_models_are_for(comfyui: ComfyUI) -> None:
    """A file that is no model is left out; one that comes later is there at once."""
    folder = comfyui.base / "models/fmboost"
    (folder / "none.safetensors").write_bytes(b"none")
    model = load_model(MODEL)
    save_model(Model(replace(model.spec, name="four", scale=4, nfe=2), model.network), folder / "four.safetensors")
    try:
        facts = comfyui.get("/fmboost/models")
        assert facts[MODEL] == {"scale": 2, "nfe": 1, "noise_step": 400, "strength": 1.3, "guide": "psu"}
        assert facts[FAST] == {"scale": 2, "nfe": 1, "noise_step": 400, "strength": 1.0, "guide": "psu"}
        assert facts["four.safetensors"] == {"scale": 4, "nfe": 2, "noise_step": 400, "strength": 1.3, "guide": "psu"}
        assert "none.safetensors" not in facts
    finally:
        for name in ("none", "four"):
            (folder / f"{name}.safetensors").unlink()


def test_restore_gives_the_small_picture_back(comfyui: ComfyUI, picture: str) -> None:
    graph = {
        "1": node("LoadImage", image=picture),
        "2": node("ImageScaleBy", image=["1", 0], upscale_method="bilinear", scale_by=2.0),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("FMBoostRestore", image=["3", 0], small=["1", 0]),
        "5": node("FMBoostRestore", image=["1", 0], small=["3", 0]),
    }
    run = comfyui.run(graph | {"6": node("SaveImage", images=["4", 0], filename_prefix="test/restored")})
    found = np.asarray(
        Image.open(comfyui.file(run, "6", "images")).convert("RGB").resize((96, 64), Image.Resampling.BOX)
    )
    wanted = np.asarray(Image.open(comfyui.base / "input/picture.png"))
    assert np.abs(found.astype(int) - wanted).mean() < 2
    refused = comfyui.run(graph | {"6": node("PreviewImage", images=["5", 0])})
    assert refused.error is not None and "connect them the other way round" in refused.error


def test_the_four_nodes_are_boost(comfyui: ComfyUI, picture: str, tiny_vaes: None) -> None:
    graph = chain(start_graph(picture), ["3", 0])
    small = latent_of(comfyui, graph, ["3", 0]) * 0.18215
    found = latent_of(comfyui, graph, ["7", 0]) * 0.18215
    codec = load_codec(Path(__file__).parents[3] / "shared/taesd/taesd")
    wanted = boost(small, load_model(MODEL), codec, scale=2, nfe=4, seed=7)
    assert found.shape == (1, 4, 16, 24)
    assert (found - wanted).abs().max() < 1e-4
    in_one = latent_of(
        comfyui,
        start_graph(picture) | {"5": node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW)},
        ["5", 0],
    )
    assert (in_one * 0.18215 - found).abs().max() < 1e-5


def test_the_noise_step_is_told_along_the_chain(comfyui: ComfyUI, picture: str, tiny_vaes: None) -> None:
    """Noise Augment notes it for CFM Sample, so that both ways give the same; and it is not the default's."""
    graph = chain(start_graph(picture), ["3", 0])
    own = latent_of(comfyui, graph, ["7", 0])
    graph["6"]["inputs"]["noise_step"] = 150
    graph["8"] = node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW | {"noise_step": 150})
    in_four, in_one = (latent_of(comfyui, graph, [source, 0]) for source in ("7", "8"))
    assert (in_four - in_one).abs().max() < 1e-4
    assert (in_four - own).abs().max() > 1e-2


def test_without_a_number_of_evaluations_it_is_the_models_own(
    comfyui: ComfyUI, picture: str, tiny_vaes: None
) -> None:  # fmt: skip
    """In the chain and in the one node; the picture's node as on the command line, below."""
    graph = chain(start_graph(picture), ["3", 0], nfe=0)
    graph["8"] = node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW | {"nfe": 0})
    graph["4"]["inputs"]["model"] = FAST
    own = [latent_of(comfyui, graph, [source, 0]) for source in ("7", "8")]
    graph["7"]["inputs"]["nfe"] = 1
    once = latent_of(comfyui, graph, ["7", 0])
    assert all((latent - once).abs().max() < 1e-4 for latent in own)


@pytest.mark.parametrize("upscale_model", ["none", "fmboost-image-x2"])
def test_a_picture_is_enlarged_as_on_the_command_line(comfyui: ComfyUI, picture: str, upscale_model: str) -> None:
    """Without any model file of the host's: the bundled models and codec, and as many evaluations as they want."""
    graph = image_graph(picture, nfe=0)
    if upscale_model != "none":
        graph["5"]["inputs"] |= {"method": "auto", "strength": 0.0}
    run = comfyui.run(graph)
    assert run.error is None, run.error
    found = np.asarray(Image.open(comfyui.file(run, "6", "images"))).astype(int)
    out = comfyui.base / "line.png"
    command = [sys.executable, "-m", "fmboost_core", "upscale", comfyui.base / "input" / picture, out]
    command += ["--model", MODEL, "--seed", 7, "--upscale-model", upscale_model]
    subprocess.run(list(map(str, command)), cwd=PACK, check=True, capture_output=True)
    wanted = np.asarray(Image.open(out)).astype(int)
    assert found.shape == wanted.shape == (128, 192, 3)
    assert abs(found - wanted).max() <= 2
    if upscale_model == "none":  # a bundled one takes no flow, and has one tile here
        assert {data["max"] for data in run.of("progress")} == {1} and run.previews >= 1


def test_a_cascade_counts_evaluations_times_tiles_times_stages(
    comfyui: ComfyUI, picture: str, tiny_vaes: None
) -> None:  # fmt: skip
    options = FLOW | {"size_by": "width x height", "width": 368, "height": 248, "nfe": 3, "tile": "48"}
    graph = start_graph(picture) | {
        "5": node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **options),
        "6": node("VAEDecode", samples=["5", 0], vae=["2", 0]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="test/cascade"),
    }
    run = comfyui.run(graph)
    assert run.error is None, run.error
    assert Image.open(comfyui.file(run, "7", "images")).size == (368, 248)
    values = [data["value"] for data in run.of("progress") if data["node"] == "5"]
    assert max(values) == 6 and sorted(set(values)) == [1, 2, 3, 4, 5, 6]
    assert run.previews >= 6


def test_a_mask_a_batch_and_its_places_survive(comfyui: ComfyUI, picture: str, tiny_vaes: None) -> None:
    """The third item alone is the third item of the batch."""
    graph = start_graph(picture) | {
        "10": node("RepeatLatentBatch", samples=["3", 0], amount=3),
        "11": node("SolidMask", value=1.0, width=96, height=64),
        "12": node("SetLatentNoiseMask", samples=["10", 0], mask=["11", 0]),
        "13": node("LatentFromBatch", samples=["12", 0], batch_index=2, length=1),
    }
    options = FLOW | {"nfe": 2}
    whole = graph | {"5": node("FMBoostUpscale", latent=["12", 0], vae=["2", 0], cfm=["4", 0], **options)}
    alone = graph | {"5": node("FMBoostUpscale", latent=["13", 0], vae=["2", 0], cfm=["4", 0], **options)}
    batch, third = latent_of(comfyui, whole, ["5", 0]), latent_of(comfyui, alone, ["5", 0])
    assert batch.shape[0] == 3 and (batch[0] - batch[2]).abs().max() > 0.1
    assert (batch[2:] - third).abs().max() < 1e-4
    # KSampler's own nodes take what comes out: the mask is where the host looks for it.
    again = whole | {"14": node("LatentFromBatch", samples=["5", 0], batch_index=1, length=2)}
    assert latent_of(comfyui, again, ["14", 0]).shape == (2, 4, 16, 24)


def test_the_trajectory_goes_from_start_to_end(comfyui: ComfyUI, picture: str, tiny_vaes: None) -> None:
    graph = chain(start_graph(picture), ["3", 0], trajectory_length=3)
    path = latent_of(comfyui, graph, ["7", 1])
    start, end = latent_of(comfyui, graph, ["6", 0]), latent_of(comfyui, graph, ["7", 0])
    assert path.shape == (3, 4, 16, 24)
    assert torch.allclose(path[:1], start, atol=1e-4) and torch.allclose(path[2:], end, atol=1e-4)
    assert (path[1:2] - start).abs().max() > 0.1 and (path[1:2] - end).abs().max() > 0.1


def test_a_second_run_is_cached_and_a_replaced_file_runs_again(
    comfyui: ComfyUI, picture: str, tiny_vaes: None
) -> None:  # fmt: skip
    file = comfyui.base / "models/fmboost/sub/mine.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_model(load_model(MODEL), file, torch.float16)
    graph = chain(start_graph(picture), ["3", 0]) | {"8": node("PreviewImage", images=["9", 0])}
    graph["9"] = node("VAEDecode", samples=["7", 0], vae=["2", 0])
    graph["4"] = node("FMBoostLoadCFM", model="sub/mine.safetensors", dtype="fp32")

    def ran() -> set[str]:
        run = comfyui.run(graph)
        assert run.error is None, run.error
        return {data["node"] for data in run.of("executing")} - {None}

    assert "7" in ran()
    assert "4" not in ran() and "7" not in ran()
    later = time.time() + 10
    os.utime(file, (later, later))
    assert ran() >= {"4", "6", "7"}
    file.unlink()
    try:
        error = comfyui.run(graph).error
    except Refused as refused:  # newer hosts look at the choices before they run
        error = str(refused)
    assert error and ("There is no model 'sub/mine.safetensors'" in error or "value_not_in_list" in error)


def test_interrupt_stops_within_an_evaluation_and_the_next_run_works(comfyui: ComfyUI, picture: str) -> None:
    graph = image_graph(picture, nfe=400, seed=11)
    run = comfyui.run(graph, interrupt_after=5)
    assert run.of("execution_interrupted") and not run.outputs.get("6")
    assert max(data["value"] for data in run.of("progress")) < 40
    graph["5"]["inputs"] |= {"nfe": 1}
    assert comfyui.run(graph).error is None


def test_a_cascade_to_2048_pixels_in_bounded_memory(comfyui: ComfyUI, picture: str) -> None:
    """From 256 pixels to eight times that; the picture of 2048x2048 alone is 50 MB."""
    graph = image_graph(picture, side=256, scale=8.0)
    with peak_memory(comfyui.process.pid) as memory:
        run = comfyui.run(graph)
    assert run.error is None, run.error
    assert Image.open(comfyui.file(run, "6", "images")).size == (2048, 2048)
    print(f"256 to 2048 px: {run.seconds:.1f} s, at most {memory.rise} MB")
    assert memory.rise < 1500


def test_the_memory_of_an_interrupted_run_comes_back(comfyui: ComfyUI, picture: str) -> None:
    """Stopped five times on the way to 2048x2048 pixels, nothing of it stays."""
    graph = image_graph(picture, side=1024, nfe=100)

    def stopped(seed: int) -> None:
        graph["5"]["inputs"]["seed"] = seed
        assert comfyui.run(graph, interrupt_after=2).of("execution_interrupted")

    stopped(1)
    comfyui.post("/free", {"unload_models": True, "free_memory": True})
    with peak_memory(comfyui.process.pid) as memory:
        for seed in range(2, 6):
            stopped(seed)
        comfyui.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(2)
    print(f"at most {memory.rise} MB, {memory.kept} MB of it kept")
    assert memory.kept < 100


INSIDE = Path(__file__).with_name("inside_comfyui.py")


@pytest.fixture(scope="module")
def inside(comfyui: ComfyUI) -> dict[str, str]:
    """What became of each check inside a host's process."""
    host = os.environ["COMFYUI_PATH"]
    run = subprocess.run([os.environ["COMFYUI_PYTHON"], INSIDE, host], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return dict(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("check", re.findall(r"^def (check_\w+)", INSIDE.read_text(), re.MULTILINE))
def test_inside_the_hosts_process(inside: dict[str, str], check: str) -> None:
    assert not inside[check], inside[check]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "broken.safetensors"}, "broken.safetensors is damaged or cut short"),
        ({"model": "foreign.safetensors"}, "foreign.safetensors"),
        ({"solver": "midpoint", "nfe": 3}, "midpoint evaluates 2 times a step, so nfe=3 does not fit; take 2 or 4."),
        (
            {"model": FAST, "solver": "heun", "nfe": 0},
            "heun evaluates 2 times a step, so the model's own nfe=1 does not fit; take 2, or the solver euler.",
        ),
        ({"size_by": "width x height", "width": 8, "height": 8}, "FMBoost only enlarges"),
        ({"size_by": "scale", "scale": 16.0, "noise_step": 0, "megapixels": 256.0, "big": True}, "too many"),
        ({"family": "flux1"}, "16 channels"),
    ],
)  # fmt: skip
def test_errors_are_sentences(
    comfyui: ComfyUI, picture: str, tiny_vaes: None, change: dict[str, Any], sentence: str
) -> None:
    folder = comfyui.base / "models/fmboost"
    (folder / "broken.safetensors").write_bytes(
        (PACK / f"fmboost_core/weights/models/{MODEL}.safetensors").read_bytes()[:9999]
    )
    shutil.copy(PACK / "fmboost_core/weights/codecs/sd15.safetensors", folder / "foreign.safetensors")
    change = dict(change)
    graph = start_graph(picture)
    if "model" in change:
        graph["4"]["inputs"]["model"] = change.pop("model")
    if change.pop("family", None):
        flux = make_flux(folder / "flux.safetensors")
        graph["4"]["inputs"]["model"] = flux
    if change.pop("big", False):
        graph["3"] = node("EmptyLatentImage", width=4096, height=4096, batch_size=1)
    graph["5"] = node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW | change)
    graph["6"] = node("SaveLatent", samples=["5", 0], filename_prefix="test/never")
    error = comfyui.run(graph).error
    assert error is not None and sentence in error and "\n" not in error, error


def make_flux(path: Path) -> str:
    from networks import TINY

    save_model(make_model(replace(TINY, channels=16), family="flux1"), path)
    return path.name


@pytest.mark.parametrize("change", [{"nfe": -1}, {"scale": 0.5}, {"noise_step": 1000}, {"scale": 1e9}])
def test_the_host_refuses_what_is_out_of_range(
    comfyui: ComfyUI, picture: str, tiny_vaes: None, change: dict[str, Any]
) -> None:
    graph = start_graph(picture) | {
        "5": node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW | change),
        "6": node("SaveLatent", samples=["5", 0], filename_prefix="test/never"),
    }
    with pytest.raises(Refused) as refused:
        comfyui.run(graph)
    details = json.loads(str(refused.value))["node_errors"]["5"]["errors"]
    assert next(iter(change)) in json.dumps(details)


def test_one_latent_is_enough_and_nan_is_no_picture(comfyui: ComfyUI, picture: str, tiny_vaes: None) -> None:
    graph = start_graph(picture) | {
        "10": node("ImageScale", image=["1", 0], upscale_method="area", width=8, height=8, crop="disabled"),
        "3": node("VAEEncode", pixels=["10", 0], vae=["2", 0]),
        "5": node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW),
    }
    large = latent_of(comfyui, graph, ["5", 0])
    assert large.shape == (1, 4, 2, 2) and large.isfinite().all()
    graph["5"]["inputs"]["latent"] = ["11", 0]
    graph["11"] = node("LatentMultiply", samples=["12", 0], multiplier=0.0)  # 0 times infinity
    graph["12"] = node("LatentMultiply", samples=["13", 0], multiplier=10.0)
    for i in range(13, 60):
        graph[str(i)] = node("LatentMultiply", samples=[str(i + 1), 0], multiplier=10.0)
    graph["60"] = node("LatentMultiply", samples=["3", 0], multiplier=10.0)
    run = comfyui.run(graph | {"99": node("SaveLatent", samples=["5", 0], filename_prefix="test/never")})
    assert run.error == "The latent holds NaN or infinity; check the input and the weights, or use dtype float32."


@pytest.fixture
def checkpoint(comfyui: ComfyUI) -> str:
    """An SD1.5 checkpoint, trained or random: whatever is given, its latents must pass."""
    path = os.environ.get("COMFYUI_CHECKPOINT")
    if not path:
        pytest.skip("needs COMFYUI_CHECKPOINT (a .safetensors of SD1.5; random weights do)")
    folder = comfyui.base / "models/checkpoints"
    folder.mkdir(exist_ok=True)
    if not (folder / "sd15.safetensors").exists():
        (folder / "sd15.safetensors").symlink_to(path)
    return "sd15.safetensors"


def test_between_a_sampler_and_the_decoder(comfyui: ComfyUI, checkpoint: str) -> None:
    """KSampler, with and without the attention patch, then the four nodes and the checkpoint's own VAE."""
    graph = {
        "20": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "21": node("CLIPTextEncode", clip=["20", 1], text="a cup"),
        "22": node("EmptyLatentImage", width=128, height=192, batch_size=1),
        "23": node("FMBoostAttentionScale", model=["20", 0], trained_size=512),
        "4": node("FMBoostLoadCFM", model=MODEL, dtype="bf16"),
    }
    for sampler, model in (("24", ["20", 0]), ("25", ["23", 0])):
        graph[sampler] = node(
            "KSampler", model=model, positive=["21", 0], negative=["21", 0], latent_image=["22", 0], seed=1, steps=1,
            cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        )  # fmt: skip
    boosted = chain(graph | {"2": node("VAELoader", vae_name="taesd")}, ["25", 0])
    boosted["5"]["inputs"]["vae"] = ["20", 2]
    plain, patched = latent_of(comfyui, boosted, ["24", 0]), latent_of(comfyui, boosted, ["25", 0])
    assert (plain - patched).abs().max() > 1e-4  # at 128 px the patch must matter
    del boosted["2"]
    boosted["8"] = node("VAEDecode", samples=["7", 0], vae=["20", 2])
    boosted["9"] = node("SaveImage", images=["8", 0], filename_prefix="test/sampled")
    run = comfyui.run(boosted)
    assert run.error is None, run.error
    picture = np.asarray(Image.open(comfyui.file(run, "9", "images")))
    assert picture.shape == (384, 256, 3) and picture.std() > 0


@pytest.mark.filterwarnings("ignore:The latent's standard deviation")  # a random model's
def test_between_two_samplers_without_a_vae(comfyui: ComfyUI, checkpoint: str) -> None:
    """A second pass at twice the size: the latent that FMBoost Upscale makes is what KSampler takes."""
    prompt = {"model": ["20", 0], "positive": ["21", 0], "negative": ["21", 0]}
    once = {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal"}
    graph = {
        "20": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "21": node("CLIPTextEncode", clip=["20", 1], text="a cup"),
        "22": node("EmptyLatentImage", width=128, height=192, batch_size=1),
        "24": node("KSampler", latent_image=["22", 0], denoise=1.0, **prompt, **once),
        "4": node("FMBoostLoadCFM", model="sd15-x2-direct", dtype="fp32"),
        "5": node("FMBoostUpscale", latent=["24", 0], cfm=["4", 0], **FLOW | {"nfe": 0, "method": "auto"}),
        "6": node("KSampler", latent_image=["5", 0], denoise=0.5, **prompt, **once),
    }
    first, large, second = (latent_of(comfyui, graph, [id, 0]) for id in ("24", "5", "6"))
    assert large.shape == second.shape == (1, 4, 48, 32)
    expected = boost(first * 0.18215, load_model("sd15-x2-direct"), None, seed=7) / 0.18215
    assert (large - expected).abs().max() < 1e-2 * expected.abs().max()
    assert (second - large).abs().max() > 0.1 and second.isfinite().all()


def make_lora(path: Path) -> None:
    """A LoRA of rank 1 that changes one layer by nothing: which files a workflow takes is what matters here."""
    name = "lora_unet_down_blocks_0_attentions_0_proj_in"
    up, down = torch.zeros(320, 1, 1, 1), torch.zeros(1, 320, 1, 1)
    save_file({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, path)


TINY = ("flux_2k", "sd35_2k", "zimage_2k")  # whose models are made from the host's classes, with few layers


@pytest.fixture(scope="module")
def tiny_models(comfyui: ComfyUI) -> Path:
    """The folder of the host's models, with those of `TINY` in it under the workflows' names."""
    if version(comfyui) < (0, 3, 75):
        pytest.skip("the small models are made of classes that newer ComfyUI has")
    script, host = Path(__file__).with_name("tiny_models.py"), os.environ["COMFYUI_PATH"]
    made = subprocess.run(
        [os.environ["COMFYUI_PYTHON"], script, host, comfyui.base / "models"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return comfyui.base / "models"


def version(comfyui: ComfyUI) -> tuple[int, ...]:
    return tuple(map(int, comfyui.get("/system_stats")["system"]["comfyui_version"].split(".")[:3]))


TWINS = sorted((PACK / "tests/workflows").glob("*.api.json"))


@pytest.mark.parametrize("twin", [t for t in TWINS if not t.name.startswith(TINY)], ids=lambda path: path.name)
def test_every_workflow_runs_to_its_end(comfyui: ComfyUI, picture: str, checkpoint: str, twin: Path) -> None:
    """As it is shipped, but for a smaller latent and fewer steps of the diffusion model."""
    (comfyui.base / "models/loras").mkdir(exist_ok=True)
    make_lora(comfyui.base / "models/loras/lora.safetensors")
    small = {"ckpt_name": checkpoint, "lora_name": "lora.safetensors", "image": picture}
    check_workflow(comfyui, twin, small, 96 if "image_upscale" in twin.name else 64)


@pytest.mark.parametrize("name", TINY)
def test_a_workflow_of_16_channels_runs_to_its_end(comfyui: ComfyUI, tiny_models: Path, name: str) -> None:
    """With models of the host's own classes of FLUX.1, SD3.5 and Z-Image: the host's shapes and latent formats."""
    twin = PACK / f"tests/workflows/{name}.api.json"
    run = check_workflow(comfyui, twin, {}, 64)
    upscale = next(id for id, entry in json.loads(twin.read_text()).items() if entry["class_type"] == "FMBoostUpscale")
    assert "text" not in run.outputs.get(upscale, {}), "the diffusion model tells the family: nothing is guessed"


def check_workflow(comfyui: ComfyUI, twin: Path, given: dict[str, str], side: int) -> Run:
    """Run a workflow with other files and at a small size; its pictures have the size that it promises."""
    small = {"steps": 2, "width": 64, "height": 64, **given}
    graph = json.loads(twin.read_text())
    for entry in graph.values():
        if not entry["class_type"].startswith("FMBoost"):
            entry["inputs"] |= {k: v for k, v in small.items() if isinstance(entry["inputs"].get(k), (int, str))}
    run = comfyui.run(graph)
    assert run.error is None, run.error
    shown = {key: entry for key, entry in graph.items() if entry["class_type"] in ("SaveImage", "PreviewImage")}
    assert shown and all(run.outputs[key]["images"] for key in shown)
    scale = next((e["inputs"]["scale"] for e in graph.values() if "scale" in e["inputs"]), 0)
    assert all(Image.open(comfyui.file(run, key, "images")).width == scale * side for key in shown)
    return run


def pixels_of(path: Path) -> torch.Tensor:
    """The top left 256x256 pixels of a photograph, (1,3,256,256) in [-1,1]."""
    photo = Image.open(path).convert("RGB").crop((0, 0, 256, 256))
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1


def test_another_family_of_as_many_channels_is_refused_or_noted_on_the_node(comfyui: ComfyUI, shared: Path) -> None:
    """Our SD1.5 model with an SDXL VAE, which tells its family, and with an SDXL latent, which does not."""
    codec, photos = load_codec(shared / "taesd/taesdxl"), sorted((shared / "photos/val").glob("*.jpg"))
    known = (p for p in photos if recognise(codec.encode(pixels_of(p)) / FAMILIES["sdxl"].scaling_factor) == "sdxl")
    Image.open(next(known)).crop((0, 0, 256, 256)).save(comfyui.base / "input/photo.png")
    graph = start_graph("photo.png", "taesdxl") | {
        "5": node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW | {"nfe": 1}),
        "6": node("SaveLatent", samples=["5", 0], filename_prefix="test/other"),
        "7": node("VAELoader", vae_name="taesd"),
    }
    error = comfyui.run(graph).error
    assert error is not None
    assert "The VAE is for SDXL latents (4 channels), as the latent seems to be, but the model sd15-x2 is for" in error
    graph["5"]["inputs"]["vae"] = ["7", 0]
    run = comfyui.run(graph)
    assert run.error is None
    assert run.outputs["5"]["text"][0].startswith(
        "The model sd15-x2 and the VAE are for SD1.5 latents (4 channels), but the latent looks like one of SDXL"
    )
    graph["2"]["inputs"]["vae_name"] = "taesd"
    assert "5" not in comfyui.run(graph).outputs


def foreign_graph(maker: dict[str, Any], vae: str = "taef1") -> Graph:
    """A latent of one of the host's own empty latents before FMBoost Upscale and before PSU Upsample."""
    return {
        "2": node("VAELoader", vae_name=vae),
        "3": maker,
        "4": node("FMBoostLoadCFM", model=MODEL, dtype="auto"),
        "5": node("FMBoostUpscale", latent=["3", 0], vae=["2", 0], cfm=["4", 0], **FLOW | {"nfe": 1}),
        "6": node("SaveLatent", samples=["5", 0], filename_prefix="test/never"),
    }


SIZES = {"width": 256, "height": 256, "batch_size": 1}


@pytest.mark.parametrize(
    ("maker", "sentence"),
    [
        (
            node("EmptyHunyuanLatentVideo", **SIZES, length=1),
            "16 channels and an axis of frames (Qwen-Image/Wan 2.1, Hunyu",
        ),
        (node("EmptyHunyuanLatentVideo", **SIZES, length=9), "16 channels and 3 frames or layers (Qwen-Image/Wan 2.1,"),
        (node("EmptyMochiLatentVideo", **SIZES, length=7), "12 channels and 2 frames or layers (Mochi), for which"),
        (node("EmptyLTXVLatentVideo", **SIZES, length=9), "128 channels and 2 frames or layers (LTX Video), for which"),
        (
            node("EmptyLatentAudio", seconds=2.0, batch_size=1),
            "is of sound (Stable Audio or ACE-Step 1.5); connect the",
        ),
        (
            node("EmptyAceStepLatentAudio", seconds=2.0, batch_size=1),
            "is of sound (ACE-Step); connect the latent of an",
        ),
        (
            node("EmptyLatentHunyuan3Dv2", resolution=64, batch_size=1),
            "is of a 3D shape; connect the latent of an image",
        ),
        (
            node("EmptyFlux2LatentImage", **SIZES),
            "The latent has 128 channels (FLUX.2), for which FMBoost has no model",
        ),
        (node("EmptyHunyuanImageLatent", **SIZES), "The latent has 64 channels (HunyuanImage 2.1), for which FMBoost"),
        (node("EmptySD3LatentImage", **SIZES), "the latent has 16 channels (SD3, FLUX.1 or Stable Cascade)"),
        (
            node("StableCascade_EmptyLatentImage", width=512, height=512, compression=42, batch_size=1),
            "the latent has 16 channels (SD3, FLUX.1 or Stable Cascade)",
        ),
    ],
    ids=lambda value: value["class_type"] if isinstance(value, dict) else "",
)
def test_a_foreign_latent_of_the_host_is_named(
    comfyui: ComfyUI, tiny_vaes: None, maker: dict[str, Any], sentence: str
) -> None:
    if maker["class_type"] not in comfyui.get("/object_info"):
        pytest.skip(f"this ComfyUI has no {maker['class_type']}")
    error = comfyui.run(foreign_graph(maker)).error
    assert error is not None and sentence in error and "\n" not in error, error
