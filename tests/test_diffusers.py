"""The pipeline of diffusers, with diffusers' own classes and small random weights: it gives what `boost` gives."""

# ruff: noqa: E402
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from networks import TINY, make_model
from PIL import Image
from torch import Tensor

for _name, _oldest in (("diffusers", "0.30"), ("transformers", "5.0"), ("accelerate", "1.0")):
    pytest.importorskip(_name, minversion=_oldest, reason=f"needs {_name} {_oldest} or newer: pip install '.[dev]'")

import tiny_pipelines
from diffusers import AutoencoderKL, FluxPipeline, VQModel
from diffusers.callbacks import PipelineCallback

from fmboost_core import (
    DiffusersCodec,
    Target,
    Upscaler,
    boost,
    load_codec,
    load_model,
    load_upscale_model,
    upscale_image,
)
from fmboost_core.errors import Cancelled, CheckpointError, ConfigError, FMBoostWarning, LatentError, NonFiniteError
from fmboost_core.families import FAMILIES
from fmboost_core.files.checkpoint import save_model
from fmboost_core.files.folder import export
from fmboost_core.files.locate import WEIGHTS, bundled_models
from fmboost_core.hosts.diffusers import FMBoostModel, FMBoostUpscalePipeline
from fmboost_core.model import Model
from fmboost_core.sampling.options import BEHIND_BUNDLED
from fmboost_core.sampling.restore import back_projected
from fmboost_core.sampling.schedule import seeded_noise

