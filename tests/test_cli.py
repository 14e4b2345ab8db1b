"""The command line, through `main`: exit codes, messages, files."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import make_model, randomised
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from skimage import data

from fmboost_core.cli import app as cli, device, enlarge, measure
from fmboost_core.cli.arguments import AUTOMATIC
from fmboost_core.cli.device import choose_device, default_model, load_tools
from fmboost_core.cli.measure import evaluation_flop
from fmboost_core.cli.processes import Process, share, this_process
from fmboost_core.cli.progress import ProgressBar
from fmboost_core.cli.record import RECORD
from fmboost_core.codecs.load import load_codec
from fmboost_core.codecs.tiny import taesd
from fmboost_core.errors import Cancelled, ConfigError
from fmboost_core.files.checkpoint import load_model, save_model
from fmboost_core.files.upscale_model import LoadedUpscaleModel, find_upscale_model, load_upscale_model
from fmboost_core.files.weight_file import weights_digest
from fmboost_core.imaging.read import read_picture
from fmboost_core.model import Model
from fmboost_core.networks.config import PRESETS, GuideConfig
from fmboost_core.networks.guide import GuideNetwork
from fmboost_core.sampling.schedule import alpha_bar
from fmboost_core.sampling.target import Target
from fmboost_core.sampling.upscaler import upscale_image

PHOTO = Image.fromarray(data.astronaut()).resize((24, 16))


@pytest.fixture(scope="module")
def tools(tmp_path_factory) -> list[str]:
    """Options for a tiny model and a codec with random weights."""
    folder = tmp_path_factory.mktemp("tools")
    save_model(make_model(), folder / "tiny.safetensors")
    codec = taesd(4)
    for name in ("encoder", "decoder"):
        weights = randomised(getattr(codec, name), std=0.02).state_dict()
        save_file(weights, folder / f"codec_{name}.safetensors")
    return ["--model", str(folder / "tiny.safetensors"), "--codec", str(folder / "codec"), "--device", "cpu"]


PLAIN = ("--upscale-model", "none")


@pytest.fixture
def photo(tmp_path) -> Path:
    PHOTO.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def upscale(tools: list[str], *args: object) -> int:
    """The command, without an upscale model unless the arguments name one."""
    return cli.main(["upscale", *tools, *PLAIN, *map(str, args)])


def pictures_in(folder: Path) -> list[str]:
    """The names of the pictures below a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if not p.name.startswith("."))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize(
    "options, size",
    [
        ([], (48, 32)),
        (["--scale", "1.5"], (36, 24)),
        (["--size", "50x41"], (50, 41)),
        (["--megapixels", "0.0016"], (49, 33)),
    ],
)
def test_sizes(tools, photo, tmp_path, capsys, options, size):
    assert upscale(tools, photo, tmp_path / "out.png", *options) == 0
    assert size_of(tmp_path / "out.png") == size
    out = capsys.readouterr().out
    assert "out.png" in out and f"{size[0]}x{size[1]}" in out and "evaluation" in out


def test_evaluations_are_those_asked_for_in_each_stage(tools, photo, tmp_path, capsys):
    upscale(tools, photo, tmp_path / "out.png", "--nfe", 3)
    assert "3 evaluations" in capsys.readouterr().out
    upscale(tools, photo, tmp_path / "out.png", "--nfe", 1, "--scale", 4)
    assert "2 evaluations" in capsys.readouterr().out


def test_the_seed_decides(tools, photo, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        upscale(tools, photo, tmp_path / f"{name}.png", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_alpha_and_grey_come_through(tools, tmp_path):
    image = PHOTO.convert("LA")
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (0, 0, 12, 16))
    image.putalpha(alpha)
    image.save(tmp_path / "in.png")
    assert upscale(tools, tmp_path / "in.png", tmp_path / "out.png") == 0
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == "LA" and out.size == (48, 32)
        opacity = np.asarray(out)[..., 1]
    assert (opacity[:, :22] == 255).all() and (opacity[:, 26:] == 0).all()


def test_alpha_is_cut_as_the_colours_are(tools, tmp_path):
    image = PHOTO.convert("RGBA")
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (8, 0, 16, 16))  # the middle third
    image.putalpha(alpha)
    image.save(tmp_path / "in.png")
    upscale(tools, tmp_path / "in.png", tmp_path / "cut.png", "--size", "32x32")
    upscale(tools, tmp_path / "in.png", tmp_path / "wide.png", "--size", "32x32", "--stretch")
    cut, wide = (np.asarray(Image.open(tmp_path / name))[16, :, 3] for name in ("cut.png", "wide.png"))
    assert (cut > 128).sum() == pytest.approx(16, abs=2) and (wide > 128).sum() == pytest.approx(32 / 3, abs=2)


