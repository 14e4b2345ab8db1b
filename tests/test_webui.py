"""The web UI extension by a stub of its host; tests/hosts runs it in the real ones."""

from __future__ import annotations

import importlib
import io
import os
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import TINY, make_model
from PIL import Image
from torch import Tensor
from webui_stub import Checkpoint, ForgeCheckpoint, Job, SD3Checkpoint, install

from fmboost_core import (
    FAMILIES,
    LatentFamily,
    boost,
    load_codec,
    load_model,
    load_upscale_model,
    register_family,
    upscale_image,
)
from fmboost_core.codecs.periodic import periodic
from fmboost_core.errors import Cancelled, ConfigError, FMBoostError, LatentError, NonFiniteError
from fmboost_core.families import IMAGE_FAMILY, Party
from fmboost_core.files.checkpoint import read_spec, save_model
from fmboost_core.files.locate import BUNDLED_MODELS, bundled_models
from fmboost_core.sampling.restore import restored, retouched
from fmboost_core.sampling.upscale_model import enlarged
from fmboost_core.tiles import Tileable

MODEL = "sd15-x2"
BUNDLED = BUNDLED_MODELS / f"{MODEL}.safetensors"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    folder = tmp_path / "fmboost" / "sub"
    folder.mkdir(parents=True)
    shutil.copy(BUNDLED, folder / "own.safetensors")
    (folder / "broken.safetensors").write_bytes(b"none")
    host = install(monkeypatch, tmp_path)
    host.shared.opts.fmboost_extras_upscale_model = "None"
    yield host
    for name in [name for name in sys.modules if name.partition(".")[0] == "fmboost_webui"]:
        del sys.modules[name]


@pytest.fixture
def hires(stub: SimpleNamespace) -> Any:
    module = importlib.import_module("fmboost_webui.hires")
    module.register_entries()
    return module


@pytest.fixture
def small() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def checkpoints() -> Any:
    """The extension's module of that matter, in the stub."""
    return importlib.import_module("fmboost_webui.checkpoint")


PLAIN = ("Automatic", -1, "euler", "auto", "auto", False, 0.0, "None")


def run(hires: Any, job: Job, samples: torch.Tensor, *args: Any) -> Any:
    """As the host calls the extension, and then the pass; without an upscale model unless the arguments name one."""
    hires.install(job, (*args, *PLAIN[len(args) :]))
    hires.prepare(job)
    if "sample" in vars(job):
        return job.sample()
    return job.sample_hr_pass(samples, None, job.seeds, job.subseeds, 0.0, ["a cup"] * len(samples))


# --- the dropdown


def test_the_entries_are_latent_modes_that_the_host_alone_cannot_take(
    hires: Any, stub: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    modes = stub.shared.latent_upscale_modes
    assert set(modes) == {"FMBoost 2x", "FMBoost 4x", "FMBoost 2x (sub/own)"}
    with pytest.raises(NotImplementedError):
        torch.nn.functional.interpolate(torch.zeros(1, 4, 8, 8), size=(16, 16), mode=modes["FMBoost 2x"]["mode"])
    modes["FMBoost 2x"] = "as it was"
    hires.register_entries()
    assert modes["FMBoost 2x"] == "as it was"
    assert "broken.safetensors is neither safetensors nor" in capsys.readouterr().out


def test_an_own_file_called_as_a_bundled_model_is_another_entry(
    hires: Any, small: torch.Tensor, tmp_path: Path
) -> None:
    models = importlib.import_module("fmboost_webui.models")
    folder = tmp_path / "fmboost"
    save_model(make_model(), folder / f"{MODEL}.safetensors")
    found, _ = models.find_models(folder)
    own = next(m for m in found if m.name == f"{MODEL}.safetensors")
    assert not own.bundled and own.source == str(folder / own.name) and own.spec.name == "tiny"
    assert models.entries(found)["FMBoost 2x (sd15-x2.safetensors)"] == own.name
    for entry, wish in (("FMBoost 2x (sd15-x2.safetensors)", "Automatic"), ("FMBoost 2x", own.name)):
        assert models.choose_model(found, entry, wish, None) is own
    assert models.choose_model(found, "FMBoost 2x", MODEL, None).bundled, "a saved infotext names the bundled one"


def test_broken_files_of_any_name_do_not_end_the_host_s_start(
    hires: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fmboost" / "模型.safetensors").write_bytes(b"none")
    console = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console, "cp1252", write_through=True))
    hires.register_entries()
    assert b"\\u6a21\\u578b.safetensors is neither safetensors" in console.getvalue()