DOCUMENT = Path(__file__).parents[1] / "docs" / "diffusers.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Interpolating(FMBoostUpscalePipeline):
    """The pipeline without an upscale model, unless one is given: the bundled ones take long."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return super().__call__(*args, **{"upscale_model": None, **options})


def pipeline(model: Model | None = None, vae: Any = None) -> FMBoostUpscalePipeline:
    """A pipeline of a tiny model of SD1.5 latents, without its progress bar."""
    made = Interpolating(FMBoostModel(model or make_model()), vae or tiny_pipelines.vae("sd15"))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def pipe() -> FMBoostUpscalePipeline:
    return pipeline()


def latents_of(pipe: FMBoostUpscalePipeline, latents: Tensor, **options: Any) -> Tensor:
    return pipe(latents=latents, output_type="latent", **{"generator": 0, **options}).images


# --- the result


@pytest.mark.parametrize("name", bundled_models())
def test_each_bundled_model_gives_what_boost_gives(name: str) -> None:
    model = load_model(name)
    vae, small = tiny_pipelines.vae(model.spec.family), noise(1, model.spec.network.channels, 3, 4)
    pipe = Interpolating.from_pretrained(name, vae=vae)
    expected = boost(small, model, DiffusersCodec(vae), seed=5, nfe=2)
    assert expected.shape[-1] == 4 * model.spec.scale
    assert torch.allclose(latents_of(pipe, small, generator=5, num_inference_steps=2), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "prefix"), [("sd15-x2", "taesd"), ("sdxl-x2", "taesdxl"), ("sd3-x2", "taesd3"), ("flux1-x2", "taef1")]
)
def test_a_public_tiny_vae_gives_what_our_own_reading_of_it_gives(name: str, prefix: str, shared: Path) -> None:
    model, vae = load_model(name), tiny_pipelines.tiny_vae(shared / "taesd" / prefix)
    codec, image = load_codec(str(shared / "taesd" / prefix)), noise(1, 3, 24, 32).clamp(-1, 1)
    assert DiffusersCodec(vae).family == model.spec.family
    small = codec.encode(image)
    assert torch.allclose(DiffusersCodec(vae).encode(image), small, atol=1e-4)
    large = latents_of(Interpolating.from_pretrained(name, vae=vae), small, num_inference_steps=1)
    assert torch.allclose(large, boost(small, model, DiffusersCodec(vae), nfe=1), atol=1e-4)
    assert torch.allclose(large, boost(small, model, codec, nfe=1), atol=2e-3)  # the order of sums differs


def test_a_tiny_vae_without_a_name_is_recognised(shared: Path) -> None:
    """Its latents show the family, so that a model of another one is a warning and no error."""
    vae = tiny_pipelines.tiny_vae(shared / "taesd" / "taesdxl")
    vae.register_to_config(_name_or_path="somewhere/vae")
    codec = DiffusersCodec(vae)
    assert (codec.family, codec.party.seems) == (None, "sdxl")
    with pytest.warns(FMBoostWarning, match=r"the VAE looks like one of SDXL.*take a model of the VAE's family, such"):
        pipeline(vae=vae)


def test_the_codec_scales_and_shifts_as_the_configuration_says() -> None:
    vae = tiny_pipelines.vae("sd3")
    codec, image = DiffusersCodec(vae), noise(1, 3, 16, 24).clamp(-1, 1)
    with torch.no_grad():
        raw = vae.encode(image).latent_dist.mean
        assert torch.allclose(codec.encode(image), (raw - 0.0609) * 1.5305, atol=1e-5)
        assert torch.allclose(codec.decode(codec.encode(image)), vae.decode(raw).sample, atol=1e-4)
    assert (codec.family, codec.channels, codec.downscale_factor) == ("sd3", 16, 8)
    with pytest.raises(LatentError, match="multiples of 8, but got 20x16"):
        codec.encode(noise(1, 3, 16, 20))


def test_a_batch_equals_its_items(pipe: FMBoostUpscalePipeline) -> None:
    small = noise(2, 4, 4, 6)
    both = latents_of(pipe, small, generator=3)
    for item in (0, 1):
        single = latents_of(pipe, small[item : item + 1], generator=3 + item)
        assert torch.allclose(both[item : item + 1], single, atol=1e-5)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert torch.equal(latents_of(pipe, small, generator=generators), both)
    assert torch.equal(latents_of(pipe, small, generator=[3, 4]), both)
    with pytest.raises(ConfigError, match="3 seeds were given for a batch of 2"):
        latents_of(pipe, small, generator=[1, 2, 3])
    with pytest.raises(ConfigError, match="num_images_per_input must be a whole number above 0, but it is 0"):
        latents_of(pipe, small, num_images_per_input=0)


class Bundled:
    """Interpolation that counts as a bundled upscale model, and remembers the sizes of its batches."""

    behind = BEHIND_BUNDLED

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        return torch.nn.functional.interpolate(images, scale_factor=2)


def test_results_without_noise_are_made_once() -> None:
    """A bundled upscale model makes the image of a latent alone, so that the seeds change nothing."""
    pipe = FMBoostUpscalePipeline.from_pretrained("sd15-x2", vae=tiny_pipelines.vae("sd15"))
    pipe.set_progress_bar_config(disable=True)
    enlarger, small = Bundled(), noise(1, 4, 3, 4)
    two = {"num_images_per_input": 2, "upscale_model": enlarger, "generator": [1, 2], "output_type": "pt"}
    made = pipe(latents=small, **two).images
    assert enlarger.seen == [1] and torch.equal(made[0], made[1])
    made = pipe(latents=small, strength=0.5, **two).images
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(*pipe(latents=small, **two | {"output_type": "latent"}).images)


def test_the_transparency_of_an_image_is_kept(pipe: FMBoostUpscalePipeline) -> None:
    clear = Image.new("RGBA", (24, 16), (200, 100, 50, 0))
    clear.paste((200, 100, 50, 255), (0, 0, 12, 16))
    made = pipe(image=[clear, Image.new("RGB", (24, 16))], generator=0).images
    with pytest.raises(LatentError, match="There is no image; give at least one"):
        pipe(image=[])
    assert [image.mode for image in made] == ["RGBA", "RGBA"]
    assert made[0].getpixel((2, 2))[3] == 255 and made[0].getpixel((45, 2))[3] == 0
    assert made[1].getchannel("A").getextrema() == (255, 255)
    assert pipe(image=clear, generator=0, output_type="latent").images.shape[1] == 4
    assert pipe(image=Image.new("RGBA", (24, 16)).convert("RGB").convert("RGBA"), generator=0).images[0].mode == "RGB"


def test_one_generator_goes_through_the_batch(pipe: FMBoostUpscalePipeline) -> None:
    small, model, codec = noise(2, 4, 4, 4), pipe.core, DiffusersCodec(pipe.vae)
    expected = boost(small, model, codec, seed=torch.Generator().manual_seed(9))
    assert torch.equal(latents_of(pipe, small, generator=torch.Generator().manual_seed(9)), expected)


def test_without_a_generator_pytorchs_own_draws(pipe: FMBoostUpscalePipeline) -> None:
    small = noise(1, 4, 4, 4)
    torch.manual_seed(1)
    first, second = (latents_of(pipe, small, generator=None) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(latents_of(pipe, small, generator=None), first) and not torch.equal(first, second)


def test_several_results_for_each_latent(pipe: FMBoostUpscalePipeline) -> None:
    small = noise(2, 4, 4, 4)
    four = latents_of(pipe, small, num_images_per_input=2, generator=[1, 2, 1, 2])
    assert four.shape == (4, 4, 8, 8) and not torch.equal(four[0], four[1])
    assert torch.allclose(four[2:3], latents_of(pipe, small[1:], generator=1), atol=1e-5)


def test_sizes_and_options_are_those_of_boost() -> None:
    pipe = pipeline(make_model(replace(TINY, noise_level=True), noise_steps=(100, 700)))
    small, model, codec = noise(1, 4, 4, 6), pipe.core, DiffusersCodec(pipe.vae)
    for ours, theirs in (
        ({"scale": 3}, {"scale": 3}),
        ({"height": 64, "width": 120}, {"size": (120, 64)}),
        ({"num_inference_steps": 2, "solver": "heun"}, {"nfe": 2, "solver": "heun"}),
        ({"noise_step": 200, "upsample": "bilinear"}, {"noise_step": 200, "upsample": "bilinear"}),
        ({"tileable": "x", "tile": 32}, {"tileable": "x", "tile": 32}),
    ):
        assert torch.equal(latents_of(pipe, small, **ours), boost(small, model, codec, **theirs))
    with pytest.raises(ConfigError, match="Give both height and width"):
        pipe(latents=small, height=64)
    with pytest.raises(ConfigError, match="one of scale, size or megapixels"):
        pipe(latents=small, height=64, width=96, scale=2)
    with pytest.raises(TypeError, match="guidance_scale"):
        pipe(latents=small, guidance_scale=7)


# --- what comes out


def test_output_types(pipe: FMBoostUpscalePipeline) -> None:
    small = noise(2, 4, 3, 4)
    pil, arrays, tensors = (pipe(latents=small, generator=0, output_type=kind).images for kind in ("pil", "np", "pt"))
    assert [image.size for image in pil] == [(64, 48)] * 2 and arrays.shape == (2, 48, 64, 3)
    assert tensors.shape == (2, 3, 48, 64) and 0 <= tensors.min() < tensors.max() <= 1
    assert np.array_equal(arrays, tensors.permute(0, 2, 3, 1).numpy())
    assert np.abs(np.asarray(pil[1]) / 255 - arrays[1]).max() < 0.003
    (alone,) = pipe(latents=small, generator=0, output_type="pt", return_dict=False)
    assert torch.equal(alone, tensors)
    with pytest.raises(ConfigError, match="output_type must be one of pil, np, pt, latent, but it is 'jpg'"):
        pipe(latents=small, output_type="jpg")


def test_an_upscale_model_takes_the_place_of_interpolation(pipe: FMBoostUpscalePipeline) -> None:
    def doubled(image: torch.Tensor) -> torch.Tensor:
        return image.square().repeat_interleave(2, 2).repeat_interleave(2, 3)

    small = noise(1, 4, 4, 4)
    codec, core = pipe._codec(), pipe.core
    expected = boost(small, core, codec, seed=0, upscale_model=doubled)
    made = pipe(latents=small, generator=0, output_type="latent", upscale_model=doubled).images
    assert torch.allclose(made, expected, atol=1e-4)
    shown = pipe(latents=small, generator=0, output_type="pt", upscale_model=doubled).images
    upscaler = Upscaler(core, codec, upscale_model=doubled)
    image = upscaler.latent_and_image(small, Target(scale=2), seeded_noise(0, 1))[1]
    assert torch.allclose(shown, image / 2 + 0.5, atol=1e-4)


def test_by_default_a_bundled_upscale_model_enlarges() -> None:
    """The family's for latents or the one for images; none where guides are not made in pixel space."""
    vae, small, image = tiny_pipelines.vae("sd15"), noise(1, 4, 4, 4), noise(1, 3, 32, 32).sigmoid()
    pipe = FMBoostUpscalePipeline(FMBoostModel(make_model()), vae)
    asked = {"generator": 0, "output_type": "pt"}
    for given, name in (({"latents": small}, "fmboost-latent-x2"), ({"image": image}, "fmboost-image-x2")):
        wanted = pipe(**given, **asked, upscale_model=load_upscale_model(name)).images
        assert torch.allclose(pipe(**given, **asked).images, wanted, atol=1e-5)
        assert not torch.allclose(pipe(**given, **asked, upscale_model=None).images, wanted, atol=1e-2)
    explicit = pipe(latents=small, **asked, upsample="psu").images
    assert torch.allclose(explicit, pipe(latents=small, **asked).images, atol=1e-5)
    direct = FMBoostUpscalePipeline.from_pretrained("sd15-x2-direct", vae=vae)
    for one, more in ((pipe, {"upsample": "bilinear"}), (direct, {})):
        plain = one(latents=small, **asked, **more).images
        assert torch.allclose(one(latents=small, **asked, **more, upscale_model=None).images, plain)
    with pytest.raises(ConfigError, match="upscale_model must be 'auto', None or an upscale model, but it is '4x'"):
        pipe(latents=small, **asked, upscale_model="4x")


