"""Fast guides: the guide network, its files, its training, and upscaling without a codec."""

import json
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from networks import TINY, make_model, randomised
from PIL import Image

from fmboost_core import boost, load_model, upscale_image
from fmboost_core.cli import main
from fmboost_core.codecs.load import load_codec, save_codec
from fmboost_core.codecs.tiny import TinyVAE, taesd
from fmboost_core.errors import CheckpointError, ConfigError, LatentError
from fmboost_core.files.checkpoint import describe, save_model
from fmboost_core.files.guide_file import load_guide, save_guide
from fmboost_core.files.weight_file import save_weights
from fmboost_core.imaging.resample import cover, resize
from fmboost_core.model import Model
from fmboost_core.networks import GuideConfig
from fmboost_core.networks.guide import GuideNetwork
from fmboost_core.sampling.fast_guide import fast_guide
from fmboost_core.sampling.guide import LatentUpsampling
from fmboost_core.sampling.schedule import seeded_noise
from fmboost_core.sampling.target import Target
from fmboost_core.sampling.upscaler import Upscaler
from fmboost_core.tiles import Tileable
from fmboost_core.training.data.crops import LatentCrops
from fmboost_core.training.data.encode import ShardMaker
from fmboost_core.training.data.encoding import Encoding
from fmboost_core.training.data.latents import LatentSet, load_shards
from fmboost_core.training.data.photos import find_photos, plan_views
from fmboost_core.training.guide import GuidedFlow, make_guide_trainer, new_guide
from fmboost_core.training.recipe import Recipe, load_recipe
from fmboost_core.training.train import finished, make_trainer

SMALL = GuideConfig(width=8, blocks=1)
SIZES = ((40, 52), (30, 41), (80, 104), (20, 26), (97, 33))  # from latents of 20x26


@pytest.fixture
def guide() -> GuideNetwork:
    network = randomised(GuideNetwork(SMALL), std=0.12)
    assert isinstance(network, GuideNetwork)
    return network


@pytest.fixture
def fast(guide: GuideNetwork) -> Model:
    """A model with a fast guide, of a single evaluation unless told."""
    plain = make_model()
    return Model(replace(plain.spec, guide="fast", fast=SMALL, nfe=1), plain.network, guide)


@pytest.fixture
def latent() -> torch.Tensor:
    return torch.randn(2, 4, 20, 26, generator=torch.Generator().manual_seed(1))


# --- the network


