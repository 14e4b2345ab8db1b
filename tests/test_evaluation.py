"""Evaluation: figures against calculations by hand, continued runs, reports, refusals."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import make_model
from PIL import Image
from test_metrics import Moments, save_tiny_clip

from fmboost_core import boost
from fmboost_core.codecs.load import load_codec, save_codec
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import ConfigError, FileError, ImageError, MissingDependencyError
from fmboost_core.evaluation import comparison
from fmboost_core.evaluation.__main__ import main
from fmboost_core.evaluation.contact_sheet import contact_sheet
from fmboost_core.evaluation.markdown import markdown
from fmboost_core.evaluation.output import write_json
from fmboost_core.evaluation.photographs import EvaluationConfig, load_photo, prepare
from fmboost_core.evaluation.plots import bars, curve
from fmboost_core.evaluation.statistics import Interval, bootstrap
from fmboost_core.evaluation.summary import against, summarise
from fmboost_core.files.checkpoint import load_model, save_model
from fmboost_core.imaging.compare import Panel
from fmboost_core.imaging.resample import resize
from fmboost_core.metrics.fidelity import latent_mse
from fmboost_core.metrics.image_metrics import measure
from fmboost_core.metrics.meanings import METRICS
from fmboost_core.model import Model
from fmboost_core.sampling.guide import pixel_upsample

FEW = ("psnr", "swd", "detail")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"a": (80, 64), "b": (100, 70), "c": (64, 64)}.items():
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def command(photos: Path, model: Model, codec: TinyVAE, tmp_path: Path) -> list[str]:
    """What runs the tiny model at one and two evaluations with the tiny codec."""
    save_model(model, tmp_path / "tiny.safetensors", torch.float32)
    save_codec(codec, tmp_path / "codec.safetensors", license="MIT", trained_on="nothing")
    names = ["run", str(tmp_path / "tiny.safetensors"), "--codec", str(tmp_path / "codec.safetensors")]
    options = ["--photos", str(photos), "--nfe", "1", "2", "--out", str(tmp_path / "out"), "--device", "cpu"]
    return [*names, *options, "--metrics", *FEW]


def results_of(folder: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    return json.loads((folder / "results.json").read_text())


# --- photographs and figures


def test_a_photograph_is_cut_at_its_centre(photos: Path) -> None:
    whole = load_photo(photos / "a.png", 512, 1)
    cut = load_photo(photos / "a.png", 50, 16)
    assert whole.shape == (1, 3, 64, 80) and cut.shape == (1, 3, 48, 48)
    assert torch.equal(cut, whole[..., 8:56, 16:64])
    with pytest.raises(ImageError, match=r"c\.png is 64x64; 128 pixels a side are needed"):
        load_photo(photos / "c.png", 512, 128)


def test_figures_are_those_of_the_methods_latents(
    command: list[str], photos: Path, tmp_path: Path, model: Model, codec: TinyVAE
) -> None:
    """As calculated by hand, for the flow and both baselines."""
    assert main([*command, "--seed", "3", "--every", "3"]) == 0
    methods = results_of(tmp_path / "out")["methods"]
    photo = load_photo(photos / "a.png", 512, 32)
    size = (photo.shape[-2], photo.shape[-1])
    small = resize(photo, (size[0] // 2, size[1] // 2))
    codec = load_codec(tmp_path / "codec.safetensors")
    low, true = codec.encode(small), codec.encode(photo)
    reference = codec.decode(true).clamp(-1, 1)
    latents = {
        "tiny, nfe 2": boost(low, model, codec, scale=2, nfe=2, seed=3), "guide": pixel_upsample(low, codec, size)
    }  # fmt: skip
    for method, latent in latents.items():
        expected = {
            "latent_mse": latent_mse(latent, true),
            **measure(codec.decode(latent).clamp(-1, 1), reference, FEW),
        }
        assert methods[method]["a.png"] == pytest.approx(expected)
    assert methods["bicubic"]["a.png"] == measure(resize(small, size, "bicubic").clamp(-1, 1), reference, FEW)


def test_the_reference_may_be_the_photograph_itself(photos: Path, codec: TinyVAE) -> None:
    photo = load_photo(photos / "a.png", 512, 32)
    assert torch.equal(prepare(photos / "a.png", codec, EvaluationConfig(reference="photo")).reference, photo)
    assert not torch.equal(prepare(photos / "a.png", codec, EvaluationConfig()).reference, photo)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scale": 1}, "scale must be a whole number of at least 2, but it is 1"),
        ({"size": 1.5}, r"size must be a whole number of at least 16, but it is 1\.5"),
        ({"reference": "guess"}, "The reference must be decoded or photo, but it is 'guess'"),
        ({"metrics": ("psrn",)}, "no metric psrn"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EvaluationConfig(**fields)


# --- the report


def interval(mean: float, width: float = 1.0) -> Interval:
    return Interval(mean, mean - width, mean + width, 9)


def test_tables_have_intervals_and_mark_the_best() -> None:
    table = markdown(
        {
            "old": {"psnr": interval(28.0), "detail": interval(1.3, 0.1), "fid": 31.5, "new": interval(1)},
            "mine": {"psnr": interval(27.0, 0.25), "detail": interval(0.8, 0.1), "fid": 12.25},
        }
    )
    lines = table.splitlines()
    assert lines[0] == "| method | psnr | detail | fid | new |"
    assert lines[2] == "| old | **28.00** ± 1.00 | 1.300 ± 0.100 | 31.50 | 1.000 ± 1.000 |"
    assert lines[3] == "| mine | 27.00 ± 0.25 | **0.800** ± 0.100 | **12.25** |  |"
    assert "| a | 0.0022 ± 0.0107 |" in markdown({"a": {"swd": interval(0.00222, 0.01066)}})
    assert "- psnr: peak signal-to-noise ratio, dB; higher is better" in lines
    assert "- detail: local contrast over the reference's; 1 is best" in lines


def test_only_photographs_that_all_methods_have_are_compared() -> None:
    results = {
        "guide": {"a": {"mse": 2.0, "psnr": 20.0}, "b": {"mse": 4.0, "psnr": 22.0}, "c": {"mse": 9.0, "psnr": 1.0}},
        "flow": {"b": {"mse": 1.0, "psnr": 25.0}, "a": {"mse": 1.0, "psnr": 21.0}},
    }
    summary = summarise(results)
    assert summary["guide"]["mse"] == bootstrap([2.0, 4.0]) and summary["flow"]["psnr"] == bootstrap([21.0, 25.0])
    relative = against(results, "guide")
    assert list(relative) == ["flow"]
    assert relative["flow"]["mse"].mean == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert relative["flow"]["psnr"].mean == pytest.approx((1 + 3) / 2)
    with pytest.raises(ConfigError, match="no method 'psu' to compare with; there are guide, flow"):
        against(results, "psu")
    assert summarise({}) == {} and summarise({"a": {"x": {"mse": 1.0}}, "b": {}}) == {"a": {}, "b": {}}


def test_plots_are_small_files_and_equal_ones_are_equal(tmp_path: Path) -> None:
    series = {"flow": [interval(3), interval(2), interval(1)], "other": [interval(4), interval(3), interval(3)]}
    for name in ("a.svg", "b.svg", "a.png"):
        curve(tmp_path / name, [1, 2, 4], series, x_label="NFE", y_label="swd", log_x=True, levels={"guide": 5.0})
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()[:1000]
    bars(tmp_path / "bars.png", {"flow": interval(3), "guide": interval(-4)}, x_label="red", line_at=0.0)
    for name in ("a.png", "bars.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 500 and (tmp_path / name).stat().st_size < 100_000
    with pytest.raises(ConfigError, match="The curve flow has 3 values for 2 places"):
        curve(tmp_path / "c.png", [1, 2], series, x_label="", y_label="")
    with pytest.raises(ImageError, match=r"c\.gif has \.gif, but plots are written as \.png or \.svg"):
        bars(tmp_path / "c.gif", {"flow": interval(3)}, x_label="")


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"A plot needs matplotlib .*: pip install matplotlib"):
        bars(tmp_path / "a.png", {"flow": interval(3)}, x_label="")


def test_contact_sheets_hold_every_image_pixel_for_pixel(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (60, 40), "#ff0000"), Image.new("RGB", (30, 50), "#0000ff")
    path = tmp_path / "sheet.png"
    contact_sheet(
        path,
        [
            [Panel(red, "reference", "a name too long for sixty pixels"), Panel(blue, "guide", "")],
            [Panel(blue, "", "")],
        ],
    )
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    assert (pixels == (255, 0, 0)).all(1).sum() == 2400 and (pixels == (0, 0, 255)).all(1).sum() == 3000
    with pytest.raises(ConfigError, match="at least one image"):
        contact_sheet(path, [[]])


def test_json_is_whole_or_not_there(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1]})
    with pytest.raises(FileError, match="cannot be written"):
        write_json(tmp_path / "a.json" / "b.json", {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1]} and len(list(tmp_path.iterdir())) == 1


# --- the command


def test_a_run_writes_figures_tables_and_plots(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], photos: Path, model: Model, codec: TinyVAE
) -> None:
    assert main(command) == 0
    out = tmp_path / "out"
    rows = results_of(out)["methods"]
    assert list(rows) == ["bicubic", "guide", "tiny, nfe 1", "tiny, nfe 2"]
    assert all(list(table) == ["a.png", "b.png", "c.png"] for table in rows.values())
    assert {p.name for p in out.glob("*.png")} == {"crops.png", "latent_mse.png", *(f"{name}.png" for name in FEW)}
    table = (out / "results.md").read_text()
    assert capsys.readouterr().out == table and "Means over 3 photographs" in table and "Against the guide" in table
    assert str(tmp_path) not in table + (out / "results.json").read_text()


def test_a_run_goes_on_where_it_stopped(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the second photograph, it keeps the first; the end is as if it had never stopped."""
    whole, command = tmp_path / "whole", [*command, "--metrics", "psnr"]
    assert main([*command, "--out", str(whole)]) == 0
    opened: list[str] = []
    real = comparison.prepare

    def stopping(path: Path, *rest: object) -> object:
        opened.append(path.name)
        if opened == ["a.png", "b.png"]:
            raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(comparison, "prepare", stopping)
    assert main(command) == 130
    assert list(results_of(tmp_path / "out")["methods"]["guide"]) == ["a.png"]
    assert main(command) == 0 and opened == ["a.png", "b.png", "b.png", "c.png"]
    assert (tmp_path / "out" / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert main([*command, "--nfe", "2", "3"]) == 0  # another method joins those that are there
    assert "tiny, nfe 3" in results_of(tmp_path / "out")["methods"]


def test_restored_images_are_methods_beside_the_plain_ones(photos: Path, tmp_path: Path) -> None:
    options = ["--nfe", "1", "4", "--metrics", "psnr", "colour", "--restore", "--device", "cpu", "--every", "2"]
    assert main(["run", "sd15-x2", "--photos", str(photos), *options, "--out", str(tmp_path)]) == 0
    found = results_of(tmp_path)["methods"]
    for nfe in (1, 4):
        plain, restored = found[f"sd15-x2, nfe {nfe}"], found[f"sd15-x2 restored, nfe {nfe}"]
        assert restored.keys() == plain.keys() == {"a.png", "c.png"}
        assert sum(restored[name]["psnr"] - plain[name]["psnr"] for name in plain) > 0
    one, four = (found[f"sd15-x2 restored, nfe {nfe}"] for nfe in (1, 4))
    for name in one:  # the colours are the small image's, whatever the flow made of them
        assert one[name]["colour"] == pytest.approx(four[name]["colour"], abs=0.1)
        plain = [found[f"sd15-x2, nfe {nfe}"][name]["colour"] for nfe in (1, 4)]
        assert abs(plain[0] - plain[1]) > 0.2
    assert "| sd15-x2 restored, nfe 4 |" in (tmp_path / "results.md").read_text()


def test_each_noise_step_is_a_method(photos: Path, tmp_path: Path) -> None:
    """With the bundled model each step has another result, and its own step that of the default."""
    options = [
        "--noise-step",
        "200",
        "400",
        "600",
        "--nfe",
        "1",
        "--metrics",
        "psnr",
        "--device",
        "cpu",
        "--every",
        "3",
    ]
    command = ["run", "sd15-x2", "--photos", str(photos), "--out", str(tmp_path)]
    assert main([*command, *options]) == 0
    assert main([*command, *options[4:]]) == 0  # joins those that are there
    found = {name: scores["a.png"]["psnr"] for name, scores in results_of(tmp_path)["methods"].items()}
    steps = [found[f"sd15-x2 from step {step}, nfe 1"] for step in (200, 400, 600)]
    assert len(set(steps)) == 3 and steps[1] == found["sd15-x2, nfe 1"]


def test_each_strength_is_a_method(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "--every", "3", "--nfe", "1", "--strength", "1", "0.4", "1.6"]) == 0
    assert main([*command, "--every", "3", "--nfe", "1"]) == 0  # joins those that are there
    found = {name: scores["a.png"]["psnr"] for name, scores in results_of(tmp_path / "out")["methods"].items()}
    strengths = [found[f"tiny of strength {strength}, nfe 1"] for strength in (1, 0.4, 1.6)]
    assert len(set(strengths)) == 3 and strengths[0] == found["tiny, nfe 1"]