def test_the_decoded_result_is_restored_unless_told(pipe: FMBoostUpscalePipeline) -> None:
    small, codec = noise(1, 4, 3, 4), DiffusersCodec(pipe.vae)
    large = codec.decode(latents_of(pipe, small)).clamp(-1, 1)
    plain = pipe(latents=small, generator=0, output_type="pt", restore=False).images
    assert torch.allclose(plain, large / 2 + 0.5, atol=1e-4)
    restored = back_projected(large, codec.decode(small).clamp(-1, 1)).clamp(-1, 1)
    made = pipe(latents=small, generator=0, output_type="pt").images
    assert torch.allclose(made, restored / 2 + 0.5, atol=1e-4) and not torch.allclose(made, plain, atol=1e-3)


def test_images_go_in_as_diffusers_takes_them(pipe: FMBoostUpscalePipeline) -> None:
    picture = Image.fromarray((np.random.default_rng(0).random((19, 24, 3)) * 255).astype("uint8"))
    array = np.asarray(picture, dtype="float32") / 255
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None]
    expected = upscale_image(tensor * 2 - 1, pipe.core, DiffusersCodec(pipe.vae)) / 2 + 0.5
    assert expected.shape == (1, 3, 38, 48)
    for image in (picture, [picture], array[None], tensor):
        assert torch.allclose(pipe(image=image, generator=0, output_type="pt").images, expected, atol=1e-5)
    two = pipe(image=[picture, picture], generator=0, output_type="np").images
    assert two.shape == (2, 38, 48, 3) and not np.array_equal(two[0], two[1])
    latent = pipe(image=picture, generator=0, output_type="latent").images
    assert latent.shape == (1, 4, 5, 6)
    codec, padded = DiffusersCodec(pipe.vae), torch.nn.functional.pad(expected, (0, 0, 0, 2), mode="replicate")
    assert torch.allclose(latent, codec.encode(padded * 2 - 1), atol=1e-4)


