"""The extension in a real AUTOMATIC1111 or Forge: its dropdown, its second pass, its errors, its other places."""

import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from .server import PACK, Refused, peak_memory
from .webui import BROKEN_UPSCALER, UPSCALER, Made, Pixels, Webui, accordion, as_text, difference, pixels_of

MODES = {"FMBoost 2x", "FMBoost 4x", "FMBoost 2x (sub/own)", "FMBoost 2x (sub/vanishing)"}
BUNDLED, OTHERS = "FMBoost latent 2x", ["FMBoost mean 2x", "FMBoost image 2x"]


def behind(upscaler: str, strength: float = 0) -> dict[str, Any]:
    """The accordion's values with an upscale model."""
    return accordion("Automatic", -1, "euler", "auto", "auto", False, strength, upscaler)


def is_even(image: Pixels, usual: Pixels) -> bool:
    """Whether an image is of one colour but for fine texture, as the upscale model makes it, beside the usual one."""
    return spread(image) < 0.5 * spread(usual)


def spread(image: Pixels) -> float:
    """The deviation of the means of squares of 16 pixels."""
    height, width = (side // 16 for side in image.shape[:2])
    squares = image[: 16 * height, : 16 * width].reshape(height, 16, width, 16, 3)
    return float(squares.mean((1, 3)).std((0, 1)).mean())


@pytest.fixture(scope="module")
def plain(webui: Webui) -> Made:
    """An image without hires-fix, before all others."""
    return webui.txt2img(enable_hr=False)


@pytest.fixture(scope="module")
def usual(webui: Webui, plain: Made) -> Made:
    return webui.txt2img()


def test_the_host_starts_with_the_entries_and_without_trouble(webui: Webui, usual: Made) -> None:
    assert {mode["name"] for mode in webui.get("/sdapi/v1/latent-upscale-modes")} >= MODES
    upscalers = {upscaler["name"] for upscaler in webui.get("/sdapi/v1/upscalers")}
    assert upscalers >= {"FMBoost picture", "FMBoost picture (checkpoint's VAE)"}
    log = webui.log.read_text()
    about = [line for line in log.splitlines() if "fmboost" in line.lower() and "Launching" not in line]
    assert len(about) == 2 and "broken.safetensors" in about[0] and "choose the upscaler" in about[1], about
    assert "Error loading script" not in log and "Error calling" not in log


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({}, (128, 128)),
        ({"hr_scale": 1.37}, (80, 80)),
        ({"hr_scale": 4, "width": 64, "height": 96}, (256, 384)),
        ({"hr_resize_x": 160, "hr_resize_y": 96}, (160, 96)),
        ({"hr_resize_x": 192}, (192, 192)),
        ({"hr_scale": 1}, (64, 64)),
    ],
)
def test_any_hires_size(webui: Webui, wish: dict[str, Any], size: tuple[int, int]) -> None:
    (image,) = webui.txt2img(**wish).images
    assert image.shape == (size[1], size[0], 3) and image.std() > 1


def test_what_is_decoded_is_what_boost_makes(webui: Webui) -> None:
    webui.txt2img(hr_scale=1.5, seed=7)
    probe = load_file(webui.base / "probe.safetensors")
    assert probe["large"].shape == (1, 4, 12, 12)
    assert (probe["large"] - probe["wanted"]).abs().max() < 1e-4


def test_a_batch_is_its_singles_and_its_repetitions(webui: Webui, usual: Made) -> None:
    following = webui.txt2img(seed=6)
    singles = [usual.images[0], following.images[0]]
    for several in (webui.txt2img(batch_size=2), webui.txt2img(n_iter=2)):
        assert len(several.images) == 2
        # The first pass of a batch of two is not bit for bit that of one.
        apart = max(map(difference, several.images, singles))
        print(f"apart by {apart} of 255")
        assert apart <= 2
    assert difference(*singles) > 10


def test_variation_seeds_change_the_detail(webui: Webui, usual: Made) -> None:
    varied = webui.txt2img(subseed=9, subseed_strength=0.4)
    assert difference(varied.images[0], usual.images[0]) > 10
    assert "Variation seed: 9" in varied.infotexts[0]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"hr_second_pass_steps": 2, **accordion("sub/own", 300, "heun", "bilinear", "48", False)},
        {"hr_second_pass_steps": 3, **accordion("Automatic", -1, "euler", "psu", "auto", True)},
        behind(UPSCALER, 0.5),
    ],
    ids=["defaults", "options", "refined", "upscale model"],
)
def test_the_infotext_makes_the_same_image_again(webui: Webui, plain: Made, request_: dict[str, Any]) -> None:
    """As the page's paste button does, through the API's field for it."""
    first = webui.txt2img(**request_)
    # What only the hosts' pages understand of what they paste themselves: their API stumbles over it.
    same: dict[str, Any] = {"hr_sampler_name": "Euler a", "hr_scheduler": None}
    if webui.is_forge:
        same |= {"hr_additional_modules": ["Use same choices"], "styles": []}
    again = webui.ask("/sdapi/v1/txt2img", {"infotext": first.infotexts[0]} | same)
    assert again.infotexts == first.infotexts
    assert difference(again.images[0], first.images[0]) <= (2 if webui.is_forge else 0)


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DDIM", "UniPC"])
def test_no_sampler_minds_denoising_0(webui: Webui, sampler: str) -> None:
    made = webui.txt2img(sampler_name=sampler, denoising_strength=0, steps=4)
    assert made.images[0].shape == (128, 128, 3)


