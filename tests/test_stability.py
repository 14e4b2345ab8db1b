"""Stability: spectra of patterns, and the command on real files."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.evaluation.__main__ import main
from fmboost_core.evaluation.stability import TYPES, CascadeTest, computes, fine_power, peak, run_cascades, spectrum_of
from fmboost_core.files.checkpoint import save_model
from fmboost_core.metrics.texture import colour
from fmboost_core.model import Model
from fmboost_core.sampling.schedule import seeded_noise
from fmboost_core.sampling.target import Target
from fmboost_core.sampling.upscaler import Upscaler
from fmboost_core.training.data.encode import NOISE, SCALED, SHIFTED, disturbed


def test_a_disturbance_is_of_the_size_it_says_and_seeded() -> None:
    latent = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    one = disturbed(latent, 3)
    assert torch.equal(one, disturbed(latent, 3)) and not torch.equal(one, disturbed(latent, 4))
    change = one - latent
    assert change.mean((0, 2, 3)).abs().max() < SHIFTED + 0.01
    assert change.std((0, 2, 3)).min() > 0.9 * NOISE and change.std((0, 2, 3)).max() < NOISE + SCALED


def test_a_faint_grid_is_a_peak_and_a_photographs_falling_spectrum_is_none() -> None:
    generator = torch.Generator().manual_seed(0)
    frequency = torch.fft.fftfreq(256)
    radius = torch.hypot(frequency[:, None], frequency[None]).clamp(min=1 / 256)
    noise = torch.fft.fft2(torch.randn(256, 256, generator=generator))
    smooth = torch.fft.ifft2(noise / radius**1.5).real
    image = (smooth / smooth.std() / 4).expand(1, 3, 256, 256)
    grid = 0.02 * torch.cos(torch.arange(256) * 2 * torch.pi / 4)
    assert peak(spectrum_of(image)) < 3
    assert peak(spectrum_of(image + grid)) > 6


def test_fine_power_is_what_is_above_a_quarter_of_a_cycle_in_decibels() -> None:
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(128) * 2 * torch.pi / 16
    power = fine_power(image)
    assert fine_power(2 * image) == pytest.approx(power + 20 * math.log10(2), abs=1e-3)
    assert fine_power(image + 5 * torch.cos(rows)) == pytest.approx(power, abs=0.05)  # 1/16 of a cycle


def test_stability_prints_each_type_and_stage(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, types = tmp_path / "out", [kind for kind in TYPES if computes(TYPES[kind])]
    assert {"fp32", "bf16"} <= set(types)
    options = ["--size", "64", "--stages", "3", "--limit", "2", "--out", str(out), "--disturb", "--types", *types]
    assert main(["stability", *places, *options]) == 0
    table = (out / "stability.md").read_text()
    assert all(f"| {kind}, {2**stage}x |" in table for kind in (*types, "PSU alone") for stage in (1, 2, 3))
    assert "disturbed encodings of 2 photographs" in table and table in capsys.readouterr().out
    assert (out / "spectrum.png").stat().st_size > 1000


def test_each_stage_is_what_boost_makes(model: Model, places: list[str], tmp_path: Path) -> None:
    """Beyond the flow's last state, where the model has a strength."""
    tables = {}
    for strength in (1.0, 1.5):
        own = Model(replace(model.spec, strength=strength), model.network)
        save_model(own, Path(places[0]), torch.float32)
        out = tmp_path / str(strength)
        assert main(["stability", *places, "--size", "64", "--stages", "1", "--limit", "1", "--out", str(out)]) == 0
        tables[strength] = {line[:9]: line for line in (out / "stability.md").read_text().splitlines()}
    assert tables[1.0]["| fp32, 2"] != tables[1.5]["| fp32, 2"] and tables[1.0]["| PSU alo"] == tables[1.5]["| PSU alo"]


