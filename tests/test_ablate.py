"""Ablations: one command trains, evaluates and writes a table; later runs continue, and tables share networks."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import TINY, make_model
from PIL import Image

from fmboost_core.codecs.load import save_codec
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.evaluation.__main__ import main
from fmboost_core.evaluation.paper import networks, timing
from fmboost_core.evaluation.paper.ablate import figures_folder
from fmboost_core.evaluation.paper.networks import recipe_for
from fmboost_core.evaluation.paper.sampler import Sampler
from fmboost_core.evaluation.paper.shared_codec import SharedCodec
from fmboost_core.evaluation.paper.studies import STUDIES
from fmboost_core.evaluation.paper.tables import TABLES, TRAININGS
from fmboost_core.evaluation.photographs import PreparedPhoto
from fmboost_core.files.checkpoint import save_model
from fmboost_core.imaging.resample import resize
from fmboost_core.model import Model
from fmboost_core.sampling.upscaler import boost
from fmboost_core.spec import ModelSpec
from fmboost_core.training.data.encode import ShardMaker
from fmboost_core.training.data.encoding import Encoding
from fmboost_core.training.data.photos import find_photos, plan_views


@pytest.fixture
def place(tmp_path: Path, codec: TinyVAE) -> Path:
    """Photographs, their shards and the codec, as the command wants them."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        coarse.resize((288, 272), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{i}.png")
    save_codec(codec, tmp_path / "codec.safetensors", license="MIT", trained_on="nothing")
    views = plan_views(find_photos([tmp_path / "photos"]), mirror=False)
    maker = ShardMaker(views, Encoding(2, ("latent",)), codec, tmp_path / "data" / "x2")
    maker.make(maker.shards)
    return tmp_path