def test_images_that_cannot_be_are_refused(pipe: FMBoostUpscalePipeline) -> None:
    picture, other = Image.new("RGB", (16, 16)), Image.new("RGB", (24, 16))
    with pytest.raises(LatentError, match=r"one size, but these have .*(24x16.*16x16|16x16.*24x16); call once"):
        pipe(image=[picture, other])
    with pytest.raises(LatentError, match=r"3 channels, but this one has 4; give latents as latents"):
        pipe(image=noise(1, 4, 8, 8))
    with pytest.raises(LatentError, match=r"in \[0,1\], but one has 255"):
        pipe(image=np.full((1, 16, 16, 3), 255, dtype="uint8"))
    for arguments in ({}, {"image": picture, "latents": noise(1, 4, 2, 2)}):
        with pytest.raises(ConfigError, match="Give either image or latents"):
            pipe(**arguments)


# --- packed latents


def packed(latents: Tensor) -> Tensor:
    batch, channels, height, width = latents.shape
    return FluxPipeline._pack_latents(latents, batch, channels, height, width)


def test_packed_latents_are_unpacked() -> None:
    model = make_model(replace(TINY, channels=16), family="flux1", latent_factor=0.3611, latent_shift=0.1159)
    pipe, small = pipeline(model, tiny_pipelines.vae("flux1")), noise(2, 16, 4, 6)
    assert packed(small).shape == (2, 6, 64)
    assert torch.equal(latents_of(pipe, packed(small), source_height=32, source_width=48), latents_of(pipe, small))
    assert torch.equal(latents_of(pipe, packed(small), source_height=47, source_width=63), latents_of(pipe, small))
    with pytest.raises(ConfigError, match=r"packed, 6 positions of 64 values.*source_height and source_width"):
        pipe(latents=packed(small))
    with pytest.raises(LatentError, match=r"in 6 positions, but an image of 64x32 has 4x2"):
        pipe(latents=packed(small), source_height=32, source_width=64)
    with pytest.raises(LatentError, match=r"the latent has 128 channels \(FLUX.2"):
        pipe(latents=noise(1, 6, 128), source_height=32, source_width=48)
    with pytest.raises(LatentError, match=r"SD1.5 latents \(4 channels\), but the latent has 16 channels"):
        pipeline()(latents=packed(small), source_height=32, source_width=48)


