"""Upscale models in the place of interpolation: guides, the flow's change, stages, refusals."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import TINY, make_model, randomised
from torch import Tensor, nn

from fmboost_core.codecs.periodic import periodic
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import Cancelled, ConfigError, NonFiniteError
from fmboost_core.imaging.blur import blurred
from fmboost_core.imaging.resample import cover, resize
from fmboost_core.model import Model
from fmboost_core.networks.conditioning import GUIDE_KINDS, Conditioning
from fmboost_core.sampling.guide import encoded, image_guide
from fmboost_core.sampling.hooks import Hooks, Stage
from fmboost_core.sampling.options import BEHIND_BUNDLED, BEHIND_OTHERS, SamplingOptions
from fmboost_core.sampling.restore import BROAD, GAIN, back_projected, recoloured, retouched
from fmboost_core.sampling.schedule import noise_augment, seeded_noise
from fmboost_core.sampling.target import Target
from fmboost_core.sampling.upscale_model import enlarged
from fmboost_core.sampling.upscaler import Upscaler, boost, flow, upscale_image
from fmboost_core.tiles import Tileable


class Compact(nn.Module):
    """A small upscale model of the shape people use: convolutions over the small image, then pixel shuffle."""

    def __init__(self, factor: int = 4) -> None:
        super().__init__()
        self.factor, self.seen = factor, list[tuple[int, ...]]()
        self.body = randomised(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 3 * factor**2, 3, padding=1))
        )

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        assert image.min() >= 0 and image.max() <= 1
        return F.pixel_shuffle(self.body(image), self.factor) * 0.1 + F.interpolate(image, scale_factor=self.factor)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def by_hand(image: Tensor, model: Compact, size: tuple[int, int], restore: bool = False) -> Tensor:
    large = resize(model(image / 2 + 0.5).clamp(0, 1) * 2 - 1, size, "bicubic").clamp(-1, 1)
    return back_projected(large, image).clamp(-1, 1) if restore else recoloured(large, image, broad=False)


def test_an_image_is_enlarged_by_the_model_and_reduced_to_the_size() -> None:
    image, model = images(1, 3, 10, 14), Compact()
    assert torch.allclose(enlarged(image, (20, 28), model), by_hand(image, model, (20, 28)), atol=1e-6)
    assert torch.equal(enlarged(image, (20, 28), None), resize(image, (20, 28)))
    large = model(image / 2 + 0.5).clamp(0, 1) * 2 - 1
    cut = enlarged(image, (20, 20), model, distort=False)
    expected = recoloured(cover(large, (20, 20), "bicubic").clamp(-1, 1), image, broad=False, distort=False)
    assert torch.allclose(cut, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "size", "calls"), [(2, (20, 28), 1), (2, (40, 56), 2), (4, (21, 29), 1), (2, (45, 63), 3)]
)
def test_the_model_is_applied_until_the_image_is_large_enough(factor: int, size: tuple[int, int], calls: int) -> None:
    model = Compact(factor)
    assert enlarged(images(1, 3, 10, 14), size, model).shape[-2:] == size and len(model.seen) == calls


def test_a_model_that_does_not_enlarge_is_applied_once() -> None:
    model = Compact(1)
    assert enlarged(images(1, 3, 10, 14), (20, 28), model).shape[-2:] == (20, 28) and len(model.seen) == 1


def test_an_image_that_is_large_enough_stays_as_it_is() -> None:
    image = torch.rand(1, 3, 6, 5) * 2 - 1
    assert torch.equal(enlarged(image, (6, 5), lambda _: pytest.fail("it was used")), image)


def test_a_batch_equals_its_singles() -> None:
    image, model = images(3, 3, 10, 14), Compact()
    assert torch.equal(enlarged(image, (20, 28), model)[1:2], enlarged(image[1:2], (20, 28), model))
    assert model.seen == [(1, 3, 10, 14)] * 4, "the memory of one image is enough"


@pytest.mark.parametrize("axes", [Tileable(x=True), Tileable(y=True), Tileable(True, True)])
def test_a_texture_has_no_seam(axes: Tileable) -> None:
    image, model = images(1, 3, 40, 48), Compact(2)
    shift = (8 * axes.y, 16 * axes.x)
    rolled = enlarged(image.roll(shift, (2, 3)), (80, 96), model, tileable=axes)
    expected = enlarged(image, (80, 96), model, tileable=axes).roll((2 * shift[0], 2 * shift[1]), (2, 3))
    assert torch.allclose(rolled, expected, atol=1e-5)


def test_what_does_not_enlarge_is_refused() -> None:
    image = images(1, 3, 10, 14)
    for wrong in (lambda x: x[..., ::2, ::2], lambda x: x.repeat(1, 1, 2, 1), lambda x: x.repeat(1, 2, 2, 2)):
        with pytest.raises(ConfigError, match=r"^An upscale model enlarges both sides of an image by one whole number"):
            enlarged(image, (20, 28), wrong)
    with pytest.raises(NonFiniteError, match=r"^The image that the upscale model made holds NaN"):
        enlarged(image, (20, 28), lambda x: x.repeat(1, 1, 2, 2) * float("nan"))


def test_one_stage_is_the_chain_written_out(model: Model, codec: TinyVAE) -> None:
    low, upscale_model = codec.encode(images(1, 3, 48, 40)), Compact()
    seen = codec.decode(low).clamp(-1, 1)
    guide = encoded(by_hand(seen, upscale_model, (96, 80)), codec)
    assert torch.allclose(image_guide(seen, codec, (96, 80), upscale_model=upscale_model), guide, atol=1e-5)
    start = noise_augment(guide, model.spec.alpha_bar, seeded_noise(3, 1)((1, 4, 12, 10)))
    end = flow(start, guide, model, kind="image")
    made = boost(low, model, codec, seed=3, upscale_model=upscale_model)
    assert torch.allclose(made, guide + BEHIND_OTHERS.strength * (end - guide), atol=1e-5)
    assert torch.allclose(flow(start, guide, model, kind="enlarged"), made, atol=1e-5), "as a host's nodes make it"
    full = boost(low, model, codec, seed=3, upscale_model=upscale_model, strength=1.0)
    assert torch.allclose(full, end, atol=1e-5)


def test_the_image_is_the_enlarged_one_with_the_flow_s_change(model: Model, codec: TinyVAE) -> None:
    small, upscale_model = images(2, 3, 48, 40), Compact()

    def flown(large: Tensor) -> tuple[Tensor, Tensor]:
        """The decoded guide and what the flow makes of it, decoded."""
        guide = encoded(large, codec)
        start = noise_augment(guide, model.spec.alpha_bar, seeded_noise(3, 2)(tuple(guide.shape)))
        made = guide + BEHIND_OTHERS.strength * (flow(start, guide, model, kind="image") - guide)
        before, after = (codec.decode(x).clamp(-1, 1) for x in (guide, made))
        return before, after

    large = torch.cat([by_hand(single, upscale_model, (96, 80), restore=True) for single in small.split(1)])
    expected = back_projected(retouched(large, *flown(large), 2), small).clamp(-1, 1)
    image = upscale_image(small, model, codec, seed=3, upscale_model=upscale_model)
    assert torch.allclose(image, expected, atol=1e-4)
    decoded = upscale_image(small, model, codec, seed=3, upscale_model=upscale_model, restore=False)
    assert torch.allclose(decoded, flown(by_hand(small, upscale_model, (96, 80)))[1], atol=1e-4)
    still = upscale_image(small, model, codec, seed=3, upscale_model=upscale_model, strength=1e-6)
    assert (still - back_projected(large, small).clamp(-1, 1)).abs().max() < 1e-3, (
        "without a change the codec costs nothing"
    )
    assert torch.equal(retouched(large, decoded, decoded, 2), large)


def test_texture_is_added_and_edges_and_colours_stay() -> None:
    noise = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 0.02
    flat = torch.full((1, 3, 64, 96), 0.1)
    edge = torch.where(torch.arange(96) < 48, -0.8, 0.8).expand(1, 3, 64, 96)
    for image in (flat, edge):
        added = retouched(image, torch.zeros_like(noise), noise, 2) - image
        fine = noise - blurred(noise, BROAD * 2)
        assert torch.allclose(added[..., :30], GAIN * fine[..., :30], atol=1e-5), "away from an edge: all of it"
        assert (retouched(image, flat, flat + 0.2, 2) - image).abs().max() < 1e-5, "a shift of colour: nothing"
    at_edge = added[..., 46:50].std() / (GAIN * fine[..., 46:50]).std()
    assert at_edge < 0.1, "eight tenths of contrast: next to nothing"
    batch = torch.cat([flat, edge])
    both = retouched(batch, torch.zeros_like(batch), noise.expand_as(batch), 2)
    assert torch.equal(both[1:], retouched(edge, torch.zeros_like(noise), noise, 2))


def test_blur_keeps_the_mean_and_a_texture_has_no_seam() -> None:
    image = images(1, 3, 20, 24)
    assert torch.allclose(blurred(torch.full((1, 3, 9, 9), 0.3), 2.0), torch.full((1, 3, 9, 9), 0.3), atol=1e-6)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    found = blurred(point, 2.5)[0, 0]
    place = torch.arange(41.0) - 20
    assert abs(found.sum() - 1) < 1e-5 and abs((found.sum(0) * place**2).sum() ** 0.5 - 2.5) < 0.05
    axes = Tileable(True, True)
    rolled = blurred(image.roll((5, 7), (2, 3)), 3.0, axes)
    assert torch.allclose(rolled, blurred(image, 3.0, axes).roll((5, 7), (2, 3)), atol=1e-6)


def test_a_latent_and_its_image(model: Model, codec: TinyVAE) -> None:
    low, noise = codec.encode(images(2, 3, 48, 40)), seeded_noise(3, 2)
    seen, target, upscale_model = codec.decode(low).clamp(-1, 1), Target(scale=2), Compact()
    upscaler = Upscaler(model, codec, upscale_model=upscale_model)
    latent, image = upscaler.latent_and_image(low, target, seeded_noise(3, 2))
    assert torch.equal(latent, upscaler.latent(low, target, noise))
    large = by_hand(seen, upscale_model, (96, 80))
    before, after = (codec.decode(x).clamp(-1, 1) for x in (encoded(large, codec), latent))
    assert torch.allclose(image, retouched(large, before, after, 2), atol=1e-4)
    plain = upscaler.latent_and_image(low, target, seeded_noise(3, 2), restore=False)[1]
    assert torch.allclose(plain, codec.decode(latent).clamp(-1, 1), atol=1e-5)


class Bundled(Compact):
    """One that draws texture itself, as the bundled ones."""

    behind = BEHIND_BUNDLED


class Watched:
    """A codec that counts its images."""

    def __init__(self, codec: TinyVAE) -> None:
        self._codec, self.encoded, self.decoded = codec, 0, 0
        self.channels, self.downscale_factor, self.family = codec.channels, codec.downscale_factor, codec.family

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += images.shape[0]
        return self._codec.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded += latents.shape[0]
        return self._codec.decode(latents)


def test_behind_a_bundled_one_an_image_takes_no_flow(model: Model, codec: TinyVAE) -> None:
    low, target, stages = codec.encode(images(2, 3, 48, 40)), Target(scale=2), list[Stage]()
    seen, watched = codec.decode(low).clamp(-1, 1), Watched(codec)
    hooks, bundled = Hooks(on_stage=stages.append), Bundled()
    upscaler = Upscaler(model, watched, hooks=hooks, upscale_model=bundled)
    image = upscaler.image_of_latent(low, target, seeded_noise(3, 2))
    assert torch.allclose(image, by_hand(seen, bundled, (96, 80)), atol=1e-5)
    assert (watched.encoded, watched.decoded, stages) == (0, 2, []), "the small latents are all that is decoded"
    assert torch.equal(upscaler.image_of_latent(low, target, seeded_noise(3, 2), seen), image) and watched.decoded == 2
    latent, shown = upscaler.latent_and_image(low, target, seeded_noise(3, 2), seen)
    assert torch.equal(shown, image) and len(stages) == 1, "the latent has the flow all the same"
    assert torch.equal(latent, upscaler.latent(low, target, seeded_noise(3, 2), seen))
    assert (watched.encoded, watched.decoded) == (4, 2)
    plain = upscaler.image_of_latent(low, target, seeded_noise(3, 2), seen, restore=False)
    assert torch.allclose(plain, codec.decode(latent).clamp(-1, 1), atol=1e-5), "what the codec makes of the latent"
    asked = Upscaler(model, codec, SamplingOptions(strength=0.05), upscale_model=bundled)
    textured = asked.image_of_latent(low, target, seeded_noise(3, 2))
    assert torch.equal(textured, asked.latent_and_image(low, target, seeded_noise(3, 2))[1])
    assert not torch.allclose(textured, image, atol=1e-3), "a strength that is asked for brings the texture"


def test_the_flow_takes_part_in_all_but_restored_images_behind_a_bundled_one(model: Model, codec: TinyVAE) -> None:
    options = SamplingOptions().resolve(model.spec, behind=Bundled.behind)
    assert not options.takes_flow() and options.takes_flow(restore=False)
    low, target = codec.encode(images(1, 3, 48, 40)), Target(scale=2)
    alone = Upscaler(model, codec, options).image_of_latent(low, target, seeded_noise(3, 1))
    assert alone.shape == (1, 3, 96, 80), "the upscale model that they were resolved behind is gone"


def test_without_the_flow_it_stops_before_it_begins(model: Model, codec: TinyVAE) -> None:
    unused = Bundled()
    upscaler = Upscaler(model, codec, hooks=Hooks(cancelled=lambda: True), upscale_model=unused)
    image, target, noise = images(1, 3, 48, 40), Target(scale=2), seeded_noise(0, 1)
    with pytest.raises(Cancelled):
        upscaler.image_of_latent(codec.encode(image), target, noise)
    with pytest.raises(Cancelled):
        upscaler.image(image, target, noise)
    assert unused.seen == []


def test_without_the_flow_a_seamless_image_is_enlarged_to_its_size(model: Model, codec: TinyVAE) -> None:
    twice = Bundled(2)
    upscaler = Upscaler(model, codec, SamplingOptions(tileable="both"), upscale_model=twice)
    assert upscaler.image(images(1, 3, 50, 42), Target(scale=2), seeded_noise(0, 1)).shape == (1, 3, 100, 84)
    assert len(twice.seen) == 1, "not to whole latents, for which it would be applied again"


def test_behind_a_bundled_one_an_image_that_comes_in_takes_no_flow(model: Model, codec: TinyVAE) -> None:
    small, bundled, watched = images(2, 3, 45, 40), Bundled(), Watched(codec)
    upscaler = Upscaler(model, watched, upscale_model=bundled)
    image = upscaler.image(small, Target(scale=2), seeded_noise(3, 2))
    once = torch.cat([by_hand(single, bundled, (90, 80), restore=True) for single in small.split(1)])
    assert torch.allclose(image, back_projected(once, small).clamp(-1, 1), atol=1e-5)
    assert (watched.encoded, watched.decoded) == (0, 0)
    upscaler.image(small, Target(scale=2), seeded_noise(3, 2), restore=False)
    assert (watched.encoded, watched.decoded) == (2, 2), "without restoring, what the codec makes of it"


def test_the_flow_runs_once_at_the_end_however_often_the_image_is_enlarged(model: Model, codec: TinyVAE) -> None:
    low, twice, stages = codec.encode(images(1, 3, 24, 16)), Compact(2), list[Stage]()
    seen = codec.decode(low).clamp(-1, 1)
    once = by_hand(seen, twice, (48, 32))
    large = recoloured(twice(once / 2 + 0.5).clamp(0, 1) * 2 - 1, once, broad=True)
    upscaler = Upscaler(model, codec, hooks=Hooks(on_stage=stages.append), upscale_model=twice)
    latent, image = upscaler.latent_and_image(low, Target(scale=4), seeded_noise(3, 1))
    assert [(stage.index, stage.count, stage.size) for stage in stages] == [(1, 1, (96, 64))]
    guide = encoded(large, codec)
    start = noise_augment(guide, model.spec.alpha_bar, seeded_noise(3, 1)(tuple(guide.shape)))
    assert torch.allclose(latent, flow(start, guide, model, kind="enlarged"), atol=1e-4)
    before, after = (codec.decode(x).clamp(-1, 1) for x in (guide, latent))
    assert torch.allclose(image, retouched(large, before, after, 4), atol=1e-4)


def test_what_is_enlarged_beyond_the_size_is_reduced_before_it_is_restored() -> None:
    image, four = images(1, 3, 12, 10), Compact(4)
    with pytest.MonkeyPatch.context() as patch:
        sizes: list[tuple[int, ...]] = []
        patch.setattr(
            "fmboost_core.sampling.upscale_model.each_back_projected",
            lambda large, *_: sizes.append(tuple(large.shape)) or large,
        )
        enlarged(image, (24, 20), four, restore=True)
        enlarged(image, (24, 24), four, distort=False, restore=True)
        enlarged(image, (30, 25), Compact(1), restore=True)  # as one against noise: nothing to restore
    assert sizes == [(1, 3, 24, 20), (1, 3, 24, 24)]


def test_the_mean_colour_stays_however_often_an_image_is_enlarged() -> None:
    def brighter(image: Tensor) -> Tensor:
        return (F.interpolate(image, scale_factor=2.0) + 0.02).clamp(0, 1)

    image = images(2, 3, 12, 10) * 0.5
    for size in ((24, 20), (48, 40), (96, 80)):
        shift = enlarged(image, size, brighter).mean((2, 3)) - image.mean((2, 3))
        assert shift.abs().max() < 2e-3, size


def test_broad_colours_stay_from_the_second_time_on() -> None:
    def steeper(image: Tensor) -> Tensor:
        """As one that gives back the contrast that a codec has taken."""
        large = F.interpolate(image, scale_factor=2.0)
        return (large + 0.1 * (large - 0.5)).clamp(0, 1)

    slope = torch.linspace(-0.5, 0.5, 32).expand(1, 3, 32, 32)
    for size in ((64, 64), (128, 128), (256, 256)):
        large = enlarged(slope, size, steeper)
        rise = large[..., -size[1] // 4].mean() - large[..., size[1] // 4].mean()
        assert abs(float(rise / (slope[..., -8].mean() - slope[..., 8].mean())) - 1.1) < 0.02, size
    detail = 0.1 - 0.2 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)
    small = images(1, 3, 4, 4) * 0.5
    large = resize(small, (64, 64)) + detail + 0.1
    kept = recoloured(large, small, broad=True) - resize(small, (64, 64))
    assert (kept - detail)[..., 16:-16, 16:-16].abs().max() < 0.01, "what is fine stays"


def test_what_came_in_is_restored_after_each_enlargement(model: Model, codec: TinyVAE) -> None:
    small, twice = images(1, 3, 24, 16), Compact(2)
    once = by_hand(small, twice, (48, 32), restore=True)
    large = by_hand(once, twice, (96, 64), restore=True)
    assert torch.allclose(enlarged(small, (96, 64), twice, restore=True), large, atol=1e-5)
    image = upscale_image(small, model, codec, scale=4, upscale_model=twice, strength=1e-6)
    assert (image - back_projected(large, small).clamp(-1, 1)).abs().max() < 1e-3


def test_tileable_images_and_any_size(model: Model, codec: TinyVAE) -> None:
    upscaled = upscale_image(images(1, 3, 21, 30), model, codec, upscale_model=Compact(), tileable="both", nfe=1)
    assert upscaled.shape == (1, 3, 42, 60)
    assert upscale_image(images(1, 3, 21, 30), model, codec, upscale_model=Compact(), nfe=1, size=(50, 50)).shape[
        -2:
    ] == (50, 50)
    assert periodic(codec, Tileable()) is codec


def test_the_network_counts_enlarged_images_as_images(codec: TinyVAE) -> None:
    model = make_model(replace(TINY, classes=3))
    velocity, told = model.velocity, []

    def spy(x: Tensor, t: float, conditioning: Conditioning) -> Tensor:
        assert conditioning.kind is not None
        told.append(GUIDE_KINDS[int(conditioning.kind[0])])
        return velocity(x, t, conditioning)

    model.velocity = spy  # type: ignore[method-assign]
    boost(codec.encode(images(1, 3, 32, 32)), model, codec, scale=4, nfe=1, upscale_model=Compact())
    assert told == ["image"]


def test_only_pixel_space_has_images_to_enlarge(model: Model, codec: TinyVAE) -> None:
    for method in ("bilinear", "nearest"):
        with pytest.raises(
            ConfigError, match=f"^An upscale model enlarges images, but the guide method {method} works"
        ):
            boost(torch.randn(1, 4, 4, 4), model, codec, upscale_model=Compact(), upsample=method)
        with pytest.raises(ConfigError, match="choose psu, or leave the upscale model out"):
            Upscaler(model, codec, SamplingOptions(upsample=method).resolve(model.spec), upscale_model=Compact())
    with pytest.raises(ConfigError, match="needs the VAE"):
        boost(torch.randn(1, 4, 4, 4), model, None, upscale_model=Compact())
