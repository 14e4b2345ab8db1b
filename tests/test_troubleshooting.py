"""docs/troubleshooting.md: every heading is a message that FMBoost raises, and each is provoked here."""

from __future__ import annotations

import inspect
import multiprocessing
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy_stub
import pytest
import torch
import webui_stub
from lacking import LackingType
from networks import make_model
from PIL import Image
from safetensors.torch import load_file, save_file
from weight_files import GROUP, compact, rewritten, state_dict

import fmboost_core
from fmboost_core import Hooks, errors
from fmboost_core.cli.app import make_parser
from fmboost_core.cli.device import memory_errors
from fmboost_core.cli.measure import BenchCase, BenchSettings, in_new_process
from fmboost_core.families import Party, require_same_family
from fmboost_core.files.checkpoint import read_spec, save_model
from fmboost_core.files.guide_file import load_guide
from fmboost_core.files.locate import BUNDLED_MODELS
from fmboost_core.imaging.picture import Picture
from fmboost_core.imaging.write import write_picture
from fmboost_core.metrics.optional import require_torchmetrics
from fmboost_core.sampling.restore import restored
from fmboost_core.sampling.schedule import start_alpha_bar

PAGE = (Path(__file__).parents[1] / "docs/troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = [heading.strip("` ") for heading in re.findall(r"^### (.+)$", PAGE, re.MULTILINE)]

PROVOKED: dict[str, tuple[str, Callable[..., object]]] = {}


def provokes(kind: str, heading: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Register a function that provokes a message of a heading's pattern, of an error or warning of this name."""

    def register(function: Callable[..., object]) -> Callable[..., object]:
        assert heading not in PROVOKED
        PROVOKED[heading] = (kind, function)
        return function

    return register


def command(*words: object) -> object:
    """Run a command as `fmboost` does, without its handling of errors."""
    args = make_parser().parse_args([*map(str, words)])
    return args.run(args)


def smallest(width: int = 8, height: int = 8) -> Image.Image:
    return Image.new("RGB", (width, height), "red")


# --- installing


@provokes("CheckpointError", "… is a Git LFS pointer instead of the weights, which `git lfs pull` fetches.")
def _(tmp_path):
    (tmp_path / "m.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    command("info", tmp_path / "m.safetensors")


@provokes("CheckpointError", "… is damaged or cut short (…); copy or download it again.")
def _(tmp_path):
    whole = (BUNDLED_MODELS / "sd15-x2.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[: len(whole) // 2])
    command("info", tmp_path / "m.safetensors")


@provokes("CheckpointError", "There is no model …: the bundled ones are …, and a path must exist.")
def _():
    command("info", "sd15-x3")


@provokes("CheckpointError", "… does not fit its network: …; copy or download it again, or take another file.")
def _(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(make_model(), path)
    first = next(iter(load_file(path)))
    rewritten(path, {first: None, "more": torch.zeros(1)}, {})
    command("info", path)


@provokes("CheckpointError", "… has a specification that does not work (…); update FMBoost, or take another file.")
def _(tmp_path):
    rewritten(tmp_path / "m.safetensors", {}, {"fmboost": '{"format_version": 99}'})
    command("info", tmp_path / "m.safetensors")


@provokes("CheckpointError", "… is no model of FMBoost; `fmboost convert` makes one of it.")
def _(tmp_path):
    save_file(state_dict(GROUP), tmp_path / "theirs.safetensors")
    read_spec(tmp_path / "theirs.safetensors")


@provokes("CheckpointError", "… is no guide network; `fmboost train-guide` makes one.")
def _():
    load_guide(BUNDLED_MODELS / "sd15-x2.safetensors")


@provokes("CheckpointError", "… is neither safetensors nor a PyTorch checkpoint (it begins with …); take another file.")
def _(tmp_path):
    (tmp_path / "m.safetensors").write_text("<!DOCTYPE html><title>Not found</title>")
    command("info", tmp_path / "m.safetensors")


@provokes("MissingDependencyError", "… needs huggingface_hub: pip install huggingface_hub.")
def _(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    command("info", "hf://owner/repo/model.safetensors")


@provokes("CheckpointError", "… could not be fetched (…); check the address and the connection, or give a file.")
def _(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    command("info", "hf://owner/repo/model.safetensors")


@provokes(
    "MissingDependencyError", "… needs the package torchdiffeq; install it (pip install torchdiffeq) or choose …."
)
def _(monkeypatch, model, codec):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    fmboost_core.boost(torch.randn(1, 4, 8, 8), model, codec, solver="dopri5")


@provokes("MissingDependencyError", "Completion needs the package shtab; install it (pip install shtab).")
def _(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    command("completion", "bash")


@provokes("MissingDependencyError", "This metric needs torchmetrics (…): pip install torchmetrics.")
def _(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image", None)
    require_torchmetrics("image")


# --- ComfyUI


@pytest.fixture
def comfyui(monkeypatch, tmp_path) -> Iterator[Any]:
    yield comfy_stub.install(monkeypatch, tmp_path)
    comfy_stub.forget_pack()


def loaded(comfyui, name: str = "sd15-x2") -> Any:
    return comfyui.run("FMBoostLoadCFM", model=name, dtype="fp32").args[0]


def guide(side: int = 8) -> dict[str, Any]:
    return {"samples": torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))}


@provokes("LatentError", "FMBoost enlarges latents (batch, channels, height, width) of images, but ….")
def _(comfyui):
    comfyui.run("FMBoostNoiseAugment", latent={"samples": torch.zeros(1, 16, 5, 8, 8)})


@provokes("LatentError", "… has a start, the noisy latent from FMBoost Noise Augment; connect ….")
def _(comfyui):
    start = comfyui.run("FMBoostNoiseAugment", latent=guide()).args[0]
    comfyui.run("FMBoostCFMSample", cfm=loaded(comfyui), start=start, guide=start)


@provokes(
    "LatentError",
    "FMBoost Noise Augment made the start for …, but FMBoost CFM Sample has the model …; connect one FMBoost Load CFM "
    "to both.",
)
def _(comfyui):
    start = comfyui.run("FMBoostNoiseAugment", latent=guide(), cfm=loaded(comfyui, "sd15-x4")).args[0]
    comfyui.run("FMBoostCFMSample", cfm=loaded(comfyui), start=start, guide=guide())


@provokes(
    "LatentError",
    "The start is … and the guide …; connect the guide of one FMBoost PSU Upsample to both nodes, FMBoost Noise "
    "Augment and FMBoost CFM Sample.",
)
def _(comfyui):
    start = comfyui.run("FMBoostNoiseAugment", latent=guide()).args[0]
    comfyui.run("FMBoostCFMSample", cfm=loaded(comfyui), start=start, guide=guide(9))


@provokes(
    "ConfigError",
    "The method psu needs the VAE of the latent's family; connect one, or choose the method auto and a model "
    "whose name ends in -direct.",
)
def _(comfyui):
    comfyui.run("FMBoostUpscale", latent=guide(), cfm=loaded(comfyui))


@provokes("ConfigError", "The input decode needs the VAE of the latent's family; connect one, or switch decode off.")
def _(comfyui):
    comfyui.run("FMBoostUpscale", latent=guide(), cfm=loaded(comfyui, "sd15-x2-direct"), decode=True)


@provokes(
    "ConfigError",
    "The method fast needs a model with a guide network, as those have whose names end in -direct; connect its "
    "FMBoost Load CFM to the input cfm.",
)
def _(comfyui):
    comfyui.run("FMBoostPSUUpsample", latent=guide(), method="fast")


@provokes("CheckpointError", "There is no model … any more; choose another one of: ….")
def _(comfyui):
    """The oldest host does not look at a list's values before it runs a graph."""
    comfyui.nodes["FMBoostLoadCFM"].execute(model="gone.safetensors", dtype="fp32")


@provokes("ImageError", "There are … pictures and … masks; connect one mask, or one for each picture.")
def _(comfyui):
    masks = torch.ones(3, 8, 8)
    comfyui.run("FMBoostUpscaleImage", image=torch.zeros(2, 8, 8, 3), cfm=loaded(comfyui), mask=masks)


@provokes(
    "ConfigError",
    "FMBoost Attention Scale patches the U-Nets of SD1.5, SD2 and SDXL, but this model is another kind of network, …; "
    "remove or bypass the node.",
)
def _(comfyui):
    transformer = SimpleNamespace(get_model_object=lambda name: torch.nn.Linear(1, 1))
    comfyui.run("FMBoostAttentionScale", model=transformer, trained_size=512)


# --- the web UIs


@pytest.fixture
def webui(monkeypatch, tmp_path) -> Iterator[Callable[[str], Any]]:
    """A function from the name of a module of the extension to the module."""
    webui_stub.install(monkeypatch, tmp_path)
    yield lambda name: __import__(f"fmboost_webui.{name}", fromlist=["*"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "fmboost_webui"]:
        del sys.modules[name]


def chosen(webui, tmp_path, checkpoint: Party, entry: str) -> None:
    models = webui("models")
    models.choose_model(models.find_models(tmp_path)[0], entry, models.AUTOMATIC, checkpoint)


@provokes(
    "ConfigError", "… has no weights for … checkpoints, only for …; choose another upscaler, or another checkpoint."
)
def _(webui, tmp_path):
    chosen(webui, tmp_path, Party("the checkpoint", "sd3", 16), "FMBoost 4x")


@provokes(
    "ConfigError",
    "FMBoost has models for … checkpoints, but … is of another family; choose another upscaler, or another checkpoint.",
)
def _(webui, tmp_path):
    chosen(webui, tmp_path, Party("the checkpoint x", None), "FMBoost 2x")


@provokes("ConfigError", "The noise step is 0 to 999, or -1 for the model's own, but it is ….")
def _(webui):
    webui("options").Options.of(["Automatic", 2000])


@provokes("ConfigError", "FMBoost takes … arguments (…), but got ….")
def _(webui):
    webui("options").Options.of(range(99))


# --- the command line


@provokes("ConfigError", "PyTorch finds no … device here; choose one of ….")
def _():
    command("bench", "--device", "xpu:77")


@provokes("ImageError", "… does not fit into memory at this size; try --tile 48 or a smaller size.")
def _():
    with memory_errors("photo.jpg"):
        torch.empty(10**16)


@provokes(
    "ImageError",
    '… does not exist; check the name and the folder, or give a folder of pictures or a pattern such as "trip/*.jpg".',
)
def _(tmp_path):
    command("upscale", tmp_path / "a.png", tmp_path / "b.png")


@provokes("ImageError", "The folder … has no pictures (…); choose another folder.")
def _(tmp_path):
    (tmp_path / "in").mkdir()
    command("upscale", tmp_path / "in", tmp_path / "out")


@provokes(
    "ImageError",
    "… and … would both become …; write them to two folders, or name the folder above both with --recursive, which "
    "keeps their folders.",
)
def _(tmp_path):
    for name in ("a.png", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        smallest().save(tmp_path / name)
    command("upscale", tmp_path / "a.png", tmp_path / "sub/a.png", tmp_path / "out")


@provokes("ImageError", "… is an input and would be overwritten; choose another output.")
def _(tmp_path):
    smallest().save(tmp_path / "a.png")
    command("upscale", tmp_path / "a.png", tmp_path / "a.png")


@provokes("ImageError", "… has …, but pictures are written as ….")
def _(tmp_path):
    smallest().save(tmp_path / "a.png")
    command("upscale", tmp_path / "a.png", tmp_path / "b.doc")


@provokes("FileError", "The folder … cannot be made (…); choose another output.")
def _(tmp_path):
    smallest().save(tmp_path / "a.png")
    command("upscale", tmp_path / "a.png", tmp_path / "a.png/b.png")


@provokes("ImageError", "… is not a picture of a known kind (…); save it as one of them.")
def _(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    command("upscale", tmp_path / "a.png", tmp_path / "b.png")


@provokes(
    "ImageError",
    "… has … frames, and only still pictures are enlarged; take them out into a folder (…), enlarge the folder, and "
    "put them together again.",
)
def _(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    command("upscale", tmp_path / "a.gif", tmp_path / "b.png")


@provokes("ConfigError", "RANK is set but WORLD_SIZE is not; set both, as a launcher does, or neither.")
def _(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "0")
    command("upscale", tmp_path, tmp_path / "out")


@provokes(
    "FMBoostError",
    "The process that measured … died, without a message above most likely for lack of memory; try smaller --sizes or "
    "--tile 48.",
)
def _():
    def kill_first_child() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        children[0].kill()

    threading.Thread(target=kill_first_child, daemon=True).start()
    in_new_process(BenchSettings("sd15-x2", "builtin", "cpu", "float32", None, 1), BenchCase("bicubic", 32, 64))


# --- Python


def boost(model, codec, **options: Any) -> None:
    fmboost_core.boost(torch.randn(1, 4, 8, 8), model, codec, **options)


@provokes(
    "ConfigError",
    "The guide method psu needs the VAE of the latent's family; give a codec, or a model with a fast guide.",
)
def _(model):
    boost(model, None)


@provokes("ConfigError", "An image needs the VAE of the latent's family; give a codec.")
def _(model):
    fmboost_core.upscale_image(torch.zeros(1, 3, 8, 8), model, None, upsample="bilinear")


@provokes("ConfigError", "… has no guide network, which fast guides need; choose another guide method.")
def _(model, codec):
    boost(model, codec, upsample="fast")


@provokes(
    "ConfigError",
    "An upscale model enlarges images, but the guide method … works on latents; choose psu, or leave the upscale model "
    "out.",
)
def _(model, codec):
    boost(model, codec, upsample="bilinear", upscale_model=lambda image: image)


@provokes("MissingDependencyError", "The upscale model … needs the package spandrel: pip install spandrel.")
def _(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    (tmp_path / "any.pth").write_text("nothing")
    fmboost_core.load_upscale_model(tmp_path / "any.pth")


@provokes("CheckpointError", "There is no upscale model …; give a file, or the name of a bundled one, ….")
def _():
    fmboost_core.load_upscale_model("nowhere.pth")


@provokes("CheckpointError", "… holds no whole compact network; copy or download it again.")
def _(tmp_path):
    weights = {name: weight for name, weight in compact().items() if not name.startswith("body.6")}
    save_file(weights, tmp_path / "cut.safetensors")
    fmboost_core.load_upscale_model(tmp_path / "cut.safetensors")


@provokes("CheckpointError", "… is no upscale model that spandrel knows (…); name another file.")
def _(monkeypatch, tmp_path):
    """As spandrel refuses a file, which is no part of the tests' environment; tests/files has the real one."""

    def load_from_file(path):
        raise ValueError("Unsupported model")

    loader = SimpleNamespace(load_from_file=load_from_file)
    spandrel = SimpleNamespace(ImageModelDescriptor=object, ModelLoader=lambda: loader)
    monkeypatch.setitem(sys.modules, "spandrel", spandrel)
    (tmp_path / "any.pth").write_text("nothing")
    fmboost_core.load_upscale_model(tmp_path / "any.pth")


@provokes("ConfigError", "There is no solver …; choose one of ….")
def _(model, codec):
    boost(model, codec, solver="eular")


@provokes("ConfigError", "… evaluates … times a step, so nfe=… does not fit; take ….")
def _(model, codec):
    boost(model, codec, solver="midpoint", nfe=3)


@provokes("ConfigError", "Give one of scale, size or megapixels, not ….")
def _(model, codec):
    boost(model, codec, scale=2, megapixels=1)


@provokes("ConfigError", "FMBoost only enlarges: … is smaller than the … that came in; choose a larger size.")
def _(model, codec):
    boost(model, codec, scale=0.5)


@provokes("LatentError", "A latent must be a float tensor (batch, channels, height, width), but it is ….")
def _(model, codec):
    fmboost_core.boost(torch.zeros(4, 8, 8), model, codec)


@provokes("ConfigError", "… seeds were given for a batch of …; give one number, or one per item.")
def _(model, codec):
    boost(model, codec, seed=[1, 2, 3])


@provokes("Cancelled", "Stopped on request.")
def _(model, codec):
    upscaler = fmboost_core.Upscaler(model, codec, hooks=Hooks(cancelled=lambda: True))
    upscaler.latent(torch.randn(1, 4, 8, 8), fmboost_core.Target(scale=2), torch.randn(1, 4, 16, 16))


# --- results that look wrong


@provokes("LatentError", "… is for …, but … is for …; use one latent family for both.")
def _(model):
    boost(model, fmboost_core.load_codec("builtin", "sdxl"))


@provokes("FMBoostWarning", "…, but … looks like one of …; expect wrong colours or patterns.")
def _(model):
    require_same_family(model.party, Party("the latent", None, 4, seems="sdxl"))


@provokes(
    "ScaleWarning",
    "The latent's standard deviation is above …: it looks like the VAE's raw scale, but FMBoost takes scaled latents; "
    "scale it with FAMILIES[…].to_scaled.",
)
def _(model, codec):
    fmboost_core.boost(torch.randn(1, 4, 8, 8) * 8, model, codec, scale=2)


@provokes("FMBoostWarning", "… was trained at noise step …, not …; expect artefacts.")
def _(model):
    start_alpha_bar(model.spec, 10)


@provokes(
    "FMBoostWarning",
    "… was trained at …x: at …x its latents are blurred; choose …x, or decode and restore the picture.",
)
def _():
    fmboost_core.boost(torch.randn(1, 4, 8, 8), fmboost_core.load_model("sd15-x2-direct"), None, scale=1.5)


@provokes(
    "FMBoostWarning",
    "The small image shows something else than the large one, so the result shows both, one through the other; take "
    "the small image that the large one was made from.",
)
def _():
    generator = torch.Generator().manual_seed(0)
    large, small = (torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=generator) * 2 - 1, (side, side))
                    for side in (128, 64))  # fmt: skip
    restored(large, small)


@provokes("NonFiniteError", "… holds NaN or infinity; check the input and the weights, or use dtype float32.")
def _(model, codec):
    next(model.network.parameters()).data.fill_(torch.nan)
    boost(model, codec, scale=2)


@provokes("NonFiniteError", "The result for … holds NaN or infinity; try --dtype float32.")
def _(tmp_path):
    write_picture(tmp_path / "a.png", Picture(torch.full((1, 3, 8, 8), torch.nan)))


@provokes("FMBoostWarning", "… is not possible on … in … (…), so it is done in float32.")
def _(model):
    model.to(dtype=torch.float16)
    guide = torch.randn(1, 4, 8, 8)
    with LackingType("convolution", torch.float16):
        model.velocity(guide, 0.5, model.conditioning(guide))


# --- the tests


def test_every_heading_is_provoked_and_no_other() -> None:
    assert len(set(HEADINGS)) == len(HEADINGS)
    assert set(HEADINGS) == set(PROVOKED)


@pytest.mark.parametrize("heading", PROVOKED, ids=lambda heading: heading[:40])
def test_a_heading_is_a_message_that_is_raised(heading: str, request: pytest.FixtureRequest) -> None:
    kind, provoke = PROVOKED[heading]
    given = {name: request.getfixturevalue(name) for name in inspect.signature(provoke).parameters}
    said: list[Warning | BaseException] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            provoke(**given)
        except Exception as error:
            said = [error]
    said += [warning.message for warning in caught if isinstance(warning.message, Warning)]
    # ComfyUI imports the core anew, in its pack: the classes are others of the same names.
    messages = [str(what) for what in said if kind in (c.__name__ for c in type(what).__mro__[:1])]
    pattern = ".+".join(map(re.escape, heading.split("…")))
    assert [m for m in messages if re.fullmatch(pattern, m, re.DOTALL)], said


def test_every_public_error_has_an_entry() -> None:
    classes = {c for c in vars(errors).values() if inspect.isclass(c) and c.__module__ == errors.__name__}
    assert len(classes) > 8
    kinds = {kind for kind, _ in PROVOKED.values()}
    assert {c.__name__ for c in classes} <= kinds


def test_every_entry_says_what_to_do() -> None:
    """A text of its own follows each heading."""
    for entry in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        text = re.split(r"^## ", entry.partition("\n")[2], flags=re.MULTILINE)[0].strip()
        assert text.endswith(".") and len(text) > 30, entry