def test_refining_is_the_samplers_own_pass_over_the_boosted_latent(webui: Webui, usual: Made) -> None:
    refined = webui.txt2img(**accordion("Automatic", -1, "euler", "psu", "auto", True), denoising_strength=0.3)
    assert refined.images[0].shape == usual.images[0].shape
    assert difference(refined.images[0], usual.images[0]) > 10
    assert "FMBoost refine: True" in refined.infotexts[0]


def test_an_upscaler_of_the_host_takes_the_place_of_interpolation(webui: Webui, usual: Made) -> None:
    scripts = webui.get("/sdapi/v1/script-info")
    args = next(s["args"] for s in scripts if s["name"] == "fmboost" and not s["is_img2img"])
    choices = next(arg["choices"] for arg in args if arg["label"].startswith("Upscale model"))
    assert choices[:5] == ["Automatic", "None", BUNDLED, *OTHERS] and {UPSCALER, BROKEN_UPSCALER} <= set(choices)
    assert not {"Lanczos", "Nearest", "FMBoost picture"} & set(choices)
    for wish in ({}, {"hr_scale": 1.5}):
        made = webui.txt2img(**behind(UPSCALER), **wish)
        side = int(64 * wish.get("hr_scale", 2))
        assert made.images[0].shape == (side, side, 3)
        assert is_even(made.images[0], usual.images[0])
        assert f"FMBoost upscale model: {UPSCALER}" in made.infotexts[0]
    assert "upscale model" not in usual.infotexts[0]
    same = webui.txt2img(**behind("None"))
    assert difference(same.images[0], usual.images[0]) == 0 and same.infotexts == usual.infotexts


def test_the_bundled_upscale_model_is_the_default(webui: Webui, usual: Made) -> None:
    unasked, named = webui.txt2img(alwayson_scripts={}), webui.txt2img(**behind(BUNDLED))
    assert f"FMBoost upscale model: {BUNDLED}" in unasked.infotexts[0] and unasked.infotexts == named.infotexts
    assert difference(unasked.images[0], named.images[0]) == 0 < difference(unasked.images[0], usual.images[0])


def test_the_small_image_is_saved_where_the_settings_want_it(webui: Webui, plain: Made) -> None:
    """With its infotext, from which hires-fix has not been taken."""
    webui.txt2img(save_images=True, override_settings={"save_images_before_highres_fix": True})
    (saved,) = webui.base.rglob("*-before-highres-fix.png")
    with Image.open(saved) as image:
        assert difference(np.asarray(image.convert("RGB")).astype(np.int64), plain.images[0]) <= 1
        assert "Hires upscaler: FMBoost 2x" in image.text["parameters"]


def test_interrupted_it_gives_the_small_image_and_the_memory_back(webui: Webui, plain: Made) -> None:
    """On the way to 512x512 pixels with 100 evaluations a stage, whose latents the live preview shows."""
    webui.post("/sdapi/v1/options", {"show_progress_type": "Approx cheap", "show_progress_every_n_steps": 1})
    request = {"hr_second_pass_steps": 100, "hr_scale": 8}
    interrupted(webui, **request)  # the first time, libraries get memory of their own
    with peak_memory(webui.process.pid) as memory:
        for _ in range(3):  # what were kept each time would add up
            made, previews = interrupted(webui, **request)
    print(f"at most {memory.rise} MB, {memory.kept} MB of it kept")
    assert made.images[0].shape == (64, 64, 3) and previews > 0
    assert memory.kept < 250
    assert difference(webui.txt2img(enable_hr=False).images[0], plain.images[0]) == 0


def interrupted(webui: Webui, **request: Any) -> tuple[Made, int]:
    """What comes of a request that is interrupted in the last of three stages, and how many previews were seen."""
    made: list[Made] = []
    work = threading.Thread(target=lambda: made.append(webui.txt2img(**request)))
    work.start()
    previews, until = 0, time.monotonic() + 300
    while time.monotonic() < until:
        progress = webui.get("/sdapi/v1/progress")
        state = progress["state"]
        previews += bool(progress["current_image"]) and state["sampling_steps"] == 300
        if state["sampling_steps"] == 300 and state["sampling_step"] >= 203:
            break
        time.sleep(0.05)
    webui.post("/sdapi/v1/interrupt")
    work.join(60)
    assert made, "the host did not stop"
    return made[0], previews


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (accordion("nothing"), "There is no model 'nothing'; choose one of sd15-x2,"),
        (accordion("Automatic", 2000), "The noise step is 0 to 999, or -1 for the model's own, but it is 2000."),
        (accordion("Automatic", -1, "midpoint") | {"hr_second_pass_steps": 3}, "so nfe=3 does not fit; take 2 or 4."),
        (accordion("Automatic", -1, "euler", "psu", "huge"), "auto, off or a whole number"),
        (
            {"hr_scale": 0.5},
            "FMBoost only enlarges: 32x32 is smaller than the 64x64 that came in; choose a larger size.",
        ),
        ({"hr_upscaler": "FMBoost 2x (sub/vanishing)"}, "vanishing.safetensors"),
        (behind("nothing"), "There is no upscaler 'nothing' here; choose one of Automatic, None, "),
        (
            behind(BROKEN_UPSCALER),
            f"The upscaler {BROKEN_UPSCALER} did not enlarge the image; choose one that enlarges",
        ),
    ],
)
def test_a_mistake_reaches_the_user_and_leaves_the_host_as_it_was(
    webui: Webui, plain: Made, request_: dict[str, Any], sentence: str
) -> None:
    (webui.base / "models/fmboost/sub/vanishing.safetensors").unlink(missing_ok=True)
    with pytest.raises(Refused) as refused:
        webui.txt2img(**request_)
    assert sentence in str(refused.value)
    assert difference(webui.txt2img(enable_hr=False).images[0], plain.images[0]) == 0