def test_other_settings_do_not_mix(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    command = [*command, "--every", "2"]
    assert main(command) == 0
    assert list(results_of(tmp_path / "out")["methods"]["guide"]) == ["a.png", "c.png"]
    for options, words in (
        (["--seed", "5", "--solver", "heun"], "was made with solver 'euler', not 'heun', seed 0, not 5; take another"),
        (["--metrics", "psnr"], "was made with metrics ['psnr', 'swd', 'detail'], not ['psnr']; take another --out."),
    ):
        assert main([*command, *options]) == 2
        assert words in capsys.readouterr().err
    other = make_model()
    crisper = Model(replace(other.spec, strength=1.2), load_model(tmp_path / "tiny.safetensors").network)
    other.network.out[-1].weight.data += 0.1
    for changed in (other, crisper):
        save_model(changed, tmp_path / "tiny.safetensors", torch.float32)
        assert main(command) == 2
        assert "has figures of another model named tiny; rename one, or take another --out." in capsys.readouterr().err


def test_photographs_that_cannot_be_read_are_skipped_and_listed(
    command: list[str], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:200])
    Image.new("RGB", (20, 90)).save(photos / "small.png")
    assert main(command) == 0
    found = results_of(tmp_path / "out")
    assert list(found["methods"]["guide"]) == ["a.png", "c.png"] and list(found["skipped"]) == ["b.png", "small.png"]
    table = capsys.readouterr().out
    assert "Skipped:" in table and "damaged or cut short" in table and "is 20x90; 32 pixels a side are needed" in table