# --- callbacks and interruption


def test_the_callback_sees_each_step_and_can_change_the_latents(pipe: FMBoostUpscalePipeline) -> None:
    small, seen = noise(1, 4, 4, 4), []

    def look(own: Any, step: int, t: float, given: dict[str, Tensor]) -> dict[str, Tensor]:
        assert own is pipe
        seen.append((step, t, tuple(given["latents"].shape)))
        return given

    plain = latents_of(pipe, small, scale=4, num_inference_steps=2)
    assert torch.equal(latents_of(pipe, small, scale=4, num_inference_steps=2, callback_on_step_end=look), plain)
    assert seen == [(0, 0.5, (1, 4, 8, 8)), (1, 1.0, (1, 4, 8, 8)), (2, 0.5, (1, 4, 16, 16)), (3, 1.0, (1, 4, 16, 16))]

    def end(at: int) -> Callable[..., dict[str, Tensor]]:
        return lambda pipe, step, t, given: {"latents": given["latents"] * 0 + 7} if step == at else {}

    assert torch.equal(latents_of(pipe, small, callback_on_step_end=end(3)), torch.full((1, 4, 8, 8), 7.0))
    with pytest.raises(LatentError, match=r"callback's latents are \(4, 8, 8\), not \(1, 4, 8, 8\)"):
        latents_of(pipe, small, callback_on_step_end=lambda pipe, step, t, given: {"latents": given["latents"][0]})
    early = latents_of(pipe, small, callback_on_step_end=end(0))
    assert not torch.allclose(early, latents_of(pipe, small), atol=0.5) and not torch.equal(early, early * 0 + 7)