def plotted(webui: Webui, x: tuple[str, str, list[str]], y: tuple[str, str, list[str]], count: int) -> Made:
    """The images of an X/Y/Z plot. x, y: an axis's name with its values as text, or as choices."""
    scripts = webui.get("/sdapi/v1/script-info")
    plot = next(s for s in scripts if s["name"] == "x/y/z plot" and not s["is_img2img"])
    axes = next(arg["choices"] for arg in plot["args"] if arg["label"] == "X type")
    values = [arg["value"] for arg in plot["args"]]
    values[:9] = [axes.index(x[0]), *x[1:], axes.index(y[0]), *y[1:], 0, "", []]
    labels = [arg["label"] for arg in plot["args"]]
    values[labels.index("Include Sub Images")] = True
    # Forge's own pass wants to be told this through the API; ours does without.
    forges = {"hr_additional_modules": ["Use same choices"]} if webui.is_forge else {}
    made = webui.txt2img(script_name="x/y/z plot", script_args=values, **forges)
    return Made(made.images[-count:], made.infotexts[-count:])


def test_an_xyz_plot_over_evaluations_beside_another_upscaler(webui: Webui, usual: Made) -> None:
    made = plotted(webui, ("[FMBoost] Evaluations", "1, 4", []), ("Hires upscaler", "", ["FMBoost 2x", "Latent"]), 4)
    one, four, latent_one, latent_four = made.images
    assert difference(one, usual.images[0]) <= 1  # the default model takes one
    assert min(difference(one, four), difference(latent_four, four), difference(latent_one, one)) > 10
    texts = made.infotexts
    assert ["FMBoost model" in text for text in texts] == [True, True, False, False], texts


def test_an_xyz_plot_over_upscale_models(webui: Webui, usual: Made) -> None:
    made = plotted(webui, ("[FMBoost] Upscale model", "", ["None", UPSCALER]), ("Nothing", "", []), 2)
    assert difference(made.images[0], usual.images[0]) <= 1 and is_even(made.images[1], usual.images[0])
    texts = made.infotexts
    assert [f"FMBoost upscale model: {UPSCALER}" in text for text in texts] == [False, True], texts


def test_an_image_in_extras_is_as_on_the_command_line(webui: Webui) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
    path, out = webui.base / "image.png", webui.base / "line.png"
    image.save(path)
    request = {"image": as_text(np.asarray(image)), "upscaling_resize": 3, "upscaler_1": "FMBoost picture"}
    made = webui.post("/sdapi/v1/extra-single-image", request, 300)
    command = [sys.executable, "-m", "fmboost_core", "upscale", path, out, "--scale", 3]
    subprocess.run(list(map(str, command)), cwd=PACK, check=True, capture_output=True)
    assert difference(pixels_of(made["image"]), np.asarray(Image.open(out)).astype(np.int64)) <= 2
    request["upscaler_1"] = "FMBoost picture (checkpoint's VAE)"
    assert pixels_of(webui.post("/sdapi/v1/extra-single-image", request, 300)["image"]).shape == (192, 288, 3)


def test_extras_work_behind_the_upscaler_of_a_setting(webui: Webui) -> None:
    """At once, although the host keeps what Extras has made of an image."""
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.int64)
    request = {"image": as_text(image), "upscaling_resize": 2}

    def made(upscaler: str, entry: str = "FMBoost picture") -> Pixels:
        webui.post("/sdapi/v1/options", {"fmboost_extras_upscale_model": upscaler})
        return pixels_of(webui.post("/sdapi/v1/extra-single-image", request | {"upscaler_1": entry}, 300)["image"])

    try:
        for entry in ("FMBoost picture", "FMBoost picture (checkpoint's VAE)"):
            plain, large = made("None", entry), made(UPSCALER, entry)
            assert large.shape == (128, 192, 3) and difference(large, plain) > 5
            assert difference(made("None", entry), plain) == 0
    finally:
        webui.post("/sdapi/v1/options", {"fmboost_extras_upscale_model": "Automatic"})