def test_a_recipe_names_the_enlargement_and_notes_name_what_is_lost(tools, tmp_path, capsys):
    texts = PngInfo()
    texts.add_text("parameters", "a cup\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 24x16")
    texts.add_text("workflow", '{"nodes": []}')
    texts.add_text("odd", "x")
    PHOTO.save(tmp_path / "in.png", pnginfo=texts, dpi=(300, 300))
    assert upscale(tools, tmp_path / "in.png", tmp_path / "out.png", "--seed", 3) == 0
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert image.text["workflow"] == '{"nodes": []}' and image.text["odd"] == "x"
        assert image.text["parameters"] == (
            "a cup\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 24x16, "
            "Postprocess upscaler: FMBoost tiny, Postprocess upscale to: 48x32, Postprocess upscale seed: 3"
        )
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    assert "note" not in capsys.readouterr().err
    upscale(tools, tmp_path / "in.png", tmp_path / "out.jpg")
    assert "note: in.png: JPEG has no place for the text odd.\n" in capsys.readouterr().err


def test_format_quality_and_subsampling(tools, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "c.jpg", "b.gif"):
        PHOTO.save(tmp_path / "in" / name)
    assert upscale(tools, tmp_path / "in", tmp_path / "out", "--format", "webp") == 0
    assert pictures_in(tmp_path / "out") == ["a.webp", "b.webp", "c.webp"]
    PHOTO.save(tmp_path / "in" / "a.jpg")
    assert upscale(tools, tmp_path / "in", tmp_path / "other", "--format", "webp") == 2  # two would be a.webp
    for quality in (20, 90):
        options = ("--quality", quality, "--subsampling", "4:2:0")
        upscale(tools, tmp_path / "in/a.png", tmp_path / f"{quality}.jpg", *options)
    assert (tmp_path / "20.jpg").stat().st_size < (tmp_path / "90.jpg").stat().st_size
    with Image.open(tmp_path / "90.jpg") as image:
        assert image.layer[0][1:3] == (2, 2)


def test_a_folder_into_a_folder(tools, tmp_path, capsys):
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "a.tif", "in.bmp", ".hidden.png", "deeper/no.png"):
        PHOTO.save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    assert upscale(tools, tmp_path / "in", tmp_path / "out" / "new") == 0
    written = sorted(p.name for p in (tmp_path / "out" / "new").iterdir())
    assert written == [".fmboost-record.jsonl", "a.jpg", "a.png", "a.tif", "in.bmp.png"]
    out, err = capsys.readouterr()
    assert "4 of 4 pictures written" in out
    assert "note: 2 files were left out, as no pictures by their names: " in err
    assert all(name in err for name in (".hidden.png", "notes.txt", "1 folder was not entered", "deeper"))


def test_a_pattern_and_a_list(tools, tmp_path):
    for name in ("a1.png", "a2.png", "b.png", "odd[1].png"):
        PHOTO.save(tmp_path / name)
    assert upscale(tools, tmp_path / "a*.png", tmp_path / "one") == 0
    assert pictures_in(tmp_path / "one") == ["a1.png", "a2.png"]
    assert upscale(tools, tmp_path / "b.png", tmp_path / "odd[1].png", tmp_path / "two") == 0
    assert pictures_in(tmp_path / "two") == ["b.png", "odd[1].png"]
    assert upscale(tools, tmp_path / "odd[1].png", tmp_path / "two") == 0  # an existing folder takes a single one