def test_damaged_results_are_refused(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "results.json"
    path.parent.mkdir()
    rows = {"settings": {}, "weights": {}, "skipped": {}, "sets": {}, "methods": {"a": {"b": {"c": "d"}}}}
    for text, words in (
        ('{"settings": ', "results.json is damaged (Expecting value"),
        ("[]", "results.json is no results file of FMBoost; move it away or take another --out."),
        (json.dumps(rows), "results.json has figures that are no numbers"),
    ):
        path.write_text(text)
        assert main(command) == 2
        assert words in capsys.readouterr().err and path.read_text() == text


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_frechet_distances_and_clip_join_a_run(
    command: list[str], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    save_tiny_clip(tmp_path / "clip")
    network = torch.jit.script(Moments())
    network.save(str(tmp_path / "moments.pt"))
    (photos / "a.txt").write_text("a photo of colours\n")
    extra = ["--inception", str(tmp_path / "moments.pt"), "--patches", "4", "--patch-size", "24"]
    command = [*command, *extra, "--clip", str(tmp_path / "clip")]
    assert main(command) == 0
    found = results_of(tmp_path / "out")
    assert all(set(figures) == {"fid", "p_fid"} for figures in found["sets"].values())
    assert found["sets"]["guide"]["fid"] > 0 and 0 < found["methods"]["guide"]["a.png"]["clip_iqa"] < 1
    assert "clip" in found["methods"]["guide"]["a.png"] and "clip" not in found["methods"]["guide"]["b.png"]
    assert "| p_fid |" in capsys.readouterr().out
    features = sorted((tmp_path / "out" / "features").glob("guide-*/*"))
    assert len(features) == 3
    features[1].unlink()
    assert main(command) == 0 and results_of(tmp_path / "out") == found
    features[0].write_bytes(b"cut")
    assert main(command) == 2
    assert "is damaged" in capsys.readouterr().err


def test_finished_images_are_compared_by_name(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, colours in (("near", 200), ("far", 8)):
        (tmp_path / method).mkdir()
        for path in photos.iterdir():
            Image.open(path).quantize(colours).convert("RGB").save(tmp_path / method / f"{path.stem}.bmp")
    (tmp_path / "far" / "b.bmp").unlink()
    Image.new("RGB", (64, 32)).save(tmp_path / "far" / "c.bmp")
    folders = [str(tmp_path / "near"), str(tmp_path / "far")]
    command = ["run", "--pictures", *folders, "--truth", str(photos), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    found = results_of(tmp_path / "out")
    assert found["methods"]["near"]["a"]["psnr"] > found["methods"]["far"]["a"]["psnr"]
    assert found["skipped"] == {
        "b": "far has no image named b; add one.",
        "c": "The image is 64x32 and its reference 64x64; only equal sizes compare.",
    }
    assert set(METRICS) - {"lpips"} == set(found["methods"]["near"]["a"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["{model}", "--photos", "{empty}"], "No photographs (.png"),
        (["{model}", "--photos", "{empty}/gone.png"], "There is no file or folder "),
        (["{model}", "--photos", "{photos}", "{again}"], "are both called a.png in the results"),
        (["{model}", "{model}", "--photos", "{photos}"], "Two models are called tiny"),
        (["{model}", "--photos", "{photos}", "--metrics", "psrn"], "There is no metric psrn; choose from psnr, ssim"),
        (["{model}", "--photos", "{photos}", "--every", "0"], "every must be a whole number above 0, but it is 0"),
        (["{model}", "--photos", "{photos}", "--nfe", "0"], "nfe"),
        (["{model}", "--photos", "{photos}", "--noise-step", "1000"], "The noise step must be a whole number from 0"),
        (["{model}", "--photos", "{photos}", "--inception", "{empty}/i.pt"], "i.pt does not exist; FID needs"),
        (["{model}", "--photos", "{photos}", "--clip", "openai/clip"], "openai/clip is no folder with a CLIP model"),
        (["{model}"], "Give models and --photos"),
        (["--photos", "{photos}"], "Give models and --photos"),
        (["{model}", "--pictures", "{photos}", "--truth", "{photos}"], "take --pictures and --truth; leave out the"),
        (["--pictures", "{empty}", "--truth", "{photos}"], "No photographs (.png"),
        (["--pictures", "{photos}", "--truth", "{empty}/gone"], "gone is no folder; name a folder of images"),
        (["--pictures", "{other}", "--truth", "{photos}"], "No image in"),
        (["--pictures", "{photos}", "{again}/../photos", "--truth", "{photos}"], "two are alike or truth; rename them"),
    ],
)
def test_bad_commands_are_refused(
    options: list[str], words: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "again", "other"):
        (tmp_path / name).mkdir()
    for path in ("again/a.png", "other/else.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / path)
    places = {name: str(tmp_path / name) for name in ("empty", "again", "other", "photos")}
    filled = [option.format(model=tmp_path / "tiny.safetensors", **places) for option in options]
    codec = ["--codec", str(tmp_path / "codec.safetensors"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["run", *filled, *codec]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_help_does_not_wait_for_pytorch_and_names_all_metrics() -> None:
    code = (
        "import sys\nfrom fmboost_core.evaluation.__main__ import main\n"
        "try: main(['run', '--help'])\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ", ".join(METRICS) in " ".join(done.stdout.split()) and "torch" not in done.stdout.splitlines()[-1].split()
