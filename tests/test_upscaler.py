"""boost and upscale_image: sizes, stages, seeds, batches, refusals, progress and cancellation."""

import math
import random
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from networks import TINY, make_model

from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import Cancelled, ConfigError, FMBoostError, LatentError, NonFiniteError
from fmboost_core.imaging.resample import cover, resize
from fmboost_core.model import Model
from fmboost_core.networks.conditioning import GUIDE_KINDS, Conditioning
from fmboost_core.sampling.guide import pixel_upsample
from fmboost_core.sampling.hooks import Stage
from fmboost_core.sampling.options import SamplingOptions
from fmboost_core.sampling.restore import back_projected
from fmboost_core.sampling.schedule import alpha_bar, noise_augment, seeded_noise
from fmboost_core.sampling.target import Target, stage_sizes
from fmboost_core.sampling.upscaler import boost, flow, upscale_image


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_one_stage_is_the_chain_written_out(model: Model, codec: TinyVAE) -> None:
    low = latents(1, 4, 6, 5)
    guide = pixel_upsample(low, codec, (96, 80))
    noise = torch.randn(4, 12, 10, generator=torch.Generator().manual_seed(3))
    x = noise_augment(guide, model.spec.alpha_bar, noise[None])
    for i in range(4):
        x = x + model.velocity(x, i / 4, model.conditioning(guide)) / 4
    assert torch.allclose(boost(low, model, codec, nfe=4, seed=3), x, atol=1e-6)


def test_strength_is_how_much_of_the_flow_s_change_is_kept(model: Model, codec: TinyVAE) -> None:
    low = latents(2, 4, 6, 40)  # longer than two overlaps, so that tiles are real
    guide = pixel_upsample(low, codec, (96, 640))
    end = boost(low, model, codec, strength=1.0, seed=3)
    for strength in (0.4, 1.3, 2):
        made = boost(low, model, codec, strength=strength, seed=3)
        assert torch.allclose(made, guide + strength * (end - guide), atol=1e-5)
        tiled = boost(low, model, codec, strength=strength, seed=3, tile=8)
        assert torch.allclose(tiled, made, atol=1e-4)
    assert torch.equal(end, boost(low, model, codec, seed=3)), "the model's own is 1, and 1 is the flow's own end"
    own = Model(replace(model.spec, strength=1.3), model.network)
    assert torch.equal(boost(low, own, codec, seed=3), boost(low, model, codec, strength=1.3, seed=3))
    assert torch.equal(boost(low, own, codec, strength=1.0, seed=3), end)
    start = noise_augment(guide, model.spec.alpha_bar, latents(2, 4, 12, 80))
    ends = [flow(start, guide, model, strength=strength, solver="dopri5") for strength in (1, 1.3)]
    assert torch.allclose(ends[1], guide + 1.3 * (ends[0] - guide), atol=1e-5)


def test_each_stage_has_the_strength(model: Model, codec: TinyVAE) -> None:
    low = latents(1, 4, 4, 4)
    noises = iter([latents(1, 4, 8, 8, seed=1), latents(1, 4, 16, 16, seed=2)] * 2)
    first = boost(low, model, codec, strength=1.5, upsample="bilinear", noise=lambda _: next(noises))
    second = boost(first, model, codec, strength=1.5, upsample="bilinear", noise=lambda _: next(noises))
    both = boost(low, model, codec, scale=4, strength=1.5, upsample="bilinear", noise=lambda _: next(noises))
    assert torch.allclose(both, second, atol=1e-4)


def test_a_batch_equals_its_singles(model: Model, codec: TinyVAE) -> None:
    low = latents(3, 4, 5, 7)
    for solver in ("euler", "dopri5"):
        together = boost(low, model, codec, scale=3, seed=5, solver=solver, nfe=2)
        alone = [boost(low[i : i + 1], model, codec, scale=3, seed=5 + i, solver=solver, nfe=2) for i in range(3)]
        assert (together - torch.cat(alone)).abs().max() < 1e-5
    by_list = boost(low, model, codec, scale=3, seed=[5, 6, 7], nfe=2)
    assert torch.equal(by_list, boost(low, model, codec, scale=3, seed=5, nfe=2))