def test_its_cost_is_that_of_the_documents() -> None:
    """1.2M parameters, and at most 30 GFLOP from 64x64 to 128x128."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network, small = GuideNetwork(GuideConfig(16)), torch.empty(1, 16, 64, 64)
    assert 1.1e6 < sum(p.numel() for p in network.parameters()) < 1.2e6
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.encoder(network.decoder(small))
    assert 25e9 < counter.get_total_flops() < 30e9


@pytest.mark.parametrize("tile", [8, 16, 24, 33])
@pytest.mark.parametrize("size", SIZES)
def test_tiles_of_a_guide_equal_the_whole(
    guide: GuideNetwork, latent: torch.Tensor, size: tuple[int, int], tile: int
) -> None:
    whole = fast_guide(guide, latent, size)
    assert torch.allclose(whole, guide(latent, size), atol=1e-4)  # its places are in single precision
    assert torch.allclose(fast_guide(guide, latent, size, tile), whole, atol=1e-5)


@pytest.mark.parametrize("tile", [None, 16])
def test_a_tileable_guide_moves_with_its_latent(guide: GuideNetwork, latent: torch.Tensor, tile: int | None) -> None:
    axes = Tileable(True, True)
    made, moved = (fast_guide(guide, x, (40, 52), tile, axes) for x in (latent, latent.roll((5, 7), (2, 3))))
    assert torch.allclose(moved, made.roll((10, 14), (2, 3)), atol=1e-5)
    assert not torch.allclose(fast_guide(guide, latent, (40, 52), tile), made, atol=1e-2)  # at the ends
    row, turned = (fast_guide(guide, x, (40, 52), tile, Tileable(x=True)) for x in (latent, latent.roll(3, 3)))
    assert torch.allclose(turned, row.roll(6, 3), atol=1e-5)


def test_the_radii_are_what_is_reached(guide: GuideNetwork) -> None:
    """A change of one latent reaches as far as the configuration says: tiles need no more and no less."""
    before = torch.zeros(1, 4, 1, 61)
    after = before.index_fill(3, torch.tensor([30]), 1.0)
    made = [guide(x, (2, 122)) for x in (before, after)]
    changed = (made[1] - made[0]).abs().amax((0, 1, 2)).nonzero()
    reach = 2 * SMALL.coarse_radius + SMALL.fine_radius
    first, last = int(changed.min()), int(changed.max())
    assert 60 - reach - 1 <= first <= 60 - reach + 3
    assert 61 + reach - 3 <= last <= 61 + reach + 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1)])
def test_the_smallest_latents_have_guides(guide: GuideNetwork, shape: tuple[int, int]) -> None:
    small, size = torch.ones(1, 4, *shape), (3 * shape[0], 3 * shape[1])
    for axes in (Tileable(), Tileable(True, True)):
        assert fast_guide(guide, small, size, None, axes).isfinite().all()
        assert torch.allclose(
            fast_guide(guide, small, size, 2, axes), fast_guide(guide, small, size, None, axes), atol=1e-5
        )


def test_a_batch_of_guides_equals_its_singles(guide: GuideNetwork, latent: torch.Tensor) -> None:
    both = fast_guide(guide, latent, (40, 52))
    assert torch.allclose(both, torch.cat([fast_guide(guide, x, (40, 52)) for x in latent.split(1)]), atol=1e-5)
    assert fast_guide(guide, latent.half(), (40, 52)).dtype == torch.float16


@pytest.mark.parametrize("name", ["sd15-x2-direct", "sdxl-x2-direct", "flux1-x2-direct", "sd3-x2-direct"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
def test_a_bundled_guide_network_is_exact_enough_in_half_precision(name: str, dtype: torch.dtype, most: float) -> None:
    """It has no norm that would keep its activations small."""
    half, whole = load_model(name).to(dtype=dtype).guide, load_model(name).guide
    assert half is not None and whole is not None
    small = 3 * torch.randn(1, whole.config.channels, 12, 12)
    exact, made = whole(small, (24, 24)), half(small.to(dtype), (24, 24)).float()
    assert (made - exact).square().mean().sqrt() < most * exact.square().mean().sqrt()


def test_a_guide_of_another_aspect_is_cropped(guide: GuideNetwork, latent: torch.Tensor) -> None:
    upsampling = LatentUpsampling("fast", 8, guide)
    made = upsampling(latent, (160, 208), (320, 320), distort=False)
    assert torch.allclose(made, fast_guide(guide, latent, (40, 52))[..., 6:46], atol=1e-5)
    assert upsampling.kind == "latent"
    assert LatentUpsampling("bilinear", 8).kind == "resized"


@pytest.mark.parametrize("method", ["fast", "bilinear", "nearest"])
def test_a_guide_is_cropped_where_images_are(guide: GuideNetwork, method: str) -> None:
    """264 of 512 pixels: the crop begins within a latent, as it does in pixels."""
    if method != "fast":
        ramp = torch.arange(32.0).expand(1, 4, 16, 32)  # each latent's value is its place
        made = LatentUpsampling(method, 8)(ramp, (128, 256), (256, 264), distort=False)
        place = (torch.arange(33) + 0.5 + (512 - 264) / 2 / 8) / 2 - 0.5
        assert torch.allclose(made[0, 0, 0], place if method == "bilinear" else (place + 0.5).floor(), atol=1e-5)
        return
    latent = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(1))
    made = LatentUpsampling("fast", 8, guide)(latent, (128, 256), (256, 264), distort=False)
    turned = LatentUpsampling("fast", 8, guide)(latent.flip(3), (128, 256), (256, 264), distort=False)
    mirrored = deepcopy(guide)
    for module in mirrored.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.flip(3)
    again = LatentUpsampling("fast", 8, mirrored)(latent.flip(3), (128, 256), (256, 264), distort=False)
    assert torch.allclose(again.flip(3), made, atol=1e-5)  # it lies in the middle
    assert not torch.allclose(turned.flip(3), made, atol=1e-2)


@pytest.mark.parametrize("method", ["fast", "bilinear", "nearest"])
@pytest.mark.parametrize("side", [121, 124, 125, 128])
def test_a_latent_that_an_image_does_not_fill_is_enlarged_by_the_images_factor(
    guide: GuideNetwork, method: str, side: int
) -> None:
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    made = LatentUpsampling(method, 8, guide)(latent, (side, side), (2 * side, 2 * side))
    whole = fast_guide(guide, latent, (32, 32)) if method == "fast" else resize(latent, (32, 32), method)
    length = -(-2 * side // 8)
    assert torch.allclose(made, whole[..., :length, :length], atol=1e-4)


def test_stages_of_a_cropped_image_are_restored_by_what_was_cropped() -> None:
    """The small image that is put back is the one that came in, in every stage."""
    image = torch.linspace(-1, 1, 48).expand(1, 3, 48, 48) * torch.linspace(0.2, 1, 48)[:, None]
    model, codec = load_model("sd15-x2-direct"), load_codec("builtin")
    large = upscale_image(image, model, codec, size=(192, 108))  # 4x in two stages
    meant, squashed = cover(image, (108, 192)), resize(image, (108, 192))
    assert (large - meant).square().mean() < 0.2 * (large - squashed).square().mean()


# --- files


def test_a_guide_network_comes_back_from_its_file(guide: GuideNetwork, latent: torch.Tensor, tmp_path: Path) -> None:
    save_guide(guide, tmp_path / "g.safetensors")
    again = load_guide(tmp_path / "g.safetensors")
    assert again.config == SMALL
    assert torch.allclose(again(latent, (40, 52)), guide(latent, (40, 52)), atol=0.02)


def test_other_files_are_no_guide_networks(guide: GuideNetwork, codec: TinyVAE, tmp_path: Path) -> None:
    save_codec(codec, tmp_path / "c.safetensors", license="MIT", trained_on="nothing")
    with pytest.raises(CheckpointError, match=r"is no guide network; `fmboost train-guide` makes one"):
        load_guide(tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_guide(tmp_path / "none.safetensors")
    table, path = asdict(SMALL), tmp_path / "w.safetensors"
    for wrong, said in (
        (json.dumps(table | {"width": 0}), "width must be"),
        (json.dumps(table | {"width": 2**62}), "describes a network that cannot be built"),
        (json.dumps(table | {"blocks": 10**6}), "has at least"),
        (json.dumps(table | {"channels": 16}), "of another shape"),
        (json.dumps(table | {"depth": 3}), "does not know: depth"),
        (json.dumps(table | {"fine_width": 4}), "does not know: fine_width"),  # as of older versions
        ("nothing", "does not work"),
        ("[]", "must be a table"),
    ):
        save_weights(path, guide.state_dict(), {"fmboost_guide": wrong}, torch.float16)
        with pytest.raises(CheckpointError, match=said):
            load_guide(path)


def test_a_model_file_holds_its_guide_network(fast: Model, latent: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "fast.safetensors"
    save_model(fast, path)
    again = load_model(path)
    assert again.spec == fast.spec
    assert torch.allclose(boost(latent, again, None, seed=3), boost(latent, fast, None, seed=3), atol=1e-4)
    networks = (fast.network, fast.guide)
    assert describe(path)["parameters"] == sum(p.numel() for part in networks if part for p in part.parameters())
    assert torch.allclose(load_guide(path)(latent, (40, 52)), fast.guide(latent, (40, 52)), atol=1e-5)  # to train on
    text = fast.spec.to_json()
    for wrong, said in (
        (text.replace('"guide": "fast"', '"guide": "psu"'), "fast must be"),
        (text.replace('"width": 8', '"width": 16'), "of another shape"),
        (text.replace('"blocks": 1,', '"blocks": 1000000,'), "has at least"),
    ):
        weights = fast.network.state_dict() | {f"guide.{k}": v for k, v in networks[1].state_dict().items()}
        save_weights(path, weights, {"fmboost": wrong}, None)
        with pytest.raises(CheckpointError, match=said):
            load_model(path)


def test_a_model_without_a_guide_network_is_stored_as_before(tmp_path: Path) -> None:
    assert "fast" not in json.loads(make_model().spec.to_json())


# --- upscaling


@pytest.mark.parametrize("scale", [1.5, 2, 4])
@pytest.mark.filterwarnings("ignore:.*blurred")
def test_latents_are_upscaled_without_a_codec(fast: Model, latent: torch.Tensor, scale: float) -> None:
    large = boost(latent, fast, None, scale=scale)
    assert large.shape == (2, 4, round(20 * scale), round(26 * scale))
    assert torch.allclose(large[1:], boost(latent[1:], fast, None, scale=scale, seed=1), atol=1e-4)


@pytest.mark.parametrize(("scale", "warned"), [(1.5, "1.5x"), (3, "3x"), (2, ""), (4, ""), (1.95, "")])
def test_it_warns_where_a_bare_latent_is_blurred(
    fast: Model, codec: TinyVAE, latent: torch.Tensor, scale: float, warned: str
) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        boost(latent, fast, None, scale=scale)
        said = [str(warning.message) for warning in told]
        noise = seeded_noise((0, 0), 2)
        Upscaler(fast, codec).image_of_latent(latent, Target(scale), noise)  # which is restored
    assert len(told) == len(said) == bool(warned)
    assert all(f"trained at 2x: at {warned} its latents are blurred; choose 2x, or decode" in text for text in said)


@pytest.mark.parametrize("scale", [1.5, 2, 4])
@pytest.mark.filterwarnings("ignore:.*blurred")
def test_tiles_without_a_codec_equal_the_whole(fast: Model, scale: float) -> None:
    wide, stages = torch.randn(1, 4, 6, 60), []
    tiled = boost(wide, fast, None, scale=scale, tile=16, overlap=64, on_stage=stages.append)
    assert all(stage.tiles > 1 for stage in stages)
    assert torch.allclose(tiled, boost(wide, fast, None, scale=scale), atol=1e-4)


def test_the_guide_is_the_networks_own(fast: Model, latent: torch.Tensor) -> None:
    """Without noise and with a flow that stands still, what comes out is the guide."""
    still = make_model()
    for parameter in still.network.parameters():
        parameter.data.zero_()
    model = Model(fast.spec, still.network, fast.guide)
    with pytest.warns(UserWarning, match="noise step"):
        found = boost(latent, model, None, noise_step=0)
    assert torch.allclose(found, fast_guide(fast.guide, latent, (40, 52)), atol=1e-5)


def test_what_needs_a_codec_says_so(latent: torch.Tensor) -> None:
    model = make_model()
    with pytest.raises(ConfigError, match=r"method psu needs the VAE .*; give a codec, or a model with a fast guide"):
        boost(latent, model, None)
    with pytest.raises(ConfigError, match="An image needs the VAE"):
        upscale_image(torch.zeros(1, 3, 16, 16), model, None, upsample="bilinear")
    assert boost(latent, model, None, upsample="bilinear", nfe=1).shape == (2, 4, 40, 52)
    with pytest.raises(ConfigError, match="tiny has no guide network, which fast guides need; choose another"):
        boost(latent, model, None, upsample="fast")


def test_an_image_is_restored_behind_a_fast_guide(fast: Model, codec: TinyVAE) -> None:
    picture = torch.rand(1, 3, 24, 24) * 2 - 1
    plain, restored = (upscale_image(picture, fast, codec, restore=r) for r in (False, True))
    errors = [(resize(x, (24, 24)) - picture).square().mean() for x in (plain, restored)]
    assert errors[1] < 0.5 * errors[0]


# --- training


@pytest.fixture
def shards(codec: TinyVAE, tmp_path: Path) -> LatentSet:
    for i in range(2):
        noise = torch.randint(256, (6, 6, 3), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).resize((96, 80), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")
    maker = ShardMaker(plan_views(find_photos([tmp_path])), Encoding(), codec, tmp_path / "latents")
    maker.make(maker.shards)
    return load_shards(maker.out)


@pytest.fixture
def start(tmp_path: Path) -> list[str]:
    """Changes of a recipe that make a training small."""
    save_guide(GuideNetwork(SMALL), tmp_path / "guide.safetensors")
    return [
        "data.crop=8", "data.batch=4", "loop.bf16=false", "loop.warmup=1", "loop.decay=0", "loop.samples=160",
        "loop.rate=2e-3", f"start.guide={tmp_path / 'guide.safetensors'}",
    ]  # fmt: skip


@pytest.fixture
def decoded(start: list[str], codec: TinyVAE, tmp_path: Path) -> list[str]:
    """Changes for a training of a guide and the flow behind it, for a single evaluation."""
    save_model(make_model(), tmp_path / "tiny.safetensors")
    save_codec(codec, tmp_path / "codec.safetensors", license="MIT", trained_on="nothing")
    network = [f"network.{k}={json.dumps(v)}" for k, v in asdict(TINY).items()]
    return [
        *start, *network, f"start.model={tmp_path / 'tiny.safetensors'}", "objective.name=decoded",
        f"objective.decoder={tmp_path / 'codec.safetensors'}", "objective.window=4", "objective.texture=0",
        "objective.steps=1", "objective.since=0", "data.upsampling=fast", "data.part=4", "card.nfe=1",
    ]  # fmt: skip


def recipe_of(changes: list[str], *more: str) -> Recipe:
    return load_recipe("guide", [*changes, *more])


def test_crops_lie_at_one_place(shards: LatentSet) -> None:
    high, guide, _, _, low = LatentCrops(shards, 4, {}, "fast").draw(6, torch.Generator().manual_seed(0))
    assert low is not None
    assert [tuple(x.shape) for x in (low, guide, high)] == [(6, 4, 2, 2), (6, 4, 4, 4), (6, 4, 4, 4)]
    for i in range(6):
        found = 0
        for sample in shards.samples:
            whole = {name: torch.from_numpy(array.copy()).float() for name, array in sample.arrays.items()}
            for y in range(whole["low"].shape[1] - 1):
                for x in range(whole["low"].shape[2] - 1):
                    small = torch.equal(whole["low"][:, y : y + 2, x : x + 2], low[i])
                    cut = (slice(None), slice(2 * y, 2 * y + 4), slice(2 * x, 2 * x + 4))
                    found += (
                        small
                        and torch.equal(whole["latent"][cut], guide[i])
                        and torch.equal(whole["high"][cut], high[i])
                    )
        assert found == 1
    with pytest.raises(ConfigError, match="a multiple of the shards' scale, 2"):
        LatentCrops(shards, 5, {}, "fast")


def test_a_guide_network_begins_with_the_layers_of_a_tiny_vae(tmp_path: Path) -> None:
    pair = randomised(taesd(16), std=0.05)
    assert isinstance(pair, TinyVAE)
    for part in ("encoder", "decoder"):
        save_weights(tmp_path / f"taex_{part}.safetensors", getattr(pair, part).state_dict(), {}, None)
    guide = new_guide(load_recipe("guide", ["card.family=flux1", f"start.guide={tmp_path / 'taex'}"]))
    assert torch.equal(guide.encoder[0](torch.ones(1, 64, 5, 5)), torch.ones(1, 64, 5, 5))  # new: the identity
    small, features = torch.randn(1, 16, 6, 6), torch.randn(1, 64, 12, 12)
    assert torch.allclose(guide.decoder(small), pair.decoder[:11](small), atol=1e-6)  # before the second enlargement
    assert torch.allclose(guide.encoder[1:](features), pair.encoder[11:](features), atol=1e-6)
    assert guide(small, (12, 12)).shape == (1, 16, 12, 12)
    fresh = new_guide(load_recipe("guide", ["card.family=flux1"]))
    assert not torch.allclose(fresh.decoder(small), guide.decoder(small), atol=1e-2)


def test_a_guide_network_is_of_the_trainings_family(guide: GuideNetwork, tmp_path: Path) -> None:
    for part in ("encoder", "decoder"):
        save_weights(tmp_path / f"taesd_{part}.safetensors", getattr(taesd(4), part).state_dict(), {}, None)
    save_guide(guide, tmp_path / "g.safetensors")
    for family, start in (("sdxl", "taesd"), ("flux1", "taesd")):
        with pytest.raises(LatentError, match="taesd"):
            new_guide(load_recipe("guide", [f"card.family={family}", f"start.guide={tmp_path / start}"]))
    with pytest.raises(ConfigError, match=r"start\.guide must be a network for latents of flux1"):
        new_guide(load_recipe("guide", ["card.family=flux1", f"start.guide={tmp_path / 'g.safetensors'}"]))
    (tmp_path / "taesd_encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"taesd_encoder\.safetensors does not exist"):
        new_guide(load_recipe("guide", ["card.family=sd15", f"start.guide={tmp_path / 'taesd'}"]))


def test_a_checkpoint_of_another_guide_network_is_refused(
    shards: LatentSet, start: list[str], guide: GuideNetwork, tmp_path: Path
) -> None:
    trainer = make_guide_trainer(recipe_of(start), shards)
    trainer.save(tmp_path / "g.training")
    save_guide(GuideNetwork(replace(SMALL, between=2)), tmp_path / "guide.safetensors")
    with pytest.raises(CheckpointError, match=r"g\.training is of another network"):
        make_guide_trainer(recipe_of(start), shards).resume(tmp_path / "g.training")


def test_fast_guides_are_not_trained_from_nothing(shards: LatentSet, decoded: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"start\.guide must be a guide network's file"):
        make_trainer(recipe_of(decoded, "start.guide="), shards)


def test_a_guide_network_learns_to_give_the_guide_of_pixels(shards: LatentSet, start: list[str]) -> None:
    trainer = make_guide_trainer(recipe_of(start), shards)
    losses = [trainer.train_step() for _ in range(40)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_guide_and_flow_learn_together(shards: LatentSet, decoded: list[str]) -> None:
    trainer, task = make_trainer(recipe_of(decoded), shards)
    assert isinstance(trainer.network, GuidedFlow)
    drawn = task.draw(32, torch.Generator().manual_seed(7))
    first, before = task.loss(trainer.network, *drawn).item(), deepcopy(trainer.network)
    for _ in range(40):
        trainer.train_step()
    assert task.loss(trainer.network, *drawn).item() < 0.95 * first
    pairs = zip(before.named_parameters(), trainer.network.parameters(), strict=True)
    moved = {name.partition(".")[0] for (name, a), b in pairs if not a.equal(b)}
    assert moved == {"guide", "flow"}
    model = finished(recipe_of(decoded), trainer.average, 2, "both")
    assert (model.spec.guide, model.spec.fast, model.spec.nfe) == ("fast", SMALL, 1)
    assert boost(torch.randn(1, 4, 6, 6), model, None).shape == (1, 4, 12, 12)


def test_the_flow_sees_a_part_of_what_the_guide_network_sees(shards: LatentSet, decoded: list[str]) -> None:
    trainer, task = make_trainer(recipe_of(decoded), shards)
    drawn = task.draw(4, torch.Generator().manual_seed(0))
    examples, psu = task.with_guides(trainer.network, *drawn)
    assert psu is not None
    assert examples.guide.shape == examples.high.shape == psu.shape == (4, 4, 4, 4)
    whole = trainer.network(drawn[-1], size=(8, 8))
    for i in range(4):
        places = [
            (y, x) for y in range(5) for x in range(5)
            if torch.equal(drawn[0][i, :, y : y + 4, x : x + 4], examples.high[i])
            and torch.equal(drawn[1][i, :, y : y + 4, x : x + 4], psu[i])
            and torch.equal(whole[i, :, y : y + 4, x : x + 4], examples.guide[i])
        ]  # fmt: skip
        assert len(places) == 1


def test_the_anchor_keeps_the_guide_of_pixels(shards: LatentSet, decoded: list[str]) -> None:
    def distance(anchor: float) -> float:
        trainer, task = make_trainer(recipe_of(decoded, f"objective.anchor={anchor}"), shards)
        for _ in range(30):
            trainer.train_step()
        examples, psu = task.with_guides(trainer.network, *task.draw(16, torch.Generator().manual_seed(0)))
        assert psu is not None
        return (examples.guide - psu).square().mean().item()

    assert distance(10.0) < 0.8 * distance(0.0)


def test_the_commands_train_and_go_on(
    shards: LatentSet, start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run: Callable[..., int] = lambda *words: main(list(map(str, words)))  # noqa: E731
    words = [word for change in start for word in ("--set", change)]
    out = tmp_path / "g.safetensors"
    assert run("train-guide", tmp_path / "latents", out, *words, "--set", "loop.samples=8") == 0
    assert run("train-guide", tmp_path / "latents", out, *words, "--set", "loop.samples=16") == 0
    assert "16/16 samples" in capsys.readouterr().err
    assert load_guide(out).config == SMALL