def test_behind_an_upscale_model_its_images_are_measured(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tables = []
    for number, more in enumerate(([], ["--upscale-model", "builtin"])):
        options = [
            "--size",
            "64",
            "--stages",
            "2",
            "--limit",
            "1",
            "--types",
            "fp32",
            "--out",
            str(tmp_path / f"{number}"),
        ]
        assert main(["stability", *places, *options, *more]) == 0
        tables.append((tmp_path / f"{number}" / "stability.md").read_text().replace("*", "").splitlines())
    alone, behind = ({line.split(" | ")[0]: line for line in table} for table in tables)
    assert tables[1][0].endswith("behind fmboost-image-x2, 2 scales") and "behind" not in tables[0][0]
    for stage in ("2x", "4x"):
        assert alone[f"| fp32, {stage}"] != behind[f"| fp32, {stage}"]
        assert alone[f"| PSU alone, {stage}"] == behind[f"| PSU alone, {stage}"]


def test_types_that_this_torch_cannot_compute_in_are_refused(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TYPES, "fp16", torch.bool)  # which no torch multiplies matrices in
    assert main(["stability", *places, "--types", "fp32", "fp16", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: types must be those that torch")
    assert main(["stability", *places, "--types", "fp8", "--out", str(tmp_path / "out")]) == 2
    assert "types must be fp32, fp16, bf16, but it is 'fp8'" in capsys.readouterr().err


@pytest.mark.skipif(not computes(torch.float16), reason="this torch has no half precision on a CPU")
def test_a_broken_cascade_is_a_figure_and_no_error(
    model: Model, places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with torch.no_grad():
        model.network.out[2].bias += 1e6  # more than half precision holds
    save_model(model, tmp_path / "tiny.safetensors", torch.float32)
    options = ["--size", "64", "--types", "fp16", "--limit", "1", "--out", str(tmp_path / "out")]
    assert main(["stability", *places, *options]) == 0
    assert "broken" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["latents", "floor", "stability"])
def test_no_photographs_and_impossible_numbers_are_refused(
    command: str, places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ["--out", str(tmp_path / "out")] if command == "stability" else []
    assert main([command, *places, *more, "--limit", "0"]) == 2
    assert "limit must be a whole number above 0" in capsys.readouterr().err
    if command == "stability":
        assert main([command, *places, *more, "--size", "16"]) == 2
        assert "size must be at least 64" in capsys.readouterr().err
    for photo in (tmp_path / "photos").iterdir():
        photo.unlink()
    assert main([command, *places, *more]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_cascade_that_breaks_counts_as_broken_in_all_later_stages(
    model: Model, places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a photograph that breaks stays in the table, beside one that does not."""
    starts: list[int] = []

    def velocity(self: Model, x: torch.Tensor, t: float, *conditioning: object) -> torch.Tensor:
        if t == 0:
            starts.append(x.shape[-1])
        # The first photograph comes to 4x twice: in two stages and in three.
        second_photograph_at_4x = x.shape[-1] == 32 and starts.count(32) == 3
        return x * math.nan if second_photograph_at_4x else x * 0

    monkeypatch.setattr(Model, "velocity", velocity)
    out = tmp_path / "out"
    options = ["--size", "64", "--types", "fp32", "--limit", "2", "--out", str(out)]
    assert main(["stability", *places, *options]) == 0
    rows = {line.split(" | ")[0]: line for line in (out / "stability.md").read_text().splitlines()}
    assert "0.000" in rows["| fp32, 2x"] and "0.500" in rows["| fp32, 4x"] and "0.500" in rows["| fp32, 8x"]


def test_what_is_measured_behind_an_upscale_model_is_the_image_that_hosts_show(
    model: Model, codec: TinyVAE, places: list[str], tmp_path: Path
) -> None:
    def twice(image: torch.Tensor) -> torch.Tensor:
        return (image.repeat_interleave(2, -1).repeat_interleave(2, -2) + 0.1).clamp(0, 1)

    photo = tmp_path / "photos" / "a.png"
    test = CascadeTest(stages=2, size=64)
    found = run_cascades({"fp32": model}, codec, {"a": photo}, test, lambda *_: None, twice)
    low = test.first_latent(photo, 0, codec)
    first = codec.decode(low).clamp(-1, 1)
    for scale in (2, 4):
        upscaler = Upscaler(model, codec, upscale_model=twice)
        _, image = upscaler.latent_and_image(low, Target(scale=scale), seeded_noise(0, 1))
        shift = colour(image.mean((2, 3), keepdim=True), first.mean((2, 3), keepdim=True))
        assert found.figures[f"fp32, {scale}x"]["a"]["colour"] == pytest.approx(shift, rel=1e-4)
