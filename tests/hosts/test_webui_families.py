"""FLUX.1, Chroma and SD3 in a real AUTOMATIC1111 or Forge: the host's classes with few layers and random weights."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from .marked import KINDS, write_checkpoint
from .server import Refused
from .webui import PLAIN, Made, Webui, accordion, as_text, difference, pixels_of

# What FMBoost takes for each: its model, and the upscale model that is the default.
BUNDLED = {
    "flux1": ("flux1-x2", "FMBoost latent 2x"),
    "chroma": ("flux1-x2", "FMBoost latent 2x"),
    "sd3": ("sd3-x2", "FMBoost mean 2x"),
}


@pytest.fixture(scope="module")
def usual(webui: Webui) -> Iterator[str]:
    """The name of the host's SD1.5 checkpoint, beside which the others are now."""
    webui.txt2img(enable_hr=False)  # AUTOMATIC1111 loads it in a thread, which no other checkpoint should meet
    (checkpoint,) = webui.get("/sdapi/v1/sd-models")
    folder = webui.base / "models/Stable-diffusion"
    for kind in KINDS:
        write_checkpoint(folder, kind)
    webui.post("/sdapi/v1/refresh-checkpoints")
    yield checkpoint["title"]
    take(webui, checkpoint["title"])
    for kind in KINDS:
        (folder / f"{kind}.safetensors").unlink()
    webui.post("/sdapi/v1/refresh-checkpoints")


def take(webui: Webui, checkpoint: str) -> None:
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": checkpoint}, timeout=300)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, webui: Webui, usual: str) -> str:
    """The checkpoint in the host."""
    name: str = request.param
    if name not in webui.kinds:
        pytest.skip(f"needs a host whose loader of {name} the tests know: Forge, or for SD3 AUTOMATIC1111")
    take(webui, name)
    return name


def drawn(webui: Webui, **wish: Any) -> Made:
    """By the schedule that is usual for flows. With Forge's own for Euler, SD3 makes black images in several steps."""
    return webui.txt2img(sampler_name="Euler", scheduler="Simple", **wish)


@pytest.fixture(scope="module")
def alone(webui: Webui, kind: str) -> Made:
    """The flow's image."""
    return drawn(webui)


def test_the_host_draws_and_what_it_decodes_is_what_boost_makes(webui: Webui, kind: str) -> None:
    """In the host's latent space, by its VAE: small latents of 16 channels and 8x8."""
    small = drawn(webui, enable_hr=False)
    assert small.images[0].shape == (64, 64, 3) and small.images[0].std() > 1
    model = BUNDLED[kind][0]
    for scale in (2, 3):
        made = drawn(webui, hr_scale=scale)
        assert made.images[0].shape == (64 * scale, 64 * scale, 3) and made.images[0].std() > 1
        assert f"FMBoost model: {model}" in made.infotexts[0]
        probe = load_file(webui.base / "probe.safetensors")
        assert probe["small"].shape == (1, 16, 8, 8) and probe["large"].shape == (1, 16, 8 * scale, 8 * scale)
        assert (probe["large"] - probe["wanted"]).abs().max() < 1e-4


def test_the_familys_upscale_model_is_the_default(webui: Webui, kind: str, alone: Made) -> None:
    made = drawn(webui, alwayson_scripts={})
    assert f"FMBoost upscale model: {BUNDLED[kind][1]}" in made.infotexts[0]
    assert difference(made.images[0], alone.images[0]) > 10


def test_a_batch_is_its_singles(webui: Webui, kind: str, alone: Made) -> None:
    several, following = drawn(webui, batch_size=2), drawn(webui, seed=6)
    for image, single in zip(several.images, (alone.images[0], following.images[0]), strict=True):
        assert difference(image, single) <= 2
    assert difference(*several.images) > 10


def test_refining_is_the_samplers_own_pass(webui: Webui, kind: str, alone: Made) -> None:
    args = list(PLAIN)
    args[5] = True
    refined = drawn(webui, **accordion(*args), denoising_strength=0.3, hr_second_pass_steps=2)
    assert refined.images[0].shape == (128, 128, 3) and refined.images[0].std() > 1
    assert difference(refined.images[0], alone.images[0]) > 10 and "FMBoost refine: True" in refined.infotexts[0]


def test_a_model_with_a_fast_guide_serves_the_family(webui: Webui, kind: str, alone: Made) -> None:
    """Alone and with the sampler's own pass behind it, where no VAE takes part between."""
    direct, args = f"{BUNDLED[kind][0]}-direct", list(PLAIN)
    for refine in (False, True):
        args[0], args[5] = direct, refine
        made = drawn(webui, **accordion(*args), denoising_strength=0.3, hr_second_pass_steps=2 * refine)
        assert made.images[0].shape == (128, 128, 3) and made.images[0].std() > 1
        assert f"FMBoost model: {direct}" in made.infotexts[0] and "FMBoost guide: fast" not in made.infotexts[0]
        assert difference(made.images[0], alone.images[0]) > 5


def test_a_model_of_another_family_is_refused(webui: Webui, kind: str) -> None:
    with pytest.raises(Refused, match=r"sd15-x2 is for SD1\.5 latents"):
        drawn(webui, **accordion("sd15-x2", *PLAIN[1:]))


def test_extras_take_the_checkpoints_vae(webui: Webui, kind: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.int64)
    request: dict[str, Any] = {"image": as_text(image), "upscaling_resize": 2}
    webui.post("/sdapi/v1/options", {"fmboost_extras_upscale_model": "None"})  # a bundled one would need no VAE
    try:
        made = [
            pixels_of(webui.post("/sdapi/v1/extra-single-image", request | {"upscaler_1": entry}, 300)["image"])
            for entry in ("FMBoost picture", "FMBoost picture (checkpoint's VAE)")
        ]
    finally:
        webui.post("/sdapi/v1/options", {"fmboost_extras_upscale_model": "Automatic"})
    assert made[0].shape == made[1].shape == (128, 192, 3) and difference(*made) > 5


def test_another_family_between_changes_nothing(webui: Webui, usual: str) -> None:
    if "sd3" not in webui.kinds:
        pytest.skip("needs a host whose loader of SD3 the tests know: Forge or AUTOMATIC1111")

    def made(checkpoint: str) -> Made:
        take(webui, checkpoint)
        return drawn(webui)

    before, between, after = (made(name) for name in (usual, "sd3", usual))
    assert "FMBoost model: sd3-x2" in between.infotexts[0]
    assert (
        difference(before.images[0], after.images[0]) <= (2 if webui.is_forge else 0)
        and before.infotexts == after.infotexts
    )