def test_links_to_folders_are_followed_in_the_models_folder(hires: Any, tmp_path: Path) -> None:
    models = importlib.import_module("fmboost_webui.models")
    folder = tmp_path / "fmboost"
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    for place in ("disk/linked.safetensors", "disk/deep/UPPER.SAFETENSORS", "disk/._linked.safetensors"):
        shutil.copy(BUNDLED, tmp_path / place)
    (folder / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk" / "loop").symlink_to(folder, target_is_directory=True)
    found, _ = models.find_models(folder)
    assert [m.name for m in found if not m.bundled] == ["link/deep/UPPER", "link/linked", "sub/own"]
    assert models.find_models(tmp_path / "nowhere")[0]


def test_a_damaged_bundled_file_takes_only_itself_away(
    hires: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = importlib.import_module("fmboost_webui.models")
    monkeypatch.setattr(models, "bundled_models", lambda: [MODEL, "gone"])
    hires.register_entries()
    assert [model.name for model in hires.MODELS] == [MODEL, "sub/own"]
    assert "There is no model 'gone'" in capsys.readouterr().out


def test_networks_are_loaded_when_the_host_has_loaded_its_checkpoint(hires: Any, stub: SimpleNamespace) -> None:
    """AUTOMATIC1111 does so in a thread, under a lock, with methods of its own in all of PyTorch's modules."""
    host = importlib.import_module("fmboost_webui.host")
    lock, patch = stub.sd_models.model_data.lock, pytest.MonkeyPatch()

    def hosts_own(*args: Any, **others: Any) -> None:
        raise AssertionError("the host is loading")

    def finish() -> None:
        patch.undo()
        lock.release()

    host.builtin_codec.cache_clear()
    host._loaded.cache_clear()
    for load in (host.builtin_codec, lambda: host.load_network(MODEL)):
        lock.acquire()
        patch.setattr(torch.nn.Module, "to", hosts_own)
        thread = threading.Timer(0.2, finish)
        thread.start()
        try:
            assert load() is load()
        finally:
            thread.join()


def test_extras_enlarge_any_image_without_a_checkpoint(hires: Any, stub: SimpleNamespace) -> None:
    stub.sd_models.model_data.sd_model = None
    upscaler = importlib.import_module("fmboost_webui.extras").UpscalerFMBoost()
    image = Image.new("RGBA", (33, 21), (200, 100, 0, 128))
    large = upscaler.upscale(image, 2.5, "FMBoost picture")
    assert (large.mode, large.size) == ("RGBA", (80, 48)) and large.getpixel((40, 20))[3] == 128
    assert upscaler.do_upscale(image.convert("L")).size == (66, 42)
    state = stub.shared.state
    assert state.sampling_step == state.sampling_steps == 1
    state.interrupted = True
    assert upscaler.do_upscale(image) is image


def test_forge_s_checkpoint_is_loaded_before_extras_ask_for_its_vae(
    hires: Any, stub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forge has a stand-in of no family until something is generated."""
    checkpoint = checkpoints()
    real, stand_in = stub.shared.sd_model, SimpleNamespace(cond_stage_model=None, chunk_length=75)
    monkeypatch.setattr(stub.shared, "sd_model", stand_in, raising=False)
    reload = lambda: setattr(stub.shared, "sd_model", real)  # noqa: E731
    assert checkpoint.loaded_checkpoint() is stand_in  # AUTOMATIC1111's `shared.sd_model` loads by itself
    monkeypatch.setattr(stub.sd_models, "forge_model_reload", reload, raising=False)
    assert checkpoint.loaded_checkpoint() is real


@pytest.mark.parametrize(
    ("name", "family"), [("FMBoost picture", IMAGE_FAMILY), ("FMBoost picture (checkpoint's VAE)", "sd15")]
)
def test_extras_stretch_to_the_hosts_rounded_size(hires: Any, name: str, family: str) -> None:
    """33x21 at 2.5 is 82x52, which the hosts round down to 80x48: another aspect. The checkpoint is of SD1.5."""
    host = importlib.import_module("fmboost_webui.host")
    small = Image.effect_noise((33, 21), 50).convert("RGB")
    upscaler = importlib.import_module("fmboost_webui.extras").UpscalerFMBoost()
    large = host.to_tensor(upscaler.upscale(small, 2.5, name))
    codec, model = load_codec("builtin", family), load_model(f"{family}-x2")
    with torch.no_grad():
        wanted = upscale_image(host.to_tensor(small), model, codec, size=(80, 48), stretch=True)
    assert (large - wanted).abs().max() < 1.01 / 127.5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_extras_treat_transparency_as_the_core_does(hires: Any, mode: str) -> None:
    """A white disk with a soft edge on hidden black is white up to its edge, as on the command line."""
    y, x = torch.meshgrid(torch.arange(16.0) - 8, torch.arange(24.0) - 12, indexing="ij")
    alpha = ((7 - (x**2 + y**2).sqrt()) / 3).clamp(0, 1)
    pixels = torch.stack([(alpha > 0).float()] * 3 + [alpha], dim=-1) * 255
    small = Image.fromarray(pixels.to(torch.uint8).numpy())
    if mode == "P":
        small = Image.fromarray((alpha > 0).numpy()).convert("P")
        small.info["transparency"] = 0
    elif mode == "LA":
        small = small.convert("LA")
    host = importlib.import_module("fmboost_webui.host")
    model, core = load_model(f"{IMAGE_FAMILY}-x2"), load_codec("builtin", IMAGE_FAMILY)
    large = importlib.import_module("fmboost_webui.extras").UpscalerFMBoost().do_upscale(small, "FMBoost picture")
    image = host.to_tensor(small.convert("RGBA"), alpha=True)
    with torch.no_grad():
        wanted = upscale_image(image, model, core, scale=2, stretch=True)
        white = upscale_image(torch.ones(1, 3, 16, 24), model, core, scale=2, stretch=True)
    found = host.to_tensor(large, alpha=True)
    assert large.mode == "RGBA" and (found - wanted).abs().max() < 1.01 / 127.5
    assert (found[:, :3] - white).abs().max() < 2.01 / 127.5


@pytest.mark.parametrize(
    ("entry", "wish", "name"),
    [
        ("FMBoost 2x", "Automatic", MODEL),
        ("FMBoost 2x (sub/own)", "Automatic", "sub/own"),
        ("FMBoost 2x", "sub/own", "sub/own"),
        ("FMBoost 2x (sub/own)", MODEL, MODEL),
    ],
)
def test_an_entry_stands_for_a_model_and_the_accordion_comes_first(
    hires: Any, entry: str, wish: str, name: str
) -> None:
    assert hires.choose_model(hires.MODELS, entry, wish, Party("the checkpoint", "sd15")).name == name


def test_automatic_is_the_bundled_model_of_the_checkpoint_s_family(hires: Any) -> None:
    doubling = [(name.partition("-")[0], "FMBoost 2x", name) for name in bundled_models() if name.endswith("-x2")]
    assert {"sd15", "sdxl"} <= {family for family, *_ in doubling}
    for family, entry, name in [*doubling, ("sd15", "FMBoost 4x", "sd15-x4"), ("sdxl", "FMBoost 4x", "sdxl-x4")]:
        assert hires.choose_model(hires.MODELS, entry, "Automatic", Party("the checkpoint", family)).name == name


@pytest.mark.parametrize(
    ("attribute", "entry", "wish", "sentence"),
    [
        ("is_sd3", "FMBoost 4x", "Automatic", "FMBoost 4x has no weights for SD3 .*, only for SD1.5 and SDXL;"),
        ("is_new", "FMBoost 2x", "Automatic", "has models for SD1.5.* checkpoints, but the checkpoint is of another"),
        ("is_sdxl", "FMBoost 2x", "sub/own", "sub/own is for SD1.5 .*, but the checkpoint is for SDXL .* Automatic"),
        ("is_sd1", "FMBoost 2x", "sdxl-x2", "sdxl-x2 is for SDXL .*, but the checkpoint is for SD1.5 .* Automatic"),
        ("is_sd2", "FMBoost 2x", "sdxl-x2", "sdxl-x2 is for SDXL .*, but the checkpoint is for SD1.5 .* Automatic"),
    ],
)
def test_another_family_is_refused_before_anything_is_made(
    hires: Any, small: torch.Tensor, attribute: str, entry: str, wish: str, sentence: str
) -> None:
    with pytest.raises(FMBoostError, match=sentence):
        run(hires, Job(Checkpoint(attribute), hr_upscaler=entry), small, wish)


def test_the_vae_of_a_checkpoint_that_was_changed_for_the_second_pass_is_refused(
    hires: Any, small: torch.Tensor
) -> None:
    job = Job(Checkpoint())
    hires.install(job, [])
    hires.prepare(job)
    for attribute, sentence in [("is_sdxl", "the codec is for SDXL"), ("is_new", "a family that FMBoost does not")]:
        job.sd_model = Checkpoint(attribute)
        with pytest.raises(LatentError, match=sentence):
            job.sample_hr_pass(small, None, job.seeds, job.subseeds, 0.0, ["a cup"])


@pytest.fixture
def toy(stub: SimpleNamespace, tmp_path: Path) -> Iterator[str]:
    """A family and a model that nobody has heard of; returns the family's name."""
    register_family(LatentFamily("toy", "Toy", 4, 1.0, webui=("is_toy",)))
    model = make_model(family="toy", latent_factor=1.0)
    save_model(model, tmp_path / "fmboost" / "invented.safetensors", torch.float32)
    yield "toy"
    del FAMILIES["toy"]


def test_an_invented_family_needs_no_other_line_of_code(toy: str, hires: Any, small: torch.Tensor) -> None:
    host, entry, checkpoint = checkpoints(), "FMBoost 2x (invented)", Checkpoint("is_toy")
    assert entry in host.shared.latent_upscale_modes and host.family_of(checkpoint) == toy
    assert host.host_vae(checkpoint).family == toy
    job = Job(checkpoint, hr_upscaler=entry)
    (image,) = run(hires, job, small[:1], "Automatic", -1, "euler", "bilinear")
    own = next(model for model in hires.MODELS if model.name == "invented")
    checkpoint.codec.family = toy
    wanted = boost(small[:1], load_model(own.source), checkpoint.codec, upsample="bilinear", seed=5)
    assert torch.allclose(image, checkpoint.decode_first_stage(wanted)[0].clamp(-1, 1), atol=1e-4)
    assert job.extra_generation_params["FMBoost model"] == "invented"
    with pytest.raises(ConfigError, match="no weights for Toy checkpoints"):
        run(hires, Job(checkpoint), small[:1])
    with pytest.raises(LatentError, match=r"invented is for Toy latents .*, but the checkpoint is for SD1.5"):
        run(hires, Job(Checkpoint(), hr_upscaler=entry), small[:1])


@pytest.mark.parametrize(("attribute", "family"), [("is_sd1", "sd15"), ("is_sdxl", "sdxl"), ("is_new", None)])
def test_a_checkpoint_is_not_loaded_for_the_line(
    hires: Any, stub: SimpleNamespace, attribute: str, family: str | None
) -> None:
    stub.sd_models.model_data.sd_model = Checkpoint(attribute)
    assert checkpoints().loaded_party() == Party("the checkpoint", family)
    stub.sd_models.model_data.sd_model = None
    assert checkpoints().loaded_party() is None
    assert hires.choose_model(hires.MODELS, "FMBoost 2x", "Automatic", None).name == MODEL


# --- families of 16 channels


@pytest.fixture
def wide(stub: SimpleNamespace, tmp_path: Path) -> Any:
    """`hires`, where models of SD3 and FLUX.1 with random weights are among the user's own."""
    for family, spec in (("sd3", FAMILIES["sd3"]), ("flux1", FAMILIES["flux1"])):
        numbers = {"latent_factor": spec.scaling_factor, "latent_shift": spec.shift, "noise_step": 200}
        model = make_model(replace(TINY, channels=16), family=family, noise_steps=(200,), **numbers)
        save_model(model, tmp_path / "fmboost" / f"own-{family}.safetensors", torch.float32)
    module = importlib.import_module("fmboost_webui.hires")
    module.register_entries()
    return module


@pytest.mark.parametrize("host", ["forge", "neo", "reforge"])
@pytest.mark.parametrize(
    ("numbers", "family"),
    [
        ((0.18215,), "sd15"), ((0.13025,), "sdxl"), ((1.5305, 0.0609, 16), "sd3"), ((0.3611, 0.1159, 16), "flux1"),
        ((0.5,), None),
    ],
    ids=["sd15", "sdxl", "sd3", "flux1", "playground 2.5"],
)  # fmt: skip
def test_the_numbers_of_forges_latents_tell_the_family(
    hires: Any, numbers: tuple[Any, ...], family: str | None, host: str
) -> None:
    """Of FLUX.1 and Chroma it has no attribute. Playground 2.5 passes for SDXL by its attribute, but is not."""
    checkpoint = ForgeCheckpoint(*numbers, host=host)
    assert checkpoints().family_of(checkpoint) == family
    checkpoint.is_sdxl = True
    assert checkpoints().family_of(checkpoint) == family


def checkpoint_of(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """A checkpoint of one of the hosts, and its family. name: such as "neo flux1"."""
    host, family = name.split()
    if host == "a1111":
        return (SD3Checkpoint() if family == "sd3" else Checkpoint(f"is_{family}")), {"sd1": "sd15"}.get(family, family)
    if host in ("forge", "neo"):
        monkeypatch.setattr(Job, "hr_additional_modules", None, raising=False)
    space = FAMILIES[family]
    return ForgeCheckpoint(space.scaling_factor, space.shift, space.channels, host=host), family


HOSTS = (
    "a1111 sd1", "a1111 sdxl", "a1111 sd3", "forge sd15", "forge sd3", "forge flux1", "neo sd15", "neo flux1",
    "reforge sdxl", "reforge sd3",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
def test_the_pass_is_boost_by_the_mean_of_the_hosts_vae(wide: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the scale and the shift of the host's own object; a batch is its singles, at a size of two stages."""
    checkpoint, family = checkpoint_of(name, monkeypatch)
    entry = f"FMBoost 2x (own-{family})" if family in ("sd3", "flux1") else "FMBoost 2x"
    small = torch.randn(2, FAMILIES[family].channels, 8, 8, generator=torch.Generator().manual_seed(1))
    size = {"hr_upscale_to_x": 200, "hr_upscale_to_y": 200, "hr_upscaler": entry}
    images = run(wide, Job(checkpoint, seeds=[5, 9], subseeds=[0, 0], **size), small)
    own = wide.choose_model(wide.MODELS, entry, "Automatic", Party("the checkpoint", family))
    codec = checkpoint.codec
    codec.family = family
    wanted = boost(small, load_model(own.source), codec, size=(200, 200), seed=[5, 9])
    for image, latent, low in zip(images, wanted.split(1), small.split(1), strict=True):
        large, seen = (codec.decode(x).clamp(-1, 1) for x in (latent, low))
        assert image.shape == (3, 200, 200) and torch.allclose(image, restored(large, seen)[0], atol=1e-3)
    (alone,) = run(wide, Job(checkpoint, seeds=[9], subseeds=[0], **size), small[1:])
    assert torch.equal(alone, images[1])


@pytest.mark.parametrize("name", HOSTS)
def test_encoding_draws_nothing_from_the_global_generator(
    hires: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, _ = checkpoint_of(name, monkeypatch)
    vae, image = checkpoints().host_vae(checkpoint), torch.zeros(1, 3, 16, 16)
    state = torch.get_rng_state()
    first = vae.encode(image)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(7)
    assert torch.equal(vae.encode(image), first) and torch.allclose(first, checkpoint.codec.encode(image), atol=1e-5)
    assert not torch.allclose(  # the network is as it was
        checkpoint.get_first_stage_encoding(checkpoint.encode_first_stage(image)), first, atol=1e-2
    )


@pytest.mark.parametrize(("name", "title"), [("a1111 sd3", "SD3"), ("forge flux1", "FLUX.1")])
def test_16_channels_without_weights_are_refused_by_their_name(
    hires: Any, name: str, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, family = checkpoint_of(name, monkeypatch)
    models = [model for model in hires.MODELS if model.spec.family != family]
    monkeypatch.setattr(hires, "MODELS", models)
    with pytest.raises(ConfigError, match=f"FMBoost 2x has no weights for {title} checkpoints, only for SD1.5"):
        run(hires, Job(checkpoint), torch.zeros(1, 16, 8, 8))


# --- what comes with a job


def test_options_come_from_json_sliders_and_plots(hires: Any) -> None:
    options = hires.Options.of(["Automatic", 400.0, "heun"], {"refine": "True", "noise_step": "300"})
    assert (options.noise_step, options.solver, options.refine, options.tile) == (300, "heun", True, "auto")
    assert options.strength is None
    for value, strength in (("1.25", 1.25), (1, 1.0), ("0", None), (0.4, 0.4)):
        assert hires.Options.of([], {"strength": value}).sampling(0).strength == strength


@pytest.mark.parametrize(
    ("args", "steps", "nfe", "noise_step", "tile"),
    [
        ([], 0, None, None, "auto"),
        (["Automatic", 0, "heun", "psu", "64"], 6, 6, 0, 64),
        (["Automatic", -1, "euler", "psu", "off", True], 20, None, None, None),
    ],
)
def test_the_models_own_numbers_are_none_for_the_core(
    hires: Any, args: list[Any], steps: int, nfe: int | None, noise_step: int | None, tile: Any
) -> None:
    sampling = hires.Options.of(args).sampling(steps)
    assert (sampling.nfe, sampling.noise_step, sampling.tile) == (nfe, noise_step, tile)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["Automatic", 2.5], "noise_step must be of type int, but it is 2.5"),
        (["Automatic", True], "noise_step must be of type int, but it is True"),
        (["Automatic", 0, "euler", "psu", "off", False, "much"], "strength must be of type float, but it is 'much'"),
        (["Automatic", 0, "euler", "psu", "off", False, True], "strength must be of type float, but it is True"),
        (["Automatic", 0, "euler", "psu", "off", False, 2.5], "strength must be above 0 and at most 2"),
        (["Automatic", 0, "euler", "psu", "off", False, float("nan")], "strength must be above 0 and at most 2"),
        (["Automatic", "1e3"], "noise_step must be of type int"),
        (["Automatic", float("nan")], "noise_step must be of type int"),
        (["Automatic", 1000], "0 to 999, or -1"),
        (["Automatic", -2], "0 to 999, or -1"),
        ([None], "model must be of type str, but it is None"),
        (["Automatic", -1, "leap"], "There is no solver 'leap'; choose one of euler"),
        (["Automatic", -1, "euler", "cubic"], "There is no guide method 'cubic'; choose one of psu"),
        (["Automatic", -1, "euler", "psu", "0"], "auto, off or a whole number"),
        (["Automatic", -1, "euler", "psu", "auto", "maybe"], "refine must be of type bool"),
        (["Automatic", -1, "euler", "psu", "auto", False, 0, "None", 7], "FMBoost takes 8 arguments"),
        (
            ["Automatic", -1, "euler", "auto", "auto", False, 0, "Gone 4x"],
            "There is no upscaler 'Gone 4x' here",
        ),
    ],
)
def test_wrong_options_are_a_sentence_instead_of_the_first_pass(
    hires: Any, small: torch.Tensor, args: list[Any], sentence: str
) -> None:
    job = Job(Checkpoint())
    with pytest.raises(ConfigError, match=sentence):
        run(hires, job, small, *args)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ((2**20, 2**20), "pixels are too many"),
        ((64, 56), "FMBoost only enlarges: 64x56 is smaller"),
        ((0, 64), "above 0"),
    ],
)
def test_an_impossible_size_is_a_sentence_instead_of_the_first_pass(
    hires: Any, small: torch.Tensor, target: tuple[int, int], sentence: str
) -> None:
    job = Job(Checkpoint(), hr_upscale_to_x=target[0], hr_upscale_to_y=target[1])
    hires.install(job, [])
    hires.prepare(job)
    with pytest.raises(ConfigError, match=sentence):
        job.sample()


def test_the_infotext_holds_what_is_needed_and_no_more(hires: Any, stub: SimpleNamespace) -> None:
    from fmboost_webui.options import WIDGETS, from_infotext

    job = Job(Checkpoint(), hr_second_pass_steps=2)
    hires.install(job, ["sub/own", 300, "heun", "psu", "64", False, 1.25, "Crisp 4x"])
    hires.prepare(job)
    assert job.extra_generation_params == {
        "FMBoost model": "sub/own", "FMBoost noise step": 300, "FMBoost solver": "heun", "FMBoost guide": "psu",
        "FMBoost strength": 1.25, "FMBoost upscale model": "Crisp 4x",
    }  # fmt: skip
    pasted = {key: str(value) for key, value in job.extra_generation_params.items()}
    values = ["sub/own", 300, "heun", "psu", "auto", False, 1.25, "Crisp 4x"]
    assert [from_infotext(name, pasted) for name in WIDGETS] == values
    assert [from_infotext(name, {"Hires upscaler": "Latent"}) for name in WIDGETS] == [None] * 8
    older = {"FMBoost model": MODEL, "FMBoost guide": "bilinear", "FMBoost refine": "True"}
    assert [from_infotext(name, older) for name in WIDGETS] == [
        MODEL, -1, "euler", "bilinear", "auto", True, 0.0, "None",
    ]  # fmt: skip


def test_what_takes_no_part_is_not_told(hires: Any, small: torch.Tensor) -> None:
    job = Job(Checkpoint())
    run(hires, job, small[:1])
    assert job.hr_prompt == "" and job.hr_second_pass_steps == 1
    assert job.hr_checkpoint_name is job.hr_sampler_name is job.hr_scheduler is None
    refined = Job(Checkpoint())
    run(hires, refined, small[:1], "Automatic", -1, "euler", "psu", "auto", True)
    assert refined.hr_prompt == "a second prompt" and refined.hr_second_pass_steps == 0
    assert refined.hr_checkpoint_name == "another"


@pytest.mark.parametrize("change", [{"enable_hr": False}, {"hr_upscaler": "Latent"}])
def test_other_jobs_are_left_alone(hires: Any, small: torch.Tensor, change: dict[str, Any]) -> None:
    job = Job(Checkpoint(), **change)
    before = dict(vars(job))
    assert run(hires, job, small)[0] == "the host's own pass"
    assert vars(job) == before


def test_a_copy_of_a_job_is_freed_of_what_the_first_was_given(hires: Any, small: torch.Tensor) -> None:
    """As an X/Y/Z plot does it, whose cells share the infotext's keys."""
    first = Job(Checkpoint())
    hires.install(first, ["nothing"])
    hires.prepare(first)
    assert {"sample", "sample_hr_pass"} <= set(vars(first))
    other = copy(first)
    other.hr_upscaler = "Latent"
    other.extra_generation_params["FMBoost model"] = MODEL
    assert run(hires, other, small)[0] == "the host's own pass"
    assert other.sample() == "the first pass" and other.extra_generation_params == {}


# --- the pass


def test_the_pass_is_boost_with_the_hosts_noise_restored(
    hires: Any, stub: SimpleNamespace, small: torch.Tensor
) -> None:
    checkpoint = Checkpoint()
    job = Job(
        checkpoint, seeds=[5, 9], subseeds=[0, 0], hr_upscale_to_x=200, hr_upscale_to_y=120, truncate_x=1,
        hr_second_pass_steps=4,
    )  # fmt: skip
    images = run(hires, job, small)
    wanted = boost(small, load_model(MODEL), checkpoint.codec, size=(192, 120), seed=[5, 9], nfe=4)
    assert len(images) == 2 and images[0].shape == (3, 120, 192)
    for image, latent, low in zip(images, wanted.split(1), small.split(1), strict=True):
        large, seen = (checkpoint.decode_first_stage(x).clamp(-1, 1) for x in (latent, low))
        assert torch.allclose(image, restored(large, seen)[0], atol=1e-3)
    state = stub.shared.state
    assert (state.jobs, state.sampling_step, state.sampling_steps) == (1, 16, 16)  # two items, two stages, four each
    assert stub.shared.total_tqdm.steps == 4 and state.current_latent is not None  # the job's own count of steps
    assert job.is_hr_pass is False and job.sampler is None


def test_the_hosts_tiling_makes_a_seamless_texture(hires: Any, small: torch.Tensor) -> None:
    checkpoint, axes = Checkpoint(), Tileable(x=True, y=True)
    (image,) = run(hires, Job(checkpoint, tiling=True), small[:1])
    wanted = boost(small[:1], load_model(MODEL), checkpoint.codec, seed=5, tileable="both")
    large, seen = (periodic(checkpoint.codec, axes).decode(x).clamp(-1, 1) for x in (wanted, small[:1]))
    assert torch.allclose(image, restored(large, seen, tileable=axes)[0], atol=1e-3)
    (edged,) = run(hires, Job(checkpoint), small[:1])
    assert (image - edged).abs().max() > 1e-2
    with pytest.raises(ConfigError, match="cannot be cropped"):
        run(hires, Job(checkpoint, tiling=True, truncate_x=2), small[:1])


def test_guides_from_latents_restore_nothing(hires: Any, small: torch.Tensor) -> None:
    checkpoint = Checkpoint()
    (image,) = run(hires, Job(checkpoint), small[:1], "Automatic", -1, "euler", "bilinear", "auto", False)
    wanted = boost(small[:1], load_model(MODEL), checkpoint.codec, upsample="bilinear", seed=5)
    assert torch.allclose(image, checkpoint.decode_first_stage(wanted)[0].clamp(-1, 1), atol=1e-4)


def crisp(image: Tensor) -> Tensor:
    """What the stub's upscaler makes: (B,3,h,w) in [0,1], four times as large, in 8 bits."""
    large = F.interpolate((image * 255).round(), scale_factor=4, mode="nearest")
    return ((large - 128) * 1.2 + 128).round().clamp(0, 255) / 255


def test_an_upscaler_of_the_host_takes_the_place_of_interpolation(
    hires: Any, stub: SimpleNamespace, small: torch.Tensor
) -> None:
    from fmboost_webui import upscale_model

    # Neither Lanczos nor our own upscaler, which would call itself.
    assert upscale_model.choices() == ["Automatic", "None", *upscale_model.BUNDLED_NAMES, "Crisp 4x", "Broken 4x"]
    checkpoint, args = Checkpoint(), ("Automatic", -1, "euler", "auto", "auto", False, 0)
    job = Job(checkpoint, seeds=[5, 9], subseeds=[0, 0])
    images = run(hires, job, small, *args, "Crisp 4x")
    model, codec = load_model(MODEL), checkpoint.codec
    wanted = boost(small, model, codec, seed=[5, 9], upscale_model=crisp)
    for image, latent, low in zip(images, wanted.split(1), small.split(1), strict=True):
        large = enlarged(codec.decode(low).clamp(-1, 1), (128, 128), crisp)
        before, after = (codec.decode(x).clamp(-1, 1) for x in (codec.encode(large), latent))
        assert torch.allclose(image, retouched(large, before, after, 2)[0], atol=2e-2)
        assert not torch.allclose(image, after[0], atol=0.1), "the codec's losses are not in it"
    refined = run(hires, Job(checkpoint), small[:1], *args[:5], True, 0, "Crisp 4x")
    assert torch.allclose(refined[1], wanted[:1], atol=2e-2)
    with pytest.raises(ConfigError, match="Broken 4x did not enlarge the image; choose one that enlarges"):
        run(hires, Job(checkpoint), small[:1], *args, "Broken 4x")
    with pytest.raises(ConfigError, match="but the guide method bilinear works on latents"):
        run(hires, Job(checkpoint), small[:1], *args[:3], "bilinear", "auto", False, 0, "Crisp 4x")
    stub.shared.state.interrupted = True
    assert run(hires, Job(checkpoint), small[:1], *args, "Broken 4x") is not None


def test_the_bundled_upscale_model_takes_the_place_of_interpolation(
    hires: Any, stub: SimpleNamespace, small: torch.Tensor
) -> None:
    from fmboost_webui import upscale_model
    from fmboost_webui.options import Options

    checkpoint, usual_spec = Checkpoint(), read_spec(MODEL)
    args = ("Automatic", -1, "euler", "auto", "auto", False, 0, "FMBoost latent 2x")
    (image,) = run(hires, Job(checkpoint), small[:1], *args)
    (unasked,) = run(hires, Job(checkpoint), small[:1], *args[:-1], "Automatic")
    assert torch.equal(unasked, image)
    bundled, seen = load_upscale_model("fmboost-latent-x2"), checkpoint.codec.decode(small[:1]).clamp(-1, 1)
    large = enlarged(seen, tuple(image.shape[-2:]), bundled)
    assert torch.allclose(image, large[0], atol=1e-5), "its image, without the flow"
    textured = list(args)
    textured[6] = 0.05
    assert not torch.allclose(run(hires, Job(checkpoint), small[:1], *textured)[0], large[0], atol=1e-3)
    usual = Options.of([])
    named = {model: usual.enlarger(read_spec(model)) for model in (MODEL, "sdxl-x2", "sd3-x2", "flux1-x2")}
    assert set(named.values()) == {"FMBoost mean 2x", "FMBoost latent 2x"}
    assert [model for model, name in named.items() if name == "FMBoost mean 2x"] == ["sd3-x2"]
    assert usual.enlarger(usual_spec, of_images=True) == "FMBoost image 2x"
    for model, guide in (("sd15-x2-direct", "auto"), (MODEL, "bilinear")):  # these have no image to enlarge
        assert Options.of([], {"upsample": guide}).enlarger(read_spec(model)) is None
    assert Options.of([], {"upscale_model": "None"}).enlarger(usual_spec) is None
    stub.shared.state.interrupted = True
    stopped = upscale_model.named("FMBoost latent 2x")
    assert stopped is not None
    with pytest.raises(Cancelled):
        stopped(seen / 2 + 0.5)
    ours = ", ".join(upscale_model.BUNDLED_NAMES)
    with pytest.raises(ConfigError, match=f"no upscaler 'Gone' here; choose one of Automatic, None, {ours}, Crisp 4x"):
        upscale_model.named("Gone")


def test_extras_work_behind_the_upscaler_of_a_setting(stub: SimpleNamespace, hires: Any) -> None:
    from fmboost_webui import extras

    extras.add_setting()
    assert stub.shared.opts.fmboost_extras_upscale_model == "Automatic"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    ours = extras.UpscalerFMBoost()
    unasked = np.asarray(ours.upscale(picture, 2, extras.BUILTIN), dtype=float)
    stub.shared.opts.fmboost_extras_upscale_model = "FMBoost image 2x"
    assert np.array_equal(np.asarray(ours.upscale(picture, 2, extras.BUILTIN)), unasked)
    stub.shared.opts.fmboost_extras_upscale_model = "None"
    plain = np.asarray(ours.upscale(picture, 2, extras.BUILTIN), dtype=float)
    assert np.abs(unasked - plain).mean() > 3
    stub.shared.opts.fmboost_extras_upscale_model = "Crisp 4x"
    behind = np.asarray(ours.upscale(picture, 2, extras.BUILTIN), dtype=float)
    assert behind.shape == (48, 64, 3) and np.abs(behind - plain).mean() > 3
    forgotten = []
    stub.scripts.scripts_postproc = SimpleNamespace(image_changed=lambda: forgotten.append(True))
    stub.shared.opts.onchange()
    assert forgotten, "the host would show its last result again"
    pixels = torch.from_numpy(np.asarray(picture).copy()).movedim(-1, 0)[None] / 127.5 - 1
    wanted = upscale_image(pixels, load_model("flux1-x2"), load_codec("builtin", "flux1"), upscale_model=crisp)
    assert np.abs(behind - ((wanted[0].movedim(0, -1) + 1) * 127.5).numpy()).max() < 3


@pytest.mark.parametrize("refine", [False, True])
def test_a_direct_model_never_encodes(
    hires: Any, small: torch.Tensor, monkeypatch: pytest.MonkeyPatch, refine: bool
) -> None:
    """One evaluation from latent to latent. The small image only restores, and only where no sampler follows."""
    checkpoint, decoded = Checkpoint(), []
    decode = checkpoint.decode_first_stage
    monkeypatch.setattr(checkpoint, "decode_first_stage", lambda x: decoded.append(x.shape[-1]) or decode(x))
    monkeypatch.setattr(checkpoint, "encode_first_stage", None)
    job = Job(checkpoint)
    found = run(hires, job, small[:1], "sd15-x2-direct", -1, "euler", "auto", "auto", refine)
    wanted = boost(small[:1], load_model("sd15-x2-direct"), None, seed=5)
    assert job.extra_generation_params["FMBoost model"] == "sd15-x2-direct"
    assert "FMBoost guide" not in job.extra_generation_params
    if refine:
        assert torch.allclose(found[1], wanted, atol=1e-3) and not decoded
    else:
        large, seen = (decode(x).clamp(-1, 1) for x in (wanted, small[:1]))
        assert torch.allclose(found[0], restored(large, seen)[0], atol=1e-3) and decoded == [8, 16]
        assert job.hr_second_pass_steps == 1


def test_a_batch_is_exactly_its_singles(hires: Any, small: torch.Tensor) -> None:
    size = {"hr_upscale_to_x": 256, "hr_upscale_to_y": 256}  # in two stages
    both = run(hires, Job(Checkpoint(), seeds=[5, 9], subseeds=[0, 0], **size), small)
    for item, seed in enumerate([5, 9]):
        (alone,) = run(hires, Job(Checkpoint(), seeds=[seed], **size), small[item : item + 1])
        assert torch.equal(both[item], alone)


def test_refining_gives_the_host_a_latent_that_has_its_size(hires: Any, small: torch.Tensor) -> None:
    job = Job(Checkpoint(), seeds=[5, 6], subseeds=[0, 0])
    words, large, mode = run(hires, job, small, "Automatic", -1, "euler", "psu", "auto", True)
    assert words == "the host's own pass" and large.shape == (2, 4, 16, 16)
    again = torch.nn.functional.interpolate(large, size=(16, 16), **mode)
    assert torch.equal(again, large)


def test_the_sparkle_buttons_image_is_taken_as_it_is(
    hires: Any, small: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint()
    with_alpha = Image.new("RGBA", (64, 64), (200, 100, 0, 255))
    decoded: list[Any] = []
    decode = checkpoint.decode_first_stage
    monkeypatch.setattr(checkpoint, "decode_first_stage", lambda x: decoded.append(x) or decode(x), raising=False)
    job = Job(checkpoint, firstpass_image=with_alpha)
    (image,) = run(hires, job, small[:1])
    assert job.firstpass_image.mode == "RGB"
    assert len(decoded) == 1  # the result alone: the guide came from the image
    assert (image.mean(dim=(1, 2)) - torch.tensor([200, 100, 0]) / 127.5 + 1).abs().max() < 0.3


def test_without_the_flow_the_bars_count_the_upscale_models_tiles(
    hires: Any, stub: SimpleNamespace, small: torch.Tensor
) -> None:
    args = (*PLAIN[:-1], "FMBoost image 2x")
    job = Job(Checkpoint(), seeds=[5, 9], subseeds=[0, 0])
    assert len(run(hires, job, small, *args)) == 2
    state = stub.shared.state
    assert state.sampling_step == state.sampling_steps == 2  # an item, a tile
    assert stub.shared.total_tqdm.steps == job.hr_second_pass_steps == 1
    counted: list[int] = []

    def stop() -> None:
        counted.append(state.sampling_step)
        state.interrupted = True

    stub.shared.total_tqdm.update = stop
    job = Job(Checkpoint(), seeds=[5, 9], subseeds=[0, 0], hr_second_pass_steps=2)
    assert run(hires, job, small, *args) is small and counted == [1], "stopped behind the first of two"


@pytest.mark.parametrize("flag", ["interrupted", "skipped"])
def test_stopped_half_way_it_is_the_small_latent(
    hires: Any, stub: SimpleNamespace, small: torch.Tensor, flag: str
) -> None:
    stub.shared.total_tqdm.update = lambda: setattr(stub.shared.state, flag, True)
    job = Job(Checkpoint(), seeds=[5, 6], subseeds=[0, 0])
    assert run(hires, job, small) is small
    assert stub.shared.state.sampling_step < 8 and job.is_hr_pass is False


def test_a_warning_is_shown_with_the_images(hires: Any, small: torch.Tensor) -> None:
    job = Job(Checkpoint(), seeds=[5, 6], subseeds=[0, 0])
    run(hires, job, small, "Automatic", 800)
    assert list(job.comments) == [f"FMBoost: {MODEL} was trained at noise step 100 to 700, not 800; expect artefacts."]


def test_nan_is_an_error_not_an_image(hires: Any, small: torch.Tensor) -> None:
    small[0, 0, 3, 3] = float("nan")
    job = Job(Checkpoint())
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        run(hires, job, small)
    assert job.is_hr_pass is False and type(job).sample_hr_pass is Job.sample_hr_pass


def test_out_of_memory_goes_on_in_tiles_and_a_changed_file_is_read_again(
    hires: Any, stub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = importlib.import_module("fmboost_webui.host")
    model = host.load_network(str(tmp_path / "fmboost/sub/own.safetensors"))
    forward, asked = model.network.forward, []

    def failing(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked.append(x.shape[-1])
        if x.shape[-1] > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(x, *rest)

    monkeypatch.setattr(model.network, "forward", failing)
    wide = torch.zeros(1, 4, 4, 80)
    job = Job(Checkpoint(), hr_upscaler="FMBoost 2x (sub/own)", hr_upscale_to_x=1280, hr_upscale_to_y=64)
    job.hr_second_pass_steps = 1
    (image,) = run(hires, job, wide, "Automatic", -1, "euler", "psu", "off")
    assert image.shape == (3, 64, 1280) and asked[0] == 160 and asked[-1] <= 100
    assert host.load_network(str(tmp_path / "fmboost/sub/own.safetensors")) is model
    later = time.time() + 100
    os.utime(tmp_path / "fmboost/sub/own.safetensors", (later, later))
    assert host.load_network(str(tmp_path / "fmboost/sub/own.safetensors")) is not model


# --- what only some hosts have


def test_a_host_that_writes_nothing_of_hires_before_its_own_pass_is_helped(hires: Any, small: torch.Tensor) -> None:
    """Forge Neo pastes hires-fix only with these, and writes them in the pass that ours replaces."""
    job = Job(Checkpoint(), denoising_strength=0.4)
    job.extra_generation_params["Hires upscaler"] = "Latent"  # of another cell of an X/Y/Z plot
    run(hires, job, small[:1])
    written = {key: value for key, value in job.extra_generation_params.items() if not key.startswith("FMBoost")}
    assert written == {"Hires upscaler": "FMBoost 2x", "Denoising strength": 0.4, "Hires steps": 1}


def test_forges_own_modules_of_the_second_pass_are_named_where_the_api_did_not(
    hires: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "hr_additional_modules", None, raising=False)
    job = Job(Checkpoint())
    hires.install(job, [])
    assert job.hr_additional_modules == ["Use same choices"]
    other = Job(Checkpoint())
    other.hr_additional_modules = ["another VAE"]
    hires.install(other, [])
    assert other.hr_additional_modules == ["another VAE"]


@pytest.mark.parametrize("name", ["backend.memory_management", "ldm_patched.modules.model_management"])
def test_room_is_made_by_the_hosts_own_memory_manager(
    hires: Any, stub: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forge Classic has no `lowvram`."""
    host, asked = importlib.import_module("fmboost_webui.host"), []
    manager = SimpleNamespace(free_memory=lambda needed, device: asked.append((needed, device.type)))
    monkeypatch.setitem(sys.modules, name, manager)
    monkeypatch.delitem(sys.modules, "modules.lowvram")
    monkeypatch.delattr(sys.modules["modules"], "lowvram")
    host._make_room(7)
    assert asked == []
    monkeypatch.setattr(stub.devices, "device", torch.device("cuda"))
    host._make_room(7)
    assert asked == [(7, "cuda")]


def test_extras_are_listed_where_the_host_lists_only_its_own_upscalers(stub: SimpleNamespace, hires: Any) -> None:
    """reForge and Forge Neo; other hosts have found our class already."""
    extras = importlib.import_module("fmboost_webui.extras")
    for _ in range(2):
        extras.register()
    names = [scaler.name for scaler in stub.shared.sd_upscalers]
    assert names == ["Lanczos", "Crisp 4x", "Broken 4x", "FMBoost picture", "FMBoost picture (checkpoint's VAE)"]


# --- what the console says


def load_script(stub: SimpleNamespace) -> dict[str, Any]:
    """As a host loads `scripts/fmboost.py`; returns its names."""
    return runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "fmboost.py"))


def test_the_console_says_once_what_to_do_first_when_the_page_is_built(
    stub: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    callbacks: list[Any] = []
    monkeypatch.setattr(stub.script_callbacks, "on_before_ui", callbacks.append)
    for _ in range(2):  # the second time is "Reload UI"
        names = load_script(stub)
    assert {"FMBoostScript", "UpscalerFMBoost"} <= set(names)
    extras = names["extras"]
    assert "choose the upscaler" not in capsys.readouterr().out
    for callback in callbacks:
        callback()
    assert [scaler.name for scaler in stub.shared.sd_upscalers][3:] == [extras.BUILTIN, extras.CHECKPOINT]
    assert capsys.readouterr().out == "FMBoost: in txt2img, open Hires. fix and choose the upscaler FMBoost 2x.\n"


@pytest.mark.parametrize(
    ("module", "member"),
    [
        ("shared", "latent_upscale_modes"), ("rng", None), ("sd_models", "model_data"),
        ("processing", "StableDiffusionProcessingTxt2Img"),
    ],
)  # fmt: skip
def test_a_web_ui_without_a_needed_part_is_left_alone_with_a_sentence(
    stub: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str,
    member: str | None,
) -> None:  # fmt: skip
    """Such as SD.Next, which has neither latent upscale modes nor a method for the second pass."""
    if member is None:
        monkeypatch.delitem(sys.modules, f"modules.{module}")
    else:
        monkeypatch.delattr(getattr(stub, module), member)
    callbacks: list[Any] = []
    monkeypatch.setattr(stub.script_callbacks, "on_before_ui", callbacks.append)
    names = load_script(stub)
    assert "FMBoostScript" not in names and callbacks == []
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"FMBoost: this web UI has no {module}.{member or 'ImageRNG'}")
    assert "switched off" in line


# --- what the page says


def described(model: Any, size: tuple[int, int], target: tuple[int, int], steps: int, **options: Any) -> str:
    module = importlib.import_module("fmboost_webui.options")
    return module.describe(model, size, target, module.Options.of([], options), steps)


STRONG = {"strength": 0.1}


@pytest.mark.parametrize(
    ("size", "target", "steps", "options", "words"),
    [
        ((512, 512), (1024, 1024), 0, {}, "<b>1024x1024</b> by FMBoost latent 2x alone. Hires prompt, "),
        ((512, 512), (1024, 1024), 0, STRONG, "<b>1024x1024</b> with sd15-x2 behind FMBoost latent 2x, 1 evaluation. "),
        ((512, 512), (1024, 1024), 4, STRONG, "4 evaluations. Noise step: 100 to 700 (default 400). Hires prompt, "),
        ((256, 256), (2048, 2048), 2, STRONG | {"solver": "heun"}, "FMBoost latent 2x, 2 evaluations"),
        ((512, 512), (1024, 1024), 0, {"upscale_model": "Crisp 4x"}, "with sd15-x2 behind Crisp 4x, 1 evaluation. "),
        ((256, 256), (2048, 2048), 2, {"solver": "heun", "upscale_model": "None"}, "3 stages, 6 evaluations"),
        ((256, 256), (2048, 2048), 3, {"solver": "dopri5", "upscale_model": "None"}, "3 stages, as many evaluations"),
        ((512, 512), (1024, 1024), 20, {"refine": True}, "1 evaluation. Noise step: 100 to 700 (default 400). Then"),
    ],
)
def test_the_line_says_what_will_be_made(
    hires: Any, size: tuple[int, int], target: tuple[int, int], steps: int, options: dict[str, Any], words: str
) -> None:
    assert words in described(hires.MODELS[0], size, target, steps, **options)


def test_the_line_of_the_page_knows_the_strength(hires: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("fmboost_webui.script")
    monkeypatch.setattr(script, "_target", lambda *page: (1024, 1024))
    monkeypatch.setattr(script.gr, "update", lambda **state: state, raising=False)
    line = script._line
    page = (512, 512, "FMBoost 2x", 0, 2.0, 0, 0, "Automatic", "euler", "auto", False, "Automatic")
    assert "by FMBoost latent 2x alone" in line(*page, 0)["value"]
    assert "with sd15-x2 behind FMBoost latent 2x" in line(*page, 0.5)["value"]


def test_the_line_says_the_noise_steps_of_the_chosen_model(hires: Any) -> None:
    sdxl = next(model for model in hires.MODELS if model.name == "sdxl-x2")
    assert "Noise step: 100. Hires" in described(sdxl, (512, 512), (1024, 1024), 0, upscale_model="None")


@pytest.mark.parametrize(
    ("target", "steps", "sentence"),
    [((1024, 1024), 3, "midpoint evaluates 2 times a step"), ((1024, 504), 2, "FMBoost only enlarges: 1024x504")],
)
def test_the_line_says_what_cannot_be_made(hires: Any, target: tuple[int, int], steps: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        described(hires.MODELS[0], (512, 512), target, steps, solver="midpoint")


@pytest.mark.parametrize("refine", [False, True])
def test_a_models_own_evaluations_that_do_not_fit_are_called_so(hires: Any, refine: bool) -> None:
    """In the line and in the job; hires steps that are typed are called so only where they count."""
    fast = next(model for model in hires.MODELS if model.name == "sd15-x2-fast")
    steps, sentence = (20 if refine else 0), "so the model's own nfe=1 does not fit; take 2, or the solver euler"
    with pytest.raises(ConfigError, match=sentence):
        described(fast, (512, 512), (1024, 1024), steps, solver="heun", refine=refine)
    job = Job(Checkpoint(), hr_second_pass_steps=steps)
    hires.install(job, [fast.name, -1, "heun", "psu", "auto", refine])
    hires.prepare(job)
    with pytest.raises(ConfigError, match=sentence):
        job.sample()