def test_a_seed_is_any_whole_number_or_a_generator(model: Model, codec: TinyVAE) -> None:
    small = torch.randn(2, 4, 4, 4)
    expected = boost(small, model, codec, seed=7)
    generators = [torch.Generator().manual_seed(7), torch.Generator().manual_seed(8)]
    for seed in (
        np.int64(7), np.uint8(7), torch.tensor(7), np.array(7), [7, 8], (np.int32(7), torch.tensor(8)),
        np.array([7, 8]), torch.tensor([7, 8]), generators,
    ):  # fmt: skip
        assert torch.equal(boost(small, model, codec, seed=seed), expected)
    generator = torch.Generator().manual_seed(7)
    drawn = boost(small, model, codec, seed=generator)
    assert torch.equal(drawn[:1], expected[:1]) and not torch.equal(drawn[1:], expected[1:])
    assert not torch.equal(boost(small, model, codec, seed=generator), drawn), "a generator draws on"
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    one = upscale_image(image, model, codec, seed=torch.Generator().manual_seed(3))
    assert torch.equal(one, upscale_image(image, model, codec, seed=3))
    for seed in (1.5, "7", None, [1, 2.5]):
        with pytest.raises(ConfigError, match=r"seed must be a whole number, a torch\.Generator"):
            boost(small, model, codec, seed=seed)


def test_numbers_of_numpy_and_pytorch_are_numbers(model: Model, codec: TinyVAE) -> None:
    small = torch.randn(1, 4, 4, 4)
    expected = boost(small, model, codec, scale=2, nfe=2, noise_step=400, tile=32, overlap=8)
    numbers = {"nfe": np.int64(2), "noise_step": torch.tensor(400), "tile": np.int32(32), "overlap": np.uint8(8)}
    for target in ({"scale": np.float32(2)}, {"scale": torch.tensor(2.0)}, {"size": (np.int64(64), torch.tensor(64))}):
        assert torch.equal(boost(small, model, codec, **target, **numbers), expected)
    assert SamplingOptions(nfe=np.int64(2)) == SamplingOptions(nfe=2) and alpha_bar(np.int64(400)) == alpha_bar(400)


def test_seeds_matter_only_where_there_is_noise(model: Model, codec: TinyVAE) -> None:
    low = latents(1, 4, 4, 4)
    assert not torch.equal(boost(low, model, codec, seed=0), boost(low, model, codec, seed=1))
    quiet = make_model(noise_step=0, alpha_bar=1.0, noise_steps=(0,))
    assert torch.equal(boost(low, quiet, codec, seed=0), boost(low, quiet, codec, seed=1))


def test_a_host_brings_its_own_noise(model: Model, codec: TinyVAE) -> None:
    asked = []

    def noise(shape: tuple[int, ...]) -> torch.Tensor:
        asked.append(shape)
        return torch.zeros(shape)

    boost(latents(2, 4, 4, 4), model, codec, scale=4, noise=noise)
    assert asked == [(2, 4, 8, 8), (2, 4, 16, 16)]


def test_a_cascade_is_its_stages(model: Model, codec: TinyVAE) -> None:
    """Two doublings, the picture restored between them, are one call of 4x, if the noise goes on as one."""
    low = latents(1, 4, 4, 6)
    generator = torch.Generator().manual_seed(9)

    def noise(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape[1:], generator=generator)[None]

    middle = boost(low, model, codec, scale=2, noise=noise)
    first, second = (codec.decode(latent).clamp(-1, 1) for latent in (low, middle))
    picture = back_projected(second, first).clamp(-1, 1)
    assert torch.allclose(
        boost(middle, model, codec, scale=2, noise=noise, image=picture),
        boost(low, model, codec, scale=4, seed=9),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("start", "end", "trained", "count"),
    [((64, 64), (128, 128), 2, 1), ((64, 64), (512, 512), 2, 3), ((64, 64), (192, 192), 2, 2),
     ((64, 64), (64, 64), 2, 1), ((128, 128), (2048, 2048), 4, 2), ((100, 7), (137, 10), 2, 1)],
)  # fmt: skip
def test_stages_are_few_and_equal(start: tuple, end: tuple, trained: float, count: int) -> None:
    sizes = [start, *stage_sizes(start, end, trained)]
    assert len(sizes) == count + 1 and sizes[-1] == end
    ratios = [b[0] / a[0] for a, b in pairwise(sizes)]
    assert max(ratios) <= trained * 1.02
    assert max(ratios) / min(ratios) < 1.05