def test_one_bad_picture_is_skipped_and_said(tools, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    PHOTO.save(tmp_path / "in" / "a.png")
    PHOTO.save(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "b.png").write_bytes(b"broken")
    assert upscale(tools, tmp_path / "in", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert "skipped" in err and "b.png is not a picture" in err
    assert "2 of 3 pictures written" in out and "1 skipped" in out and "b.png" in out.splitlines()[-1]
    assert pictures_in(tmp_path / "out") == ["a.png", "c.png"]


@pytest.mark.parametrize(
    "args, message",
    [
        (["photo.png", "out.gif"], "out.gif has .gif"),
        (["photo.png", "no/such/out.gif"], "out.gif has .gif"),
        (["missing.png", "out.png"], "missing.png does not exist; check the name"),
        (["photo.png", "out.png", "--stretch"], "give --size WxH too"),
        (["empty", "out"], "has no pictures"),
        (["photo.png", "photo.png"], "would be overwritten"),
        (["full", "out.png"], "need a folder"),
        (["photo.png", "out.png", "--solver", "heun", "--nfe", "3"], "take 2 or 4"),
        (["photo.png", "out.png", "--noise-step", "1000"], "noise step"),
        (["photo.png", "out.png", "--size", "10x10"], "only enlarges"),
        (["photo.png", "out.png", "--compare", "photo.png"], "is the input or the output"),
        (["photo.png", "out.png", "--compare", "look.gif"], "look.gif has .gif"),
        (["full", "out", "--compare", "look.png"], "--compare shows one picture"),
        (["photo.png", "out.webp", "--size", "17000x24"], "WEBP ends at 16383"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tools, photo, tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(enlarge.Upscaler, "image", lambda *a, **k: pytest.fail("the work was begun"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    PHOTO.save("full/a.png")
    PHOTO.save("full/b.png")
    before = photo.read_bytes()
    assert upscale(tools, *args) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert photo.read_bytes() == before and not (tmp_path / "out.png").exists() and not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["sharpen"],
        ["upscale", "a.png"],
        ["upscale", "a", "b", "--size", "12"],
        ["upscale", "a", "b", "--scale", "nan"],
        ["upscale", "a", "b", "--scale", "2", "--size", "9x9"],
        ["upscale", "a", "b", "--tile", "few"],
        ["upscale", "a", "b", "--tile", "5"],
        ["upscale", "a", "b", "--nfe", "0"],
        ["upscale", "a", "b", "--quality", "101"],
    ],
)
def test_typing_errors_are_one_line_too(capsys, args):
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_every_command_explains_itself(capsys):
    for name in ("upscale", "info", "convert", "export", "models", "bench"):
        with pytest.raises(SystemExit) as stop:
            cli.main([name, "--help"])
        assert stop.value.code == 0
        assert f"usage: fmboost {name} " in capsys.readouterr().out


def test_options_reach_the_core_under_their_names(tools, photo, tmp_path, monkeypatch):
    calls = []

    def recorded(upscaler, image, target, noise, restore):
        o = upscaler.options
        first = noise((1, 4, 1, 1)).flatten()[0]
        calls.append((target, o.nfe, o.solver, o.alpha_bar, o.tile, first, restore))
        return torch.zeros(1, 3, 32, 48)

    monkeypatch.setattr(enlarge.Upscaler, "image", recorded)
    upscale(tools, photo, tmp_path / "out.png")
    upscale(
        tools, photo, tmp_path / "out.png", "--size", "48x32", "--stretch", "--nfe", 6, "--solver", "heun",
        "--noise-step", 300, "--seed", 5, "--no-restore", "--tile", "off",
    )  # fmt: skip
    spec = load_model(tools[1]).spec
    drawn = [torch.randn(1, generator=torch.Generator().manual_seed(seed))[0] for seed in (0, 5)]
    assert calls[0] == (Target(), spec.nfe, "euler", spec.alpha_bar, "auto", drawn[0], True)
    assert calls[1] == (Target(size=(48, 32), stretch=True), 6, "heun", alpha_bar(300), None, drawn[1], False)


@pytest.mark.parametrize(
    ("codec", "model"), [("taesd", "sd15-x2"), ("taesdxl", "sdxl-x2"), ("taesd3", "sd3-x2"), ("another", "flux1-x2")]
)
def test_the_default_model_fits_the_codec(tmp_path, codec, model):
    pair = taesd(16 if codec == "taesd3" else 4)
    for name in ("encoder", "decoder"):
        save_file(randomised(getattr(pair, name), std=0.02).state_dict(), tmp_path / f"{codec}_{name}.safetensors")
    assert default_model(str(tmp_path / codec)) == model


def test_the_default_is_for_finished_pictures():
    tools = load_tools(None, "builtin", "cpu", "float32")
    assert tools.model.spec.name == "flux1-x2" and tools.codec.family == "flux1"


def test_a_missing_device_is_said(tools, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert upscale(tools, photo, tmp_path / "out.png", "--device", "cuda") == 2
    assert "no cuda device here; choose one of auto, cpu" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["graphics", "cuda:x", "meta", "xpu:3", "privateuseone", ""])
def test_a_wrong_device_lists_those_that_there_are(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"choose one of auto, cpu, cuda:0, cuda:1"):
        choose_device(name)
    with pytest.raises(ConfigError, match="cuda:2"):
        choose_device("cuda:2")


def test_any_device_of_pytorch_is_taken(monkeypatch):
    xpu = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setattr(torch, "xpu", xpu, raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("xpu:1") == torch.device("xpu:1") and choose_device("auto") == torch.device("xpu")
    assert choose_device("mps") == torch.device("mps") and choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("xpu") == torch.device("xpu:1") and choose_device("mps") == torch.device("mps")


def test_every_command_takes_any_device(photo, tmp_path, capsys):
    for words in (
        ["upscale", photo, tmp_path / "o.png"],
        ["bench", "--sizes", "64"],
        ["encode", photo, "--codec", "builtin", "--out", tmp_path / "o"],
        ["evaluate", "run", "sd15-x2", "--photos", photo, "--out", tmp_path / "o"],
    ):
        assert cli.main([*map(str, words), "--device", "xpu:7"]) == 2
        assert "PyTorch finds no xpu:7 device here; choose one of auto, cpu" in capsys.readouterr().err


def test_a_missing_model_is_said(tools, photo, tmp_path, capsys):
    assert upscale(tools, photo, tmp_path / "out.png", "--model", "nothing") == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize("error, several", [(KeyboardInterrupt(), False), (Cancelled("Stopped on request."), True)])
def test_an_interrupt_leaves_what_was_there(tools, photo, tmp_path, capsys, monkeypatch, error, several):
    def interrupted(*args, **kwargs):
        raise error

    monkeypatch.setattr(enlarge.Upscaler, "image", interrupted)
    target = tmp_path / "out" / "photo.png"
    target.parent.mkdir()
    target.write_bytes(b"precious")
    assert upscale(tools, *([photo, photo.parent] if several else [photo]), target.parent) == 130
    assert target.read_bytes() == b"precious" and len(list(target.parent.iterdir())) == 1
    assert capsys.readouterr().err == (
        "Stopped; no file was left half-written. With --skip-existing the same command goes on.\n"
    )


def test_a_stopped_batch_goes_on_and_wrong_pictures_are_made_again(tools, tmp_path, capsys):
    """A pattern over folders, of which one is added later."""
    for name, colour in (("b", "blue"), ("a", "red")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (24, 16), colour).save(tmp_path / name / "1.png")
        assert upscale(tools, tmp_path / "*" / "1.png", tmp_path / "out", "--skip-existing") == 0
    out = capsys.readouterr().out
    assert "1 of 1 pictures written" in out.splitlines()[-1] and "1 already there" in out
    red, blue = (Image.open(tmp_path / "out" / name / "1.png").getpixel((24, 16)) for name in "ab")
    assert red != blue
    assert upscale(tools, tmp_path / "*" / "1.png", tmp_path / "out", "--skip-existing", "--seed", 2) == 0
    out, err = capsys.readouterr()
    assert "2 of 2 pictures written" in out and "2 of those already there made from another source or with other" in err
    record = (tmp_path / "out" / "a" / RECORD).read_text()
    assert '"strength"' not in record, "a record of an older version, which knew no strength, is of strength 1"
    again = ("--skip-existing", "--seed", 2, "--tile", 32, "--dtype", "bfloat16", "--strength", 1)
    assert upscale(tools, tmp_path / "*" / "1.png", tmp_path / "out", *again) == 0
    assert capsys.readouterr().out == "nothing to do, 2 already there.\n"
    assert upscale(tools, tmp_path / "*" / "1.png", tmp_path / "out", *again, "--strength", 1.3) == 0
    assert "2 of 2 pictures written" in capsys.readouterr().out
    assert upscale(tools, tmp_path / "a" / "1.png", tmp_path / "out", "--strength", 3) == 2
    assert "strength must be above 0 and at most 2, but it is 3.0" in capsys.readouterr().err


def test_an_upscale_model_takes_the_place_of_interpolation(tools, photo, tmp_path, capsys, monkeypatch):
    def loaded(path, device, dtype):
        return LoadedUpscaleModel(
            Path(path).stem, lambda x: x.square().repeat_interleave(4, 2).repeat_interleave(4, 3), 4, device, dtype
        )

    monkeypatch.setattr(device, "load_upscale_model", loaded)
    for name in ("crisp", "other"):
        (tmp_path / f"{name}.pth").write_text(name)
    plain, behind = tmp_path / "plain.png", tmp_path / "behind" / "photo.png"
    assert upscale(tools, photo, plain) == 0
    how = ("--upscale-model", tmp_path / "crisp.pth")
    assert upscale(tools, photo, f"{behind.parent}/", *how, "--compare", tmp_path / "compare.png") == 0
    small = read_picture(photo)
    model, codec = load_model(tools[1]), load_codec(tools[3])
    wanted = upscale_image(small.rgb, model, codec, upscale_model=loaded("", torch.device("cpu"), torch.float32))
    assert (read_picture(behind).rgb - wanted).abs().max() < 0.01
    assert (read_picture(behind).rgb - read_picture(plain).rgb).abs().max() > 0.1
    assert Image.open(tmp_path / "compare.png").width > 2 * Image.open(behind).width
    capsys.readouterr()
    assert upscale(tools, photo, f"{behind.parent}/", *how, "--skip-existing") == 0
    assert "nothing to do" in capsys.readouterr().out
    how = ("--upscale-model", tmp_path / "other.pth")
    assert upscale(tools, photo, f"{behind.parent}/", *how, "--skip-existing") == 0
    assert "with other settings, so made anew" in capsys.readouterr().err, "another upscale model"
    assert upscale(tools, photo, plain, "--upscale-model", tmp_path / "crisp.pth", "--strength", 3) == 2


def test_the_bundled_upscale_model_is_named(tools, photo, tmp_path, capsys):
    out = tmp_path / "large.png"
    assert upscale(tools, photo, out, "--upscale-model", "builtin") == 0
    small = read_picture(photo)
    bundled = load_upscale_model("builtin")
    wanted = upscale_image(small.rgb, load_model(tools[1]), load_codec(tools[3]), upscale_model=bundled)
    assert (read_picture(out).rgb - wanted).abs().max() < 0.01
    assert "without the flow" in capsys.readouterr().out
    unasked, compared = tmp_path / "unasked.png", tmp_path / "compared.png"
    assert cli.main(["upscale", *tools, str(photo), str(unasked), "--compare", str(compared)]) == 0
    assert torch.equal(read_picture(unasked).rgb, read_picture(out).rgb), "it is the default"
    flown, three = tmp_path / "flown.png", tmp_path / "three.png"
    assert upscale(tools, photo, flown, "--upscale-model", "builtin", "--strength", 0.05, "--compare", three) == 0
    assert "4 evaluations" in capsys.readouterr().out
    assert Image.open(three).width > 1.3 * Image.open(compared).width, "the upscale model's panel is there, too"
    assert load_tools("sd15-x2-direct", "builtin", "cpu", "float32", AUTOMATIC).upscale_model is None
    capsys.readouterr()
    assert upscale(tools, photo, out, "--upscale-model", tmp_path / "none.pth") == 2
    assert "none.pth; give a file, or the name of a bundled one" in capsys.readouterr().err


def test_the_mean_is_taken_by_its_name(tools, photo, tmp_path, capsys):
    out = tmp_path / "out"
    how = ("--upscale-model", "fmboost-mean-x2", "--scale", 1.5)
    assert upscale(tools, photo, f"{out}/", *how) == 0
    assert upscale(tools, photo, f"{out}/", *how, "--skip-existing") == 0
    assert "nothing to do" in capsys.readouterr().out
    other = ("--upscale-model", "fmboost-latent-x2", "--scale", 1.5, "--skip-existing")
    assert upscale(tools, photo, f"{out}/", *other) == 0
    assert "with other settings, so made anew" in capsys.readouterr().err


def test_a_recipe_names_the_networks_that_took_part(tools, tmp_path):
    texts = PngInfo()
    texts.add_text("parameters", "a cup\nSteps: 20, Size: 24x16")
    PHOTO.save(tmp_path / "in.png", pnginfo=texts)
    named = {"fmboost-image-x2": (), "tiny behind fmboost-image-x2": ("--strength", 0.05)}
    for name, how in named.items():
        assert upscale(tools, tmp_path / "in.png", tmp_path / "out.png", "--upscale-model", "builtin", *how) == 0
        with Image.open(tmp_path / "out.png") as image:
            assert f"Postprocess upscaler: FMBoost {name}, " in image.text["parameters"]


def test_a_single_picture_leaves_no_record_beside_it(tools, photo, tmp_path):
    assert upscale(tools, photo, tmp_path / "out.png") == 0
    assert not (tmp_path / RECORD).exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_too_little_memory_is_said(tools, photo, tmp_path, capsys, monkeypatch, error):
    def too_much(*args, **kwargs):
        raise error

    monkeypatch.setattr(enlarge.Upscaler, "image", too_much)
    assert upscale(tools, photo, tmp_path / "out.png") == 2
    assert "does not fit into memory" in capsys.readouterr().err


def test_other_errors_of_the_program_are_not_hidden(tools, photo, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(enlarge.Upscaler, "image", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        upscale(tools, photo, tmp_path / "out.png")


def test_warnings_become_notes(tools, photo, tmp_path, capsys):
    assert upscale(tools, photo, tmp_path / "out.png", "--noise-step", 100) == 0
    err = capsys.readouterr().err
    assert err.startswith("note: ") and "100" in err and "Warning" not in err


def test_what_a_format_loses_is_noted(tools, tmp_path, capsys):
    PHOTO.convert("RGBA").save(tmp_path / "in.png")
    assert upscale(tools, tmp_path / "in.png", tmp_path / "out.jpg") == 0
    assert "note: in.png: JPEG has no transparency" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--size", "40x40"]])
def test_compare(tools, photo, tmp_path, options):
    assert upscale(tools, photo, tmp_path / "out.png", "--compare", tmp_path / "look.png", *options) == 0
    width, height = size_of(tmp_path / "look.png")
    assert width > 300 and height > 100


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_terminals_only(monkeypatch):
    monkeypatch.setattr(ProgressBar, "INTERVAL", 0)
    for stream, shown in ((_Terminal(), True), (io.StringIO(), False)):
        with ProgressBar("photo.png", stream) as bar:
            bar(1, 4)
            bar(7, 0)  # an unknown total
        parts = stream.getvalue().split("\r")
        assert any("photo.png:  25%" in part and "1/4" in part for part in parts) == shown
        assert any("photo.png: 7it" in part for part in parts) == shown
        assert not shown or not "".join(parts[-2:]).strip()  # leaves an empty line


def test_info_models_and_convert(tools, tmp_path, capsys):
    assert cli.main(["info", tools[1]]) == 0
    assert "44,388 parameters" in capsys.readouterr().out
    assert cli.main(["convert", tools[1], str(tmp_path / "half.safetensors"), "--dtype", "float16"]) == 0
    assert cli.main(["info", str(tmp_path / "half.safetensors")]) == 0
    assert "F16" in capsys.readouterr().out
    assert cli.main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "Other models" in listed and "1 evaluations" not in listed
    for name, kind in (("fmboost-image-x2", "compact"), ("fmboost-latent-x2", "RRDB")):
        assert f"  {name}" in listed and f"{kind} network" in listed
        for given in (name, str(find_upscale_model(name))):
            assert cli.main(["info", given]) == 0
            told = capsys.readouterr().out
            assert f"{kind} kind" in told and "BSD-3-Clause" in told and re.search(r"^scale +2$", told, re.M)
    assert cli.main(["info", "fmboost-mean-x2"]) == 0 and "  fmboost-mean-x2" in listed
    assert "the sharpened mean of what fmboost-image-x2 and fmboost-latent-x2 make" in capsys.readouterr().out
    assert cli.main(["info", str(tmp_path)]) == 2


def test_converting_onto_itself_is_refused(tools, capsys):
    assert cli.main(["convert", tools[1], tools[1]]) == 2
    assert "is the source itself" in capsys.readouterr().err


def test_options_that_an_own_file_answers_itself_are_named(tools, tmp_path, capsys):
    target = str(tmp_path / "new" / "x.safetensors")
    assert cli.main(["convert", tools[1], target, "--family", "sdxl", "--heads", "8"]) == 2
    assert "whose own specification says what it is; leave out heads, family." in capsys.readouterr().err
    assert cli.main(["convert", tools[1], target]) == 0 and load_model(target).spec.name == "tiny"


def test_bench_measures_and_writes_json(tools, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "in_new_process", measure.measure)  # starting PyTorch for each case takes its time
    report = tmp_path / "bench.json"
    args = ["bench", "--sizes", "64", "--nfe", "2", "--repeat", "1", "--json", str(report), *tools]
    assert cli.main(args) == 0
    numbers = json.loads(report.read_text())
    assert [(row["case"]["method"], row["evaluations"]) for row in numbers["rows"]] == [
        ("bicubic", 0),
        ("psu", 0),
        ("boost", 2),
    ]
    assert all(row["seconds"] > 0 for row in numbers["rows"]) and numbers["gflop"]["64"] > 0
    assert "32 -> 64" in capsys.readouterr().out
    assert cli.main([*args[:-6], "--json", str(report / "bench.json"), *tools]) == 2
    assert "name another file" in capsys.readouterr().err


def test_bench_measures_the_parts(tools, tmp_path, capsys, monkeypatch):
    """Each part alone; the guide network's only where the model has one. Arithmetic is that of closed forms."""
    monkeypatch.setattr(measure, "in_new_process", measure.measure)
    plain, config = load_model(tools[1]), GuideConfig(width=8, blocks=1)
    fast = tmp_path / "fast.safetensors"
    save_model(Model(replace(plain.spec, guide="fast", fast=config), plain.network, GuideNetwork(config)), fast)
    report, found = tmp_path / "bench.json", {}
    for model in (tools[1], str(fast)):
        args = ["bench", "--parts", "--sizes", "68", "--repeat", "1", "--json", str(report), *tools, "--model", model]
        assert cli.main(args) == 0
        rows = json.loads(report.read_text())["rows"]
        assert all(row["seconds"] > 0 and (row["case"]["start"], row["case"]["side"]) == (32, 64) for row in rows)
        found[model] = {row["case"]["method"]: row["flop"] for row in rows}
    names = {
        "interpolated guide",
        "psu guide",
        "upscale model",
        "evaluation",
        "decoding",
        "decoding small",
        "restoring",
    }
    assert set(found[tools[1]]) == names and set(found[str(fast)]) == names | {"fast guide"}
    flop = found[str(fast)]
    layers = [(4, 8, 16), *3 * [(8, 8, 16)], *10 * [(8, 8, 64)], (8, 4, 64)]  # in, out, positions
    assert flop["fast guide"] == sum(2 * 9 * i * o * n for i, o, n in layers)
    assert flop["decoding"] == 4 * flop["decoding small"]
    assert flop["interpolated guide"] == flop["restoring"] == 0  # no convolutions
    assert "fast guide" in capsys.readouterr().out


def test_the_record_knows_a_guide_network_by_its_weights():
    """`--skip-existing` makes pictures anew when the guide network alone has changed."""
    network, config = torch.nn.Linear(2, 2), GuideConfig(width=8, blocks=1)
    guides = [randomised(GuideNetwork(config), seed) for seed in (0, 1)]
    found = [weights_digest(network, guide) for guide in (None, *guides)]
    assert len(set(found)) == 3 and found[0] == weights_digest(network)


def test_a_case_is_measured_in_a_process_of_its_own(tools):
    settings = measure.BenchSettings(tools[1], tools[3], "cpu", "float32", "auto", repeat=2)
    row = measure.in_new_process(settings, measure.BenchCase("bicubic", 128, 1024))
    assert len(row.runs) == 2 and row.seconds > 0
    assert row.memory is None or 1e6 < row.memory < 1e9  # the picture alone has 12 MB


def test_flop_of_the_papers_networks():
    """Measured 0.304 and 0.452 TFLOP for one evaluation at 128x128 latents (paper, Table 9's networks)."""
    assert evaluation_flop(PRESETS["paper-113m"], 128) / 1e12 == pytest.approx(0.304, rel=0.01)
    assert evaluation_flop(PRESETS["paper-306m"], 128) / 1e12 == pytest.approx(0.452, rel=0.01)


def test_unwritable_folders_are_found_before_the_work(tools, photo, tmp_path, capsys, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    monkeypatch.setattr(enlarge.Upscaler, "image", lambda *a, **k: pytest.fail("the work was begun"))
    assert upscale(tools, photo, tmp_path / "out.png") == 2
    assert "permission denied" in capsys.readouterr().err


def test_a_failing_disk_is_one_sentence_and_leaves_the_old_file(tools, photo, tmp_path, capsys, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    (tmp_path / "out.png").write_bytes(b"precious")
    monkeypatch.setattr(Image.Image, "save", full)
    assert upscale(tools, photo, tmp_path / "out.png") == 2
    assert "No space left" in capsys.readouterr().err
    assert (tmp_path / "out.png").read_bytes() == b"precious"


def test_a_reader_that_stops_reading_is_no_error(tools):
    command = [sys.executable, "-m", "fmboost_core", "info", tools[1]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_existing_pictures_are_left_out_if_asked(tools, photo, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in "abc":
        PHOTO.save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").write_bytes(b"done before")
    assert upscale(tools, tmp_path / "in", tmp_path / "out", "--skip-existing") == 0
    out, err = capsys.readouterr()
    assert "2/2 " in out and "2 of 2 pictures written" in out and "1 already there" in out
    assert "note: 1 of those already there kept without knowing from what" in err and "b.png" in err
    assert (tmp_path / "out" / "b.png").read_bytes() == b"done before"
    assert size_of(tmp_path / "out" / "c.png") == (48, 32)
    assert upscale(tools, tmp_path / "in", tmp_path / "out", "--skip-existing") == 0
    assert capsys.readouterr().out == "nothing to do, 3 already there.\n"
    assert upscale(tools, photo, tmp_path / "out" / "b.png", "--skip-existing") == 0
    assert capsys.readouterr().out == "nothing to do, 1 already there.\n"
    assert upscale(tools, tmp_path / "in", tmp_path / "out") == 0
    assert size_of(tmp_path / "out" / "b.png") == (48, 32)


def test_every_item_is_one_processs():
    for count in (1, 2, 3, 7):
        parts = [share("abcde", {"RANK": str(rank), "WORLD_SIZE": str(count)}) for rank in range(count)]
        assert sorted(item for part in parts for item in part) == list("abcde")
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert share([1, 2, 3], {}) == [1, 2, 3] and this_process({}) == Process(0, 1, None)
    assert this_process({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Process(3, 4, 1)


@pytest.mark.parametrize(
    "environ, message",
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be from 0 to WORLD_SIZE - 1, but RANK is 2 and WORLD_SIZE 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is -1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE 0"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK must be a whole number, as a launcher sets it, but it is 'first'"),
        ({"RANK": "0"}, "RANK is set but WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set but RANK is not"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK must be 0 or above"),
    ],
)
def test_process_numbers_that_cannot_be_are_refused(environ, message):
    with pytest.raises(ConfigError, match=message):
        this_process(environ)


def test_a_wrong_share_is_said_before_the_work(tools, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert upscale(tools, photo, tmp_path / "new" / "out.png") == 2
    assert "WORLD_SIZE is not" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_each_process_has_its_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("cuda") == choose_device("auto") == choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="LOCAL_RANK is 2, but PyTorch finds 2 GPUs"):
        choose_device("auto")


def start(tools: list[str], rank: int, count: int, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fmboost_core", "upscale", *tools, *map(str, args)]
    environ = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_share_a_folder(tools, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c", "e"):
        PHOTO.save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "d.png").write_bytes(b"broken")
    processes = [start(tools, rank, 2, tmp_path / "in", tmp_path / "out" / "new") for rank in (0, 1)]
    (first, _), (second, complaint) = (process.communicate() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]  # though one has skipped a picture
    assert [name for name in "abcde" if f"{name}.png  48x32" in first] == ["a", "c", "e"]
    assert [name for name in "abcde" if f"{name}.png  48x32" in second] == ["b"]
    assert "Process 1 of 2: 3 of 3 pictures written" in first and "d.png is not a picture" in complaint
    assert "Process 2 of 2: 1 of 2 pictures written" in second and "1 skipped" in second
    assert pictures_in(tmp_path / "out" / "new") == ["a.png", "b.png", "c.png", "e.png"]


def test_a_process_without_a_picture_says_so(tools, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert upscale(tools, photo, tmp_path / "out.png") == 0
    assert capsys.readouterr().out == "Process 2 of 2: nothing to do.\n" and not (tmp_path / "out.png").exists()
