"""Degradations: repeated exactly from seed and JSON, exact in size, and each step's effect."""

import itertools
import json
import math
import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fmboost_core.errors import ConfigError, ImageError, MissingDependencyError
from fmboost_core.training.data.degradation_steps import (
    FILTERS,
    Blur,
    GaussianNoise,
    Jpeg,
    PoissonNoise,
    Resize,
    Step,
)
from fmboost_core.training.data.degrade import Degradation, degrade, plan

PHOTO = Image.fromarray(data.astronaut()).crop((128, 0, 384, 256))


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


def flat(value: int, side: int = 200) -> Image.Image:
    return Image.new("RGB", (side, side), (value,) * 3)


def gradient(image: Image.Image, axis: int | None = None) -> float:
    """Mean absolute difference of neighbours, along one axis or both."""
    return float(
        np.mean([np.abs(np.diff(values(image), axis=k)).mean() for k in ((0, 1) if axis is None else (axis,))])
    )


def test_a_seed_and_its_json_make_the_same_image_again() -> None:
    seen = set()
    for seed in range(6):
        degradation = plan(seed, 4)
        image = degrade(PHOTO, 4, degradation)
        text = degradation.as_json()
        again = Degradation.from_json(json.loads(json.dumps(text)))
        assert again == degradation == plan(seed, 4) and again.as_json() == text
        assert degrade(PHOTO, 4, again).tobytes() == image.tobytes()
        seen.add(image.tobytes())
    assert len(seen) == 6


def test_the_size_is_exact() -> None:
    sizes = ((64, 64), (67, 101), (131, 39), (5, 4), (49, 98))
    for seed, (size, scale) in enumerate(itertools.product(sizes, (1, 2, 4))):
        out = degrade(PHOTO.resize(size), scale, plan(seed, scale))
        assert out.size == (size[0] // scale, size[1] // scale) and out.mode == "RGB"
    assert degrade(PHOTO, 3, Degradation(())).size == (85, 85)
    assert degrade(PHOTO.convert("L"), 2, plan(0, 4)).size == (128, 128)


def test_plans_reach_the_size_by_themselves() -> None:
    """So that nothing is interpolated again after the last JPEG."""
    for seed in range(100):
        by = [step.by for step in plan(seed, 3).steps if isinstance(step, Resize)]
        assert len(by) == 2 and 1 <= by[0] <= 3 and by[1] == 3


def test_all_orders_and_kinds_occur() -> None:
    plans = [plan(seed, 4).steps for seed in range(3000)]
    noises = (GaussianNoise, PoissonNoise)
    orders = {tuple("noise" if isinstance(s, noises) else type(s).__name__ for s in steps[:6]) for steps in plans}
    assert len(orders) == math.factorial(6) // 4  # two blurs and two resizings
    steps = [step for steps in plans for step in steps]
    assert {step.filter for step in steps if isinstance(step, Resize)} == set(FILTERS)
    for kind in noises:
        assert {step.grey for step in steps if isinstance(step, kind)} == {True, False}
    blurs = [step for step in steps if isinstance(step, Blur)]
    assert sum(blur.along == blur.across for blur in blurs) == pytest.approx(len(blurs) / 2, rel=0.01)
    assert max(max(blur.along, blur.across) for blur in blurs) <= math.sqrt(8)
    qualities = [step.quality for step in steps if isinstance(step, Jpeg)]
    assert (min(qualities), max(qualities)) == (30, 95) and len(qualities) == pytest.approx(4500, rel=0.05)


def test_a_kernel_has_its_covariance() -> None:
    kernel = Blur(2.5, 1.2, 0.6).kernel()
    reach = kernel.shape[0] // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    turn = np.array([[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]])
    expected = turn @ np.diag([2.5**2, 1.2**2]) @ turn.T
    found = [[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)]
    assert kernel.sum() == pytest.approx(1) and np.allclose(found, expected, rtol=0.02, atol=0.02)


def test_blur_lowers_the_gradient_along_its_axis_and_keeps_the_mean() -> None:
    steps = [gradient(Blur(sigma, sigma).apply(PHOTO)) for sigma in (0.1, 0.6, 1.2, 2.8)]
    assert steps[0] == gradient(PHOTO) and steps == sorted(steps, reverse=True) and steps[-1] < 0.5 * steps[0]
    sand = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8))
    wide, tall = (Blur(3, 0.1, angle).apply(sand) for angle in (0, math.pi / 2))
    assert gradient(wide, axis=1) < 0.2 * gradient(wide, axis=0)
    assert gradient(tall, axis=0) < 0.2 * gradient(tall, axis=1)
    assert values(Blur(2, 1).apply(PHOTO)).mean() == pytest.approx(values(PHOTO).mean(), abs=0.5)
    assert set(values(Blur(2, 1, 1).apply(flat(77))).ravel()) == {77}
    assert Blur(9, 9).apply(PHOTO.resize((1, 2))).size == (1, 2)