def test_callbacks_of_diffusers(pipe: FMBoostUpscalePipeline) -> None:
    class Zero(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012

        def callback_fn(self, pipeline: Any, step: int, t: float, given: dict[str, Any]) -> dict[str, Any]:
            return {"latents": given["latents"] * 0}

    small = noise(1, 4, 4, 4)
    assert not latents_of(pipe, small, callback_on_step_end=Zero()).any()
    given: list[Any] = []
    latents_of(pipe, small, callback_on_step_end=lambda *a: given.append(a[3]), callback_on_step_end_tensor_inputs=[])
    assert given == [{}] * 4
    with pytest.raises(ConfigError, match="may hold latents, but it holds prompt_embeds"):
        pipe(latents=small, callback_on_step_end=print, callback_on_step_end_tensor_inputs=["prompt_embeds"])


def test_interruption_cancels(pipe: FMBoostUpscalePipeline) -> None:
    steps = []

    def stop(own: Any, step: int, t: float, given: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(step)
        own._interrupt = step == 1
        return {}

    small = noise(1, 4, 4, 4)
    with pytest.raises(Cancelled):
        pipe(latents=small, callback_on_step_end=stop)
    assert steps == [0, 1] and pipe.interrupt
    assert latents_of(pipe, small).shape == (1, 4, 8, 8) and not pipe.interrupt


def test_the_progress_bar_counts_evaluations(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = Interpolating(FMBoostModel(make_model()), tiny_pipelines.vae("sd15"))
    latents_of(pipe, noise(1, 4, 4, 4), scale=4, num_inference_steps=3)
    assert "6/6" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    latents_of(pipe, noise(1, 4, 4, 4))
    assert not capsys.readouterr().err


# --- the VAE stays as it is


@pytest.mark.parametrize(("asks", "expected"), [(True, torch.float32), (False, torch.float16)])
def test_a_vae_in_half_precision_works_in_single_where_it_asks_for_it(asks: bool, expected: torch.dtype) -> None:
    vae, small, seen = tiny_pipelines.vae("sd15", force_upcast=asks), noise(1, 4, 3, 3), []
    exact = pipeline(vae=vae)(latents=small, generator=0, output_type="pt").images
    vae.to(torch.float16)
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    made = pipeline(vae=vae)(latents=small, generator=0, output_type="pt").images
    assert seen == [expected] * 3 and vae.dtype == torch.float16 and (made - exact).abs().mean() < 0.02


def test_a_vae_in_half_precision_is_half_again_after_an_error() -> None:
    vae = tiny_pipelines.vae("sd15").to(torch.float16)
    with pytest.raises(RuntimeError):
        DiffusersCodec(vae).decode(noise(1, 5, 2, 2))
    assert vae.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pipeline_in_half_precision(dtype: torch.dtype) -> None:
    small, pipe = noise(1, 4, 4, 4), pipeline()
    exact = latents_of(pipe, small)
    half = Interpolating(FMBoostModel(make_model()), tiny_pipelines.vae("sd15")).to(dtype)
    half.set_progress_bar_config(disable=True)
    assert half.dtype == dtype and half.vae.dtype == dtype
    made = latents_of(half, small.to(dtype))
    assert made.dtype == dtype and torch.allclose(made.float(), exact, atol=0.1, rtol=0.1)
    assert half(latents=small.to(dtype), output_type="pil").images[0].size == (64, 64)


def test_tiling_and_slicing_stay_as_they_are() -> None:
    vae, small = tiny_pipelines.vae("sd15"), noise(2, 4, 8, 8)
    whole = latents_of(pipeline(vae=vae), small)
    assert not vae.use_tiling and not vae.use_slicing
    vae.enable_tiling(), vae.enable_slicing()
    vae.tile_latent_min_size, vae.tile_sample_min_size = 4, 32
    sizes: list[tuple[int, ...]] = []
    vae.decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    tiled = latents_of(pipeline(vae=vae), small)
    assert vae.use_tiling and vae.use_slicing and (vae.tile_latent_min_size, vae.tile_sample_min_size) == (4, 32)
    assert {shape[0] for shape in sizes} == {1} and max(shape[-1] for shape in sizes) == 4
    assert tiled.shape == whole.shape and not torch.equal(tiled, whole)


def test_offloading_moves_the_parts_in_turn() -> None:
    """The hooks are accelerate's, as `enable_model_cpu_offload` puts them on; here both places are the CPU."""
    from accelerate import cpu_offload_with_hook

    pipe, small = pipeline(), noise(1, 4, 4, 4)
    expected, moved = latents_of(pipe, small), []
    for name in pipe.model_cpu_offload_seq.split("->"):
        _, hook = cpu_offload_with_hook(getattr(pipe, name), "cpu")
        original = hook.hook.pre_forward
        hook.hook.pre_forward = lambda *a, _name=name, _call=original, **k: (moved.append(_name), _call(*a, **k))[1]
    assert torch.equal(latents_of(pipe, small), expected)
    assert moved == ["vae", "vae", "model", "model", "model", "model"]


# --- what does not go together


def test_a_vae_of_another_family_is_refused() -> None:
    with pytest.raises(LatentError) as refused:
        Interpolating.from_pretrained("sd15-x2", vae=tiny_pipelines.vae("sdxl"))
    assert str(refused.value) == (
        "The model sd15-x2 is for SD1.5 latents (4 channels), but the VAE is for SDXL latents (4 channels); take a "
        "model of the VAE's family, such as sdxl-x2."
    )
    pipe = pipeline()
    pipe.vae = tiny_pipelines.vae("sdxl")
    with pytest.raises(LatentError, match="the VAE is for SDXL latents"):
        pipe(latents=noise(1, 4, 4, 4))
    for wrong in ([0.0], np.zeros((1, 4, 4, 4)), torch.zeros(4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.int64)):
        with pytest.raises(LatentError, match="A latent must be a float tensor"):
            pipeline()(latents=wrong)
    with pytest.raises(LatentError, match=r"but the latent has 16 channels \(SD3, FLUX.1"):
        pipeline()(latents=noise(1, 16, 4, 4))


def test_a_compiled_vae_is_the_vae() -> None:
    vae = tiny_pipelines.vae("sd15")
    assert DiffusersCodec(torch.compile(vae)).autoencoder is vae


def test_other_vaes_are_refused() -> None:
    with pytest.raises(LatentError, match="class VQModel; give an AutoencoderKL or AutoencoderTiny of SD1"):
        pipeline(vae=VQModel(norm_num_groups=4, block_out_channels=(4,)))
    with pytest.raises(LatentError, match="scales each channel of the latent by itself"):
        pipeline(vae=tiny_pipelines.vae("sdxl", latents_mean=[0.0] * 4, latents_std=[1.0] * 4))


def test_a_vae_that_overflows_is_told(pipe: FMBoostUpscalePipeline) -> None:
    pipe.vae.decoder.conv_out.weight.data[:] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        pipe(latents=noise(1, 4, 4, 4), upsample="bilinear", restore=False)


# --- files


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_model(make_model(), path)
    return path


def test_from_pretrained_takes_what_load_model_takes(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipe: FMBoostUpscalePipeline
) -> None:
    folder, small, asked = tmp_path / "folder", noise(1, 4, 4, 4), []
    export(saved, folder)

    def download(repo: str, file: str, revision: str) -> str:
        asked.append((repo, file, revision))
        return str(folder / WEIGHTS)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    expected = latents_of(pipe, small)
    for place in (saved, str(saved), folder, "hf://you/mine", "hf://you/mine/deep/mine.safetensors@v2"):
        made = Interpolating.from_pretrained(place, vae=pipe.vae)
        assert torch.allclose(latents_of(made, small), expected, atol=1e-5)
    assert asked == [("you/mine", WEIGHTS, "main"), ("you/mine", "deep/mine.safetensors", "v2")]
    assert Interpolating.from_pretrained(saved, torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match="There is no model 'you/mine'"):
        Interpolating.from_pretrained("you/mine")
    with pytest.raises(ConfigError, match="variant has no effect on a model of FMBoost; leave it out"):
        Interpolating.from_pretrained(saved, variant="fp16")


def test_without_a_vae_the_built_in_codec_is_used() -> None:
    pipe = Interpolating.from_pretrained("sd3-x2")
    small, model = noise(1, 16, 3, 3), load_model("sd3-x2")
    expected = boost(small, model, load_codec("builtin", "sd3"), nfe=1)
    assert torch.allclose(latents_of(pipe, small, num_inference_steps=1), expected, atol=1e-4)


@pytest.mark.parametrize("with_vae", [True, False])
def test_a_saved_pipeline_comes_back(tmp_path: Path, pipe: FMBoostUpscalePipeline, with_vae: bool) -> None:
    if not with_vae:
        pipe.vae = None
    pipe.save_pretrained(tmp_path)
    back = Interpolating.from_pretrained(tmp_path)
    assert type(back.vae) is (AutoencoderKL if with_vae else type(None)) and back.model.spec == pipe.model.spec
    small = noise(1, 4, 4, 4)
    assert torch.allclose(latents_of(back, small), latents_of(pipe, small), atol=1e-5)
    half = Interpolating.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16 and load_model(tmp_path / "model").spec.name == "tiny"
    given = tiny_pipelines.vae("sd15")
    assert Interpolating.from_pretrained(tmp_path, vae=given).vae is given


def test_it_is_made_from_another_pipeline() -> None:
    other = tiny_pipelines.sd15()
    pipe = FMBoostUpscalePipeline.from_pipe(other, model=FMBoostModel(make_model()))
    assert pipe.vae is other.vae and latents_of(pipe, noise(1, 4, 2, 2)).shape == (1, 4, 4, 4)


# --- the page


def program(of: str) -> str:
    (found,) = (text for text in PROGRAMS if of in text and "from_pretrained" in text)
    return found


@pytest.mark.parametrize(
    ("make", "name", "files"),
    [
        ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", {"cup.png": (128, 128)}),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0", {f"cup-{seed}.png": (128, 128) for seed in (1, 2)}),
        ("flux", "black-forest-labs/FLUX.1-schnell", {"cup.png": (96, 64)}),
    ],
)
def test_the_programs_of_the_page_run(
    make: str, name: str, files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are written, but with a small pipeline of random weights for the hub's, and FLUX.1's at a small size."""
    text = program(name)
    getattr(tiny_pipelines, make)().save_pretrained(tmp_path / "pipeline")
    text = text.replace(name, str(tmp_path / "pipeline")).replace("height, width = 768, 1024", "height, width = 32, 48")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    exec(compile(text, str(DOCUMENT), "exec"), {})
    assert {path.name: Image.open(path).size for path in tmp_path.glob("*.png")} == files


def test_the_program_for_a_finished_image_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray((np.random.default_rng(0).random((24, 32, 3)) * 255).astype("uint8")).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(program("photo.jpg"), str(DOCUMENT), "exec"), {})
    assert Image.open(tmp_path / "large.png").size == (64, 48)


def test_the_page_names_each_family() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"`{name}-x2`" in text for name in FAMILIES)
