"""Training: it learns, it resumes exactly, its data are what they claim, bad input is a sentence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TINY, make_model
from PIL import Image

from fmboost_core import load_model
from fmboost_core.checkpoint import Model
from fmboost_core.codec import TinyVAE, save_codec
from fmboost_core.errors import CheckpointError, ConfigError
from fmboost_core.schedule import alpha_bar
from fmboost_core.training.__main__ import main, start_from
from fmboost_core.training.data import CropSampler, LatentCrops, PhotoCrops, load_shards
from fmboost_core.training.encode import encode_shards, find_photos, load_view, plan_views
from fmboost_core.training.loop import TrainConfig, Trainer
from fmboost_core.training.objective import Velocity, cfm_loss, draw_times, straight_loss, straight_times
from fmboost_core.unet import LatentUNet


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(((80, 64), (100, 70), (64, 64))):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def shards(photos: Path, codec: TinyVAE, tmp_path: Path) -> Path:
    list(encode_shards(plan_views(find_photos([photos])), codec, 2, tmp_path / "latents"))
    return tmp_path / "latents"


def test_shards_hold_latents_of_their_photographs(shards: Path, codec: TinyVAE) -> None:
    data = load_shards(shards)
    assert data.scale == 2 and len(data.views) == 6
    assert {v.guide for v in data.views} == {"latent", "image"} and sum(v.flip for v in data.views) == 3
    for view, (high, guide) in zip(data.views, data.pairs, strict=True):
        image = load_view(view, 16)
        assert torch.allclose(codec.encode(image)[0], high.float(), atol=2e-3)
        assert guide.shape == high.shape == (4, image.shape[-2] // 8, image.shape[-1] // 8)


def test_encoding_goes_on_where_it_stopped(shards: Path, photos: Path, codec: TinyVAE) -> None:
    shard = next(shards.glob("*.safetensors"))
    before = shard.stat().st_mtime_ns
    encoded: list[int] = []
    views = plan_views(find_photos([photos]))
    list(encode_shards(views, codec, 2, shards, progress=lambda done, total: encoded.append(done)))
    assert not encoded and shard.stat().st_mtime_ns == before


def test_photo_crops_are_aligned_with_their_latents(shards: Path, codec: TinyVAE) -> None:
    """A 1x1 crop's photograph is the 8x8 pixels of its latent: the crops of a mirrored view are mirrored too."""
    crops = PhotoCrops(load_shards(shards), 8)
    photos, latents = crops.draw(16, torch.Generator().manual_seed(0))
    assert photos.shape == (16, 3, 64, 64) and latents.shape == (16, 4, 8, 8)
    inner = codec.encode(photos)[..., 3:5, 3:5]
    error = (inner - latents[..., 3:5, 3:5]).square().mean()
    shuffled = (inner - latents.roll(1, 0)[..., 3:5, 3:5]).square().mean()
    assert error < shuffled / 4


def test_crops_come_from_all_views_equally_whatever_their_size() -> None:
    sampler = CropSampler([(4, 4), (8, 4), (3, 9)], 4)
    drawn = sampler.draw(6000, torch.Generator().manual_seed(0))
    assert {i for i, _, _ in drawn} == {0, 1}
    assert sum(i == 0 for i, _, _ in drawn) / 6000 == pytest.approx(1 / 2, abs=0.02)
    tops = [top for i, top, _ in drawn if i == 1]
    assert all(tops.count(top) / len(tops) == pytest.approx(1 / 5, abs=0.03) for top in range(5))
    with pytest.raises(ConfigError, match="smaller crop"):
        CropSampler([(4, 4)], 5)


def test_groups_are_drawn_by_their_shares() -> None:
    sampler = CropSampler([(4, 4), (8, 4), (3, 9), (5, 5)], 4, ["a", "b", "b", "b"])
    sampler.set_shares({"a": 4, "b": 1})  # b's smallest view does not fit and takes nothing from the others
    drawn = [i for i, _, _ in sampler.draw(6000, torch.Generator().manual_seed(0))]
    assert [drawn.count(i) / 6000 for i in range(4)] == pytest.approx([0.8, 0.1, 0, 0.1], abs=0.02)
    sampler.set_shares({"b": 1})
    assert {i for i, _, _ in sampler.draw(100, torch.Generator().manual_seed(0))} == {1, 3}
    for bad in ({"a": -1, "b": 1}, {"a": 0, "b": 0}, {"a": float("nan")}, {}):
        with pytest.raises(ConfigError, match="Shares"):
            sampler.set_shares(bad)