def test_target_sizes() -> None:
    assert Target().pixels((48, 64), 2, unit=8) == (96, 128)
    assert Target(scale=1.37).pixels((512, 512), 2, unit=8) == (704, 704)
    assert Target(scale=2).pixels((333, 500), 4) == (666, 1000)
    assert Target(size=(1000, 700)).pixels((512, 512), 2, unit=8) == (704, 1000)
    height, width = Target(megapixels=2).pixels((480, 640), 2)
    assert height * width == pytest.approx(2e6, rel=2e-3) and width / height == pytest.approx(4 / 3, rel=2e-3)


@pytest.mark.parametrize(
    "wish",
    [{"scale": 0.5}, {"scale": 0}, {"scale": math.nan}, {"scale": math.inf}, {"scale": 1e9}, {"scale": "2"},
     {"scale": True}, {"size": (0, 100)}, {"size": (100.5, 100)}, {"size": (64, 64, 3)}, {"size": (32, 64)},
     {"megapixels": 0}, {"megapixels": 1e9}, {"scale": 2, "megapixels": 1}, {"size": (10**9, 10**9)}],
)  # fmt: skip
def test_impossible_targets_are_one_sentence(wish: dict) -> None:
    with pytest.raises(ConfigError) as refused:
        Target(**wish).pixels((64, 64), 2)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_another_aspect_covers_and_cuts_unless_stretched(codec: TinyVAE) -> None:
    """A picture of a ramp, with a velocity of zero: what comes back shows how it was fitted."""
    still = make_model(noise_step=0, alpha_bar=1.0, noise_steps=(0,))
    torch.nn.init.zeros_(still.network.out[2].weight)
    torch.nn.init.zeros_(still.network.out[2].bias)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    cut = upscale_image(ramp, still, _Pixels(), size=(64, 128))
    assert cut.shape == (1, 3, 128, 64)
    assert cut[0, 0, 64, 0] == pytest.approx(0.25, abs=0.02) and cut[0, 0, 64, -1] == pytest.approx(0.75, abs=0.02)
    stretched = upscale_image(ramp, still, _Pixels(), size=(64, 128), stretch=True)
    assert stretched[0, 0, 64, 0] == pytest.approx(0, abs=0.01) and stretched[0, 0, 64, -1] == pytest.approx(1)