@pytest.mark.parametrize("grey", [True, False])
def test_noise_has_its_variance(grey: bool) -> None:
    rounding = 1 / 12
    for step, variance in (
        (GaussianNoise(6, grey, 1), 36),
        (GaussianNoise(20, grey, 2), 400),
        (PoissonNoise(500, grey, 3), 128 / 255 / 500 * 255**2),  # mean photons / photons^2, in 255ths
    ):
        noise = values(step.apply(flat(128))) - 128
        assert noise.mean() == pytest.approx(0, abs=0.3)
        assert noise.var() == pytest.approx(variance + rounding, rel=0.03)
        same = np.abs(noise[..., 0] - noise[..., 1]).max() == 0
        assert same == grey and len({step.apply(flat(128)).tobytes() for _ in range(2)}) == 1


def test_shot_noise_grows_with_the_light() -> None:
    dark, bright = (values(PoissonNoise(500, False, 0).apply(flat(v))).var() for v in (40, 160))
    assert bright / dark == pytest.approx(4, rel=0.05)
    assert set(values(PoissonNoise(100, False, 0).apply(flat(0))).ravel()) == {0}


def test_jpeg_is_the_worse_the_lower_its_quality() -> None:
    errors = [np.square(values(Jpeg(q).apply(PHOTO)) - values(PHOTO)).mean() for q in (95, 75, 50, 30)]
    assert errors == sorted(errors) and 0 < errors[0] < 0.5 * errors[-1]


def test_resizing_counts_from_the_photograph() -> None:
    half = Resize(2.0, "box").apply(PHOTO, PHOTO.size)
    assert half.size == (128, 128) and Resize(2.0, "bicubic").apply(half, PHOTO.size).size == (128, 128)
    mean = values(PHOTO).reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(values(half) - mean).max() <= 1  # two roundings


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "no list of degradation steps"),
        ("7", "no list of degradation steps"),
        ('["blur"]', "no list of degradation steps"),
        ('{"step": "jpeg"}', "no list of degradation steps"),
        ("[" * 100_000, "no list of degradation steps"),
        ("[{}]", "no degradation step None; the steps are blur, resize, gaussian, poisson, jpeg"),
        ('[{"step": "sharpen"}]', "no degradation step 'sharpen'"),
        ('[{"step": ["jpeg"]}]', "no list of degradation steps"),
        ('[{"step": "jpeg"}]', "missing 1 required positional argument: 'quality'"),
        ('[{"step": "jpeg", "quality": 50, "more": 1}]', "unexpected keyword argument 'more'"),
        ('[{"step": "jpeg", "quality": "50"}]', "from 1 to 100, but it is '50'"),
        ('[{"step": "jpeg", "quality": 50.5}]', "whole number"),
        ('[{"step": "blur", "along": NaN, "across": 1}]', "along must be a number from 0.01 to 100, but it is nan"),
        ('[{"step": "resize", "by": 2, "filter": "magic"}]', "box, bilinear, bicubic or lanczos, but it is 'magic'"),
        ('[{"step": "gaussian", "sigma": -1, "grey": true, "seed": 0}]', "from 0 to 255, but it is -1"),
        ('[{"step": "gaussian", "sigma": 1, "grey": "no", "seed": 0}]', "grey must be true or false, but it is 'no'"),
        ('[{"step": "poisson", "photons": 100, "grey": true, "seed": 1.5}]', "seed must be a whole number"),
    ],
)
def test_bad_json_is_a_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Degradation.from_json(text)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_impossible_wishes_are_sentences() -> None:
    for bad in (-1, 1.5, True):
        with pytest.raises(ConfigError, match="seed must be a whole number"):
            plan(bad, 4)
    for bad in (0, 65, 2.0):
        with pytest.raises(ConfigError, match="whole number from 1 to 64"):
            plan(0, bad)
    with pytest.raises(ImageError, match="3x256 is too small to be reduced by 4"):
        degrade(PHOTO.crop((0, 0, 3, 256)), 4, plan(0, 4))


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(MissingDependencyError, match="pip install scipy"):
        degrade(PHOTO, 4, plan(0, 4))


@pytest.mark.parametrize("step", [Blur(1, 2), Resize(2.0, "box"), Jpeg(50)])
def test_steps_are_values(step: Step) -> None:
    assert hash(step) == hash(Degradation.from_json(Degradation((step,)).as_json()).steps[0])