def test_a_crop_knows_what_its_guide_was_made_from(photos: Path, shards: Path, codec: TinyVAE, tmp_path: Path) -> None:
    """Another codec's guides are a group of their own, beside the first codec's latents of the photographs."""
    views = plan_views(find_photos([photos]), codec="other")
    list(encode_shards(views, codec, 2, tmp_path / "other", _ZeroCodec()))
    data = load_shards(shards, tmp_path / "other")
    assert {v.group for v in data.views} == {"latent", "image", "latent:other", "image:other"}
    high, guide, kind = LatentCrops(data, 8, {"image": 1}).draw(8, torch.Generator().manual_seed(0))
    assert (kind == 1).all() and guide.any()
    high, guide, kind = LatentCrops(data, 8, {"latent:other": 1}).draw(8, torch.Generator().manual_seed(0))
    assert (kind == 0).all() and not guide.any() and high.any()
    assert set(LatentCrops(data, 8, {}).draw(64, torch.Generator().manual_seed(0))[2].tolist()) == {0, 1}
    with pytest.raises(ConfigError, match="No view is of pictures; there are image, image:other, latent"):
        LatentCrops(data, 8, {"pictures": 1})


class _ZeroCodec:
    """A codec whose every latent is zero."""

    channels, factor = 4, 8

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(images.shape[0], 4, images.shape[-2] // 8, images.shape[-1] // 8)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(latents.shape[0], 3, 8 * latents.shape[-2], 8 * latents.shape[-1])


def test_times_are_uniform_but_for_a_share_at_the_start() -> None:
    times = draw_times(4000, 0.1, torch.Generator().manual_seed(0))
    inside = times[times > 0]
    assert len(inside) / 4000 == pytest.approx(0.9, abs=0.02)
    assert inside.mean() == pytest.approx(0.5, abs=0.02) and inside.var() == pytest.approx(1 / 12, abs=0.01)
    assert times.max() < 1 and (draw_times(100, 0, torch.Generator().manual_seed(0)) > 0).all()


def test_straightening_keeps_the_start_and_makes_the_rest_a_line() -> None:
    """A teacher in circles: dx/dt = i k x on pairs of channels, whose small Euler steps are known."""
    generator = torch.Generator().manual_seed(0)
    high, guide, noise = torch.randn(3, 60, 4, 2, 2, generator=generator)
    t, signal = straight_times(60, generator), alpha_bar(400)

    def turn(x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.cat([-x[:, 2:], x[:, :2]], dim=1)

    start = signal**0.5 * guide + (1 - signal) ** 0.5 * noise
    corner = start + turn(start) / 4
    end = corner
    for _ in range(6):
        end = end + turn(end) / 8
    share = ((t - 0.25) / 0.75).view(-1, 1, 1, 1)
    first = (t == 0).view(-1, 1, 1, 1)

    def truth(x: torch.Tensor, t: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        assert torch.allclose(x, torch.where(first, start, corner + share * (end - corner)), atol=1e-5)
        return torch.where(first, high - start, (end - corner) / 0.75)

    def teacher(x: torch.Tensor, t: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        return turn(x)

    assert straight_loss(truth, teacher, high, guide, signal, noise, t) < 1e-10
    assert straight_loss(lambda x, t, g: turn(x), teacher, high, guide, signal, noise, t) > 0.1


def test_straight_times_are_of_three_kinds() -> None:
    times = straight_times(6000, torch.Generator().manual_seed(0))
    fourths = sum((times == k / 4).sum() for k in (1, 2, 3))
    assert (times == 0).sum() / 6000 == pytest.approx(1 / 3, abs=0.03) and fourths / 6000 == pytest.approx(
        1 / 3, abs=0.03
    )
    assert times[times > 0].min() >= 0.25 and times.max() < 1


def test_a_training_starts_from_a_trained_model_that_was_not_told_the_kind() -> None:
    old = make_model()
    network = LatentUNet(replace(TINY, classes=2))
    start_from(network, old)
    x, guide, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([0.0, 0.7])
    assert torch.equal(network(x, t, guide, torch.tensor([0, 1])), old.network(x, t, guide))
    start_from(LatentUNet(network.config), Model(replace(old.spec, network=network.config), network))
    with pytest.raises(CheckpointError, match="does not fit"):
        start_from(LatentUNet(replace(TINY, base=16)), old)


def test_cfm_loss_is_zero_for_the_true_velocity_and_known_for_none() -> None:
    generator = torch.Generator().manual_seed(0)
    high, guide, noise = torch.randn(3, 8, 4, 6, 6, generator=generator)
    t, signal = torch.rand(8, generator=generator), alpha_bar(400)
    start = signal**0.5 * guide + (1 - signal) ** 0.5 * noise

    def truth(x: torch.Tensor, t: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        assert torch.allclose(x, (1 - t.view(-1, 1, 1, 1)) * start + t.view(-1, 1, 1, 1) * high, atol=1e-5)
        return high - start

    assert cfm_loss(truth, high, guide, signal, noise, t) < 1e-10
    nothing = cfm_loss(lambda x, t, g: torch.zeros_like(x), high, guide, signal, noise, t)
    assert nothing == pytest.approx(2, abs=0.3)  # the variance of the difference of two independent unit normals


def test_the_loop_learns_the_gaussian_velocity() -> None:
    """x0 ~ N(0,1), x1 = x0 + 1: the straight path's velocity is 1 everywhere."""

    def loss(network: Velocity, batch: int, generator: torch.Generator) -> torch.Tensor:
        start = torch.randn(batch, 4, 4, 4, generator=generator)
        return cfm_loss(network, start + 1, start, 1.0, start, torch.rand(batch, generator=generator))

    torch.manual_seed(0)
    trainer = Trainer(LatentUNet(TINY), loss, TrainConfig(samples=16 * 150, warmup=10, bf16=False))
    losses = [trainer.train_step() for _ in range(trainer.config.steps)]
    assert losses[0] == pytest.approx(1) and sum(losses[-10:]) / 10 < 0.02
    x = torch.randn(1, 4, 4, 4)
    assert trainer.average(x, torch.tensor([0.3]), x).mean() == pytest.approx(1, abs=0.1)


def _trainer(shards: Path, **config: object) -> Trainer:
    crops = LatentCrops(load_shards(shards), 4, {})

    def loss(network: Velocity, batch: int, generator: torch.Generator) -> torch.Tensor:
        high, guide, _ = crops.draw(batch, generator)
        noise = torch.randn(high.shape, generator=generator)
        return cfm_loss(network, high, guide, alpha_bar(400), noise, torch.rand(batch, generator=generator))

    torch.manual_seed(0)
    return Trainer(LatentUNet(TINY), loss, TrainConfig(**{"samples": 48, "batch": 4, "warmup": 2, **config}))


def test_killed_and_resumed_equals_uninterrupted(shards: Path, tmp_path: Path) -> None:
    whole = _trainer(shards)
    list(whole.run(tmp_path / "whole"))
    first = _trainer(shards)
    for step, _ in first.run(tmp_path / "cut"):
        if step == 4:
            break
    second = _trainer(shards)
    second.network.out[2].bias.data += 1  # whatever a fresh start has must not matter
    second.resume(tmp_path / "cut")
    assert second.step == 5
    list(second.run(tmp_path / "cut"))
    for a, b in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resuming_with_other_settings_is_refused_by_name(shards: Path, tmp_path: Path) -> None:
    list(_trainer(shards).run(tmp_path / "state"))
    with pytest.raises(CheckpointError, match=r"rate was 0\.001, is 0\.5"):
        _trainer(shards, rate=0.5).resume(tmp_path / "state")
    longer = _trainer(shards, samples=56)
    longer.resume(tmp_path / "state")
    assert longer.step == 12 and longer.config.steps == 14
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        _trainer(shards).resume(tmp_path / "state")


def test_the_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(samples=1600, batch=16, rate=1.0, warmup=10, decay=0.3)
    rates = [config.rate_at(step) for step in range(config.steps)]
    assert rates[0] == pytest.approx(0.1) and rates[9:70] == [1.0] * 61
    assert rates[85] == pytest.approx(0.5) and rates[-1] == pytest.approx(1 / 30)
    for bad in ({"samples": 0}, {"samples": 1, "batch": 0}, {"samples": 1, "ema": 2}, {"samples": 1, "rate": -1}):
        with pytest.raises(ConfigError):
            TrainConfig(**bad)


def test_bad_shards_are_a_sentence(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no shards"):
        load_shards(tmp_path / "nowhere")
    shard = next(shards.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(ConfigError, match="encode again"):
        load_shards(shards)


def test_two_commands_from_photographs_to_a_model(photos: Path, codec: TinyVAE, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """As the README says it, on very little of everything."""
    save_codec(codec, tmp_path / "codec.safetensors", license="MIT", trained_on="nothing")
    latents, out = tmp_path / "latents", tmp_path / "mine.safetensors"
    monkeypatch.setattr("fmboost_core.training.__main__.PRESETS", {"lite": TINY})

    def run(*argv: object) -> int:
        monkeypatch.setattr("sys.argv", ["training", *map(str, argv)])
        return main()

    assert run("encode", photos, "--codec", tmp_path / "codec.safetensors", "--out", latents) == 0
    assert run("train", latents, out, "--samples", 8, "--batch", 4, "--crop", 8, "--fp32", "--share", "image=1") == 0
    model = load_model(out)
    assert model.spec.name == "mine" and model.spec.scale == 2 and model.spec.noise_step == 400
    straight = ("--straighten", "--samples", 8, "--batch", 4, "--crop", 8, "--fp32")
    assert run("train", latents, tmp_path / "straight.safetensors", *straight) == 2
    assert run("train", latents, tmp_path / "straight.safetensors", "--init", out, *straight) == 0
    assert run("encode", tmp_path / "none", "--codec", tmp_path / "codec.safetensors", "--out", latents) == 2