class _Pixels:
    """A codec whose latents are averages of 1x1 'blocks': pictures are their own latents, plus a spare channel."""

    channels, downscale_factor = 4, 1

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images, images[:, :1]], 1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :3]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 9), (16, 16), (33, 17)])
def test_pictures_come_back_in_exactly_the_size_asked_for(model: Model, codec: TinyVAE, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size) * 2 - 1
    for scale in (1, 1.37, 2, 5):
        big = upscale_image(image, model, codec, scale=scale, nfe=1)
        assert big.shape == (2, 3, max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        assert big.isfinite().all() and big.abs().max() <= 1


def test_200_random_inputs(model: Model, codec: TinyVAE) -> None:
    """Odd sizes, types and content: no crash, nothing non-finite, the right size every time."""
    rng = random.Random(0)
    contents = (
        torch.randn, torch.zeros, torch.ones, lambda *s: torch.randn(*s) * 2.5, lambda *s: torch.full(s, -2.0),
        lambda *s: torch.randn(*s).sign(),
    )  # fmt: skip
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(200):
            height, width, scale = rng.randint(1, 14), rng.randint(1, 14), rng.choice((1, 1.2, 1.5, 2, 2.7))
            options = {
                "nfe": rng.choice((2, 4)), "solver": rng.choice(("euler", "heun", "midpoint")), "seed": i,
                "tile": rng.choice(("auto", None, 4)), "upsample": rng.choice(("psu", "bilinear", "nearest")),
                "noise_step": rng.choice((0, 400, 999)), "scale": scale, "overlap": rng.choice((None, 0, 4)),
            }  # fmt: skip
            content, dtype = rng.choice(contents), rng.choice(dtypes)
            if i % 2:
                low = content(1, 4, height, width).to(dtype)
                out = boost(low, model, codec, **options)
                wanted = (1, 4, *(max(1, round(side * scale)) for side in (height, width)))
            else:
                picture = content(1, 3, height * 3, width * 3).clamp(-1, 1).to(dtype)
                out = upscale_image(picture, model, codec, **options)
                wanted = (1, 3, *(max(1, round(3 * side * scale)) for side in (height, width)))
            assert out.dtype == dtype and tuple(out.shape) == wanted and out.isfinite().all(), (i, options)


def test_progress_states_and_stages_are_told(model: Model, codec: TinyVAE) -> None:
    told, times, stages = [], [], []
    boost(
        latents(1, 4, 8, 8), model, codec, scale=4, nfe=2, tile=16, overlap=4,
        progress=lambda done, total: told.append((done, total)),
        on_state=lambda t, x: times.append((t, tuple(x.shape))), on_stage=stages.append,
    )  # fmt: skip
    assert told == [(i + 1, 2 + 8) for i in range(10)]
    assert times == [(0.5, (1, 4, 16, 16)), (1.0, (1, 4, 16, 16)), (0.5, (1, 4, 32, 32)), (1.0, (1, 4, 32, 32))]
    assert stages == [Stage(1, 2, (128, 128), 1, 2), Stage(2, 2, (256, 256), 4, 2)]


def test_evaluations_are_counted_in_the_network(model: Model, codec: TinyVAE) -> None:
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    for solver, nfe in (("euler", 3), ("heun", 4), ("rk4", 8)):
        calls.clear()
        boost(latents(2, 4, 4, 4), model, codec, solver=solver, nfe=nfe)
        assert len(calls) == nfe


def test_cancelling_stops_within_one_evaluation(model: Model, codec: TinyVAE) -> None:
    done = []
    with pytest.raises(Cancelled):
        boost(
            latents(1, 4, 4, 4), model, codec, nfe=50, progress=lambda i, n: done.append(i),
            cancelled=lambda: len(done) >= 3,
        )  # fmt: skip
    assert len(done) == 3


def test_refusals(model: Model, codec: TinyVAE) -> None:
    low = latents(1, 4, 4, 4)
    cases: list[tuple[torch.Tensor, dict, type[FMBoostError], str]] = [
        (latents(1, 16, 4, 4), {}, LatentError, "SD3, FLUX.1 or Stable Cascade"),
        (latents(1, 3, 4, 4), {}, LatentError, "pixel space"),
        (latents(4, 4, 4), {}, LatentError, "batch, channels, height, width"),
        (low.long(), {}, LatentError, "int64"),
        (low[..., :0], {}, LatentError, "empty"),
        (low / 0, {}, NonFiniteError, "NaN or infinity"),
        (low, {"nfe": 0}, ConfigError, "nfe"),
        (low, {"solver": "magic"}, ConfigError, "euler"),
        (low, {"scale": 0.5}, ConfigError, "only enlarges"),
        (low, {"seed": [1, 2]}, ConfigError, "2 seeds"),
        (low, {"noise_step": 1000}, ConfigError, "999"),
        (low, {"upsample": "magic"}, ConfigError, "psu"),
        (low, {"strength": 0}, ConfigError, "strength must be above 0 and at most 2, but it is 0"),
        (low, {"strength": 2.1}, ConfigError, "at most 2"),
        (low, {"strength": math.nan}, ConfigError, "at most 2"),
        (low, {"strength": "much"}, ConfigError, "strength must be above 0 and at most 2, but it is 'much'"),
        (low, {"strength": True}, ConfigError, "strength must be"),
        (low, {"tile": 0}, ConfigError, "tile"),
        (low, {"scale": 4, "tile": 8, "overlap": 2.5}, ConfigError, "overlap must be a whole number"),
        (low, {"size": 64}, ConfigError, "size must be"),
    ]
    for latent, options, error, says in cases:
        with pytest.raises(error, match=says):
            boost(latent, model, codec, **options)
    with pytest.raises(TypeError):
        boost(low, model, codec, nfes=4)  # type: ignore[call-arg]
    for picture in (torch.zeros(1, 5, 8, 8), torch.zeros(3, 8, 8), torch.zeros(1, 3, 0, 8)):
        with pytest.raises(LatentError):
            upscale_image(picture, model, codec)


def test_an_image_that_is_not_the_latent_s_is_refused(model: Model, codec: TinyVAE) -> None:
    low = latents(1, 4, 4, 4)
    boost(low, model, codec, nfe=1, image=torch.zeros(1, 3, 37, 32))  # a host's, before the codec cut it to latents
    for size in ((1, 3, 16, 16), (1, 3, 32, 48), (2, 3, 32, 32)):
        with pytest.raises(LatentError, match="give the decoded latent, or none"):
            boost(low, model, codec, nfe=1, image=torch.zeros(size))


def test_broken_weights_never_become_a_picture(model: Model, codec: TinyVAE) -> None:
    model.network.out[2].bias.data[:] = math.nan
    with pytest.raises(NonFiniteError):
        upscale_image(torch.zeros(1, 3, 16, 16), model, codec)


def test_an_unknown_noise_step_and_raw_latents_warn(model: Model, codec: TinyVAE) -> None:
    with pytest.warns(UserWarning, match="trained at noise step 400"):
        boost(latents(1, 4, 4, 4), model, codec, noise_step=200)
    with pytest.warns(UserWarning, match="raw scale"):
        boost(latents(1, 4, 8, 8) * 5.8, model, codec)


@pytest.fixture
def dial() -> Model:
    """A model for starts of the noise steps 100 to 700, which its network is told."""
    return make_model(replace(TINY, noise_level=True), noise_steps=(100, 600))


def test_the_noise_of_the_start_is_a_dial(dial: Model, codec: TinyVAE, recwarn: pytest.WarningsRecorder) -> None:
    """Every step in the range is known, also those at its ends, and the network is told each."""
    low, velocity, told = latents(1, 4, 4, 4), dial.velocity, []

    def spy(x: torch.Tensor, t: float, conditioning: Conditioning) -> torch.Tensor:
        told.append(float(conditioning.noise_level[0]))
        return velocity(x, t, conditioning)

    dial.velocity = spy
    for step in (100, 333, 600):
        boost(low, dial, codec, noise_step=step, nfe=1)
    boost(low, dial, codec, nfe=1)
    kept = [alpha_bar(100), alpha_bar(333), alpha_bar(600), dial.spec.alpha_bar]
    assert told == pytest.approx([math.sqrt(1 - signal) for signal in kept])
    assert not recwarn.list
    with pytest.warns(UserWarning, match="trained at noise step 100 to 600, not 601"):
        boost(low, dial, codec, noise_step=601, nfe=1)


def test_the_flow_alone_can_be_told_the_start_s_noise(dial: Model, codec: TinyVAE) -> None:
    low = latents(1, 4, 4, 4)
    guide = pixel_upsample(low, codec, (64, 64))
    start = noise_augment(guide, alpha_bar(200), seeded_noise(5, 1)(tuple(guide.shape)))
    whole = boost(low, dial, codec, noise_step=200, seed=5)
    assert torch.allclose(flow(start, guide, dial, noise_step=200), whole, atol=1e-6)
    assert not torch.allclose(flow(start, guide, dial), whole, atol=1e-3)


def test_the_network_is_told_what_each_stage_s_guide_was_made_from(codec: TinyVAE) -> None:
    """Only a guide made from a picture that came in has its detail; later stages begin with decoded latents."""
    model = make_model(replace(TINY, classes=3))
    velocity, told = model.velocity, []

    def spy(x: torch.Tensor, t: float, conditioning: Conditioning) -> torch.Tensor:
        told.append(GUIDE_KINDS[int(conditioning.kind[0])])
        return velocity(x, t, conditioning)

    model.velocity = spy  # type: ignore[method-assign]
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    upscale_image(picture, model, codec, scale=4, nfe=1)
    upscale_image(picture, model, codec, scale=2, nfe=1, upsample="bilinear")
    boost(codec.encode(picture), model, codec, scale=2, nfe=1)
    upscale_image(picture, model, codec, scale=4, nfe=1, restore=False)
    boost(codec.encode(picture), model, codec, scale=4, nfe=1, upsample="nearest")
    assert told == ["image", "image", "resized", "latent", "image", "latent", "resized", "resized"]


def test_a_kind_of_guide_that_a_network_does_not_know_counts_as_encoded_from_a_latent() -> None:
    guide = torch.zeros(2, 4, 8, 8)
    for classes, known in ((2, 0), (3, 2)):
        assert make_model(replace(TINY, classes=classes)).conditioning(guide, "resized").kind.tolist() == [known] * 2


def test_flow_is_the_heart_of_a_stage(model: Model, codec: TinyVAE) -> None:
    """The chain of single calls, as a host's nodes make it, is `boost`."""
    low = latents(2, 4, 5, 7)
    guide = pixel_upsample(low, codec, (80, 112))
    noise = torch.stack([torch.randn(4, 10, 14, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    counts: list[tuple[int, int]] = []
    start = noise_augment(guide, model.spec.alpha_bar, noise)
    end = flow(start, guide, model, nfe=2, tile=8, overlap=0, progress=lambda *count: counts.append(count))
    assert torch.allclose(end, boost(low, model, codec, nfe=2, seed=3, tile=8, overlap=0), atol=1e-6)
    assert counts == [(i + 1, 8) for i in range(8)]  # 2 evaluations of 4 tiles
    half = flow(start.half(), guide.half(), model, nfe=2, tile=8, overlap=0)
    assert torch.allclose(half.float(), end, atol=2e-2)
    for bad, message in (
        ((start, guide[:1]), "make both of one size"),
        ((start[:, :3], guide[:, :3]), "pixel space"),
        ((start * math.nan, guide), "NaN"),
    ):
        with pytest.raises(FMBoostError, match=message):
            flow(*bad, model)
    with pytest.raises(ConfigError, match="alpha_bar must be from 0 to 1"):
        flow(start, guide, model, alpha_bar=2.0)
    with pytest.raises(Cancelled):
        flow(start, guide, model, cancelled=lambda: True)


class _Halving:
    """A codec that keeps the mean of each 8x8 block and half of each deviation from grey: lossy, and known."""

    channels, downscale_factor = 4, 8

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        grey = torch.nn.functional.avg_pool2d(images, 8) / 2
        return torch.cat([grey, grey[:, :1]], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)


def _still() -> Model:
    """A flow that goes nowhere: its end is the guide."""
    model = make_model(noise_step=0, alpha_bar=1.0, noise_steps=(0,))
    model.network.out[2].weight.zero_()
    model.network.out[2].bias.zero_()
    return model


@pytest.mark.parametrize(
    ("wish", "seen"),
    [
        ({"scale": 8}, slice(None)),
        ({"size": (256, 512)}, slice(2, 6)),
        ({"size": (256, 512), "stretch": True}, slice(None)),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_colours_do_not_drift_over_stages(wish: dict[str, Any], seen: slice, given: bool) -> None:
    """What a codec does to colours is done once, by the last stage, however many there are, cut or not."""
    codec = _Halving()
    columns = torch.tensor([0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.8, 0.8]).view(1, 1, 1, 8)
    low = columns.expand(2, 4, 8, 8) * torch.tensor([1.0, -0.5]).view(2, 1, 1, 1)
    picture = codec.decode(low) if given else None
    end = boost(low, _still(), codec, nfe=1, image=picture, **wish)
    assert torch.allclose(end.mean((2, 3)), low[..., seen].mean((2, 3)) / 2, atol=0.03)


class _Unasked(_Halving):
    """A codec that must not be asked."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise AssertionError("decoded")


def test_guides_from_latents_ask_no_codec(model: Model) -> None:
    low = latents(1, 4, 4, 4)
    assert boost(low, model, _Unasked(), upsample="bilinear", scale=8, nfe=1).shape == (1, 4, 32, 32)


@pytest.mark.parametrize("wish", [{"scale": 2}, {"scale": 3.3}, {"size": (100, 100)}, {"size": (160, 96)}])
def test_a_restored_picture_is_the_small_one_again_when_reduced(wish: dict[str, Any]) -> None:
    """Whatever the codec does to colours and to detail, in one stage and in two, cut or not."""
    still = _still()
    coarse = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    small = resize(coarse, (48, 40))

    def error(restore: bool) -> float:
        large = upscale_image(small, still, _Halving(), nfe=1, restore=restore, **wish)
        wanted = (cover if "size" in wish else resize)(small, (large.shape[-2], large.shape[-1]))
        reduced = (round(large.shape[-2] / 2.5), round(large.shape[-1] / 2.5))
        return float((resize(large, reduced) - resize(wanted, reduced)).abs().mean())

    assert error(restore=True) < 0.12 * error(restore=False)


def test_restoring_leaves_what_the_small_picture_cannot_have() -> None:
    """Detail finer than the small picture's stays, and a picture that fits its small one stays as it is."""
    fine = (-1.0) ** (torch.arange(64)[:, None] + torch.arange(64)).expand(1, 3, 64, 64)
    small = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(back_projected(fine * 0.5, small), fine * 0.5 + 0.3, atol=0.02)
    assert torch.equal(back_projected(small * 2, small), small)  # nothing was enlarged


def test_restoring_draws_no_rims_beside_edges() -> None:
    """An edge a pixel beside the small picture's own: the correction alone would overshoot on both sides."""
    step = torch.full((1, 3, 32, 32), -0.4).index_fill(3, torch.arange(16, 32), 0.4)
    small, displaced = resize(step, (16, 16)), step.roll(1, 3).index_fill(3, torch.tensor([0]), -0.4)
    enlarged = resize(small, (32, 32), "bicubic")
    alone = displaced + resize(small - resize(displaced, (16, 16)), (32, 32), "bicubic")
    overshoot = alone.abs().max() - enlarged.abs().max()
    assert overshoot > 0.2
    found = back_projected(displaced, small)
    assert found.abs().max() - enlarged.abs().max() < 0.4 * overshoot
    assert torch.allclose(found, back_projected(displaced.mT, small.mT).mT, atol=1e-5)
    # Where the colours are wrong everywhere, they are put right, and nothing is limited.
    assert torch.allclose(back_projected(step - 0.3, small), back_projected(step, small), atol=0.05)


@pytest.mark.parametrize("method", ["psu", "bilinear", "nearest"])
def test_restoring_works_behind_every_guide(model: Model, codec: TinyVAE, method: str) -> None:
    picture = torch.rand(1, 3, 24, 24) * 2 - 1
    plain, restored = (upscale_image(picture, model, codec, nfe=1, upsample=method, restore=r) for r in (False, True))
    errors = [(resize(image, (24, 24)) - picture).square().mean() for image in (plain, restored)]
    assert errors[1] < 0.5 * errors[0]


def cut_out(colour: float = 0.8) -> tuple[torch.Tensor, torch.Tensor]:
    """A disk of one colour with a soft edge on hidden black: images with alpha and without (1,4 and 3,15,21)."""
    y, x = torch.meshgrid(torch.arange(15.0) - 7, torch.arange(21.0) - 10, indexing="ij")
    alpha = ((6 - (x**2 + y**2).sqrt()) / 3).clamp(0, 1)[None, None]
    rgb = torch.full((1, 3, 15, 21), colour)
    return torch.cat([torch.where(alpha > 0, rgb, torch.tensor(-1.0)), alpha * 2 - 1], dim=1), rgb


@pytest.mark.parametrize("target", [{"scale": 3}, {"size": (50, 50)}, {"size": (50, 50), "stretch": True}])
def test_hidden_colours_leave_no_fringe_and_alpha_goes_along(
    model: Model, codec: TinyVAE, target: dict[str, Any]
) -> None:
    image, rgb = cut_out()
    large = upscale_image(image, model, codec, nfe=1, **target)
    assert (large[:, :3] - upscale_image(rgb, model, codec, nfe=1, **target)).abs().max() < 1e-5
    size = (large.shape[-2], large.shape[-1])
    fit = cover if "size" in target and "stretch" not in target else resize
    assert torch.allclose(large[:, 3:], fit(image[:, 3:], size)) and size in ((45, 63), (50, 50))


def test_each_image_of_a_batch_has_its_own_hidden_colours(model: Model, codec: TinyVAE) -> None:
    images = torch.cat([cut_out(0.8)[0], cut_out(-0.5)[0]])
    together = upscale_image(images, model, codec, nfe=1, seed=[0, 1])
    alone = [upscale_image(images[i : i + 1], model, codec, nfe=1, seed=i) for i in range(2)]
    assert (together - torch.cat(alone)).abs().max() < 1e-5