def _run(place: Path, *names: str, samples: int = 16) -> int:
    parts = {"data": "data", "photos": "photos", "codec": "codec.safetensors", "work": "work", "out": "out"}
    options = [text for option, name in parts.items() for text in (f"--{option}", str(place / name))]
    return main(["ablate", *names, *options, "--samples", str(samples), "--size", "64"])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that train in a moment, and a table of noise steps with two of them."""
    small = ("network.base=8", "network.multipliers=[1,2]", "network.res_blocks=1", "data.batch=4")
    monkeypatch.setattr(networks, "COMMON", (*networks.COMMON, *small))
    monkeypatch.setitem(TABLES, "noise", replace(TABLES["noise"], rows=TABLES["noise"].rows[2:4]))


def test_a_table_is_trained_evaluated_and_written_and_then_kept(place: Path, tiny: None) -> None:
    assert _run(place, "upsampling") == 0
    work, out = place / "work", place / "out"
    paths = [work / f"{name}.safetensors" for name in ("noise-400", "bilinear", "nearest")]
    table = (out / "upsampling.md").read_text()
    assert all(f"| {row} |" in table for row in ("bicubic", "guide", "PSU", "bilinear", "nearest"))
    assert (out / "upsampling-psnr.png").is_file()
    figures = json.loads((out / "upsampling.json").read_text())
    assert figures["PSU"]["psnr"]["low"] <= figures["PSU"]["psnr"]["mean"] <= figures["PSU"]["psnr"]["high"]
    before = [path.stat().st_mtime_ns for path in paths]
    assert _run(place, "upsampling") == 0 and (out / "upsampling.md").read_text() == table
    assert [path.stat().st_mtime_ns for path in paths] == before
    # The table of noise steps has one of these networks too: it is not trained again.
    (place / "work" / "noise-400.training").unlink()
    assert _run(place, "noise") == 0 and paths[0].stat().st_mtime_ns == before[0]


def test_tables_that_share_figures_ask_the_same_of_them() -> None:
    """Cascades start from latents, degraded pictures are pictures: their figures must not meet in one file."""
    places = {name: figures_folder(table, Path("work")) for name, table in TABLES.items()}
    assert places["cascade"] != places["degraded-on-clean"] != places["degraded"]
    assert places["objectives"] == places["nfe"] == places["reflow"]


def test_every_recipe_of_the_tables_can_be_made_and_differs(tmp_path: Path) -> None:
    save_model(make_model(), tmp_path / "cfm.safetensors")
    recipes = {name: recipe_for(name, tmp_path) for name in TRAININGS}
    flat = {name: (TRAININGS[name].shards, str(recipe.flat())) for name, recipe in recipes.items()}
    assert {row.network for table in TABLES.values() for row in table.rows} == set(TRAININGS)
    alike = [(a, b) for a in flat for b in flat if a < b and flat[a] == flat[b]]
    assert not alike  # rows that cannot differ would compare nothing
    for table in TABLES.values():
        samples = {recipes[row.network].loop.samples for row in table.rows}
        assert len(samples) == 1 or "reflow" in {row.network for row in table.rows}


def photo_of(codec: TinyVAE, height: int, width: int, scale: int = 2) -> PreparedPhoto:
    """A photograph of random colours, of which samplers look at the small image and the size."""
    small = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    large = torch.zeros(1, 3, scale * height, scale * width)
    return PreparedPhoto(small, codec.encode(small), codec.encode(large), large)


def test_a_flow_is_sampled_as_by_boost(codec: TinyVAE) -> None:
    model = make_model()
    for nfe, solver, scale in ((1, "euler", 2), (4, "euler", 2), (4, "heun", 2), (2, "euler", 4)):
        photo = photo_of(codec, 32, 40, scale)
        ours = Sampler(model, nfe, solver)(photo, codec)
        theirs = boost(photo.low, model, codec, scale=scale, nfe=nfe, solver=solver, seed=0)
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert torch.equal(Sampler(model, nfe, solver)(photo, SharedCodec(codec)), ours)


def test_a_shared_codec_computes_each_tensor_once(codec: TinyVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, decode = [], codec.decode
    monkeypatch.setattr(codec, "decode", lambda latents: calls.append(latents) or decode(latents))
    shared, latents = SharedCodec(codec), torch.rand(2, 1, 4, 4, 4)
    first = shared.decode(latents[0])
    shared.decode(latents[0]).zero_()  # a caller may change what it gets
    assert torch.equal(shared.decode(latents[0].clone()), first) and torch.equal(first, decode(latents[0]))
    assert not torch.equal(shared.decode(latents[1]), first) and len(calls) == 2


@pytest.mark.parametrize(("objective", "nfe", "spent"), [("fm", 3, 3), ("dm", 3, 3), ("l1", 3, 1), ("l2", 3, 1)])
def test_baselines_are_sampled_by_their_objectives(objective: str, nfe: int, spent: int, codec: TinyVAE) -> None:
    spec, calls = ModelSpec(name="b", network=TINY, objective=objective, noise_step=999, alpha_bar=0.0), []
    sampler = Sampler(Model(spec, make_model().network), nfe)
    latent = sampler(photo_of(codec, 32, 32), codec, lambda: calls.append(1))
    assert len(calls) == spent and latent.shape == (1, 4, 8, 8) and bool(latent.isfinite().all())


def test_resized_latents_are_guides_too(codec: TinyVAE) -> None:
    """A network that predicts nothing leaves regression at its guide."""
    network, photo = make_model().network, photo_of(codec, 32, 32)
    for parameter in network.out.parameters():
        parameter.data.zero_()
    for guide in ("bilinear", "nearest"):
        spec = ModelSpec(name="b", network=TINY, objective="l2", noise_step=0, alpha_bar=1.0, guide=guide)
        latent = Sampler(Model(spec, network), 1)(photo, codec)
        assert torch.allclose(latent, resize(photo.low, (8, 8), guide), atol=1e-6)


def test_help_names_every_ablation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ablate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ", ".join([*TABLES, *STUDIES]) in said.replace("- ", "-")


def test_impossible_ablations_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(place, "colours") == 2 and "no ablation colours" in capsys.readouterr().err
    assert _run(place, "degraded") == 2 and "x4" in capsys.readouterr().err
    assert _run(place, "trajectory") == 2 and "objectives" in capsys.readouterr().err
    (place / "photos" / "0.png").unlink()
    (place / "photos" / "1.png").unlink()
    assert _run(place, "upsampling") == 2 and "No photographs" in capsys.readouterr().err


def test_whole_images_are_timed_by_their_parts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {
        timing.LARGE: 100.0, timing.HALF: 10.0, timing.GUIDE: 5.0, timing.EVALUATION: 2.0, timing.DIRECT: 3.0,
        timing.DECODING: 7.0,
    }  # fmt: skip
    assert list(timing.whole_ways(seconds).values()) == [5007.0, 507.0 + 2500.0, 514.0, 510.0]
    seen: list[torch.Size] = []
    monkeypatch.setattr(timing, "SIZES", (64, 128))
    monkeypatch.setattr(timing, "_diffusion_network", lambda: lambda latent, *_: seen.append(latent.shape))
    assert _run(place, "timing") == 0
    text = (place / "out" / "timing.md").read_text()
    assert all(text.count(f"| {part} |") == 1 for part in seconds), text
    bases = [line for line in text.splitlines() if line.startswith((f"| {timing.EVALUATION}", "| all steps"))]
    assert [line.count("(1) |") for line in bases] == [2, 2]  # the ratio of a base to itself, at both sizes
    assert (place / "out" / "timing.png").is_file()
    sides = sorted({shape[-1] for shape in seen})
    assert sides == [4, 8, 16], sides  # of latents: half the size, the size


def test_the_study_of_time_without_diffusers(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert _run(place, "timing") != 0 and "needs diffusers" in capsys.readouterr().err
