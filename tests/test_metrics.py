"""Metrics and intervals: published code, closed forms, the order of more and less harm, refusals."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmboost_core.errors import CheckpointError, ConfigError, ImageError, LatentError, MissingDependencyError
from fmboost_core.evaluation.clip import load_clip
from fmboost_core.evaluation.features import Patches, features, frechet, load_feature_network
from fmboost_core.evaluation.statistics import Interval, bootstrap, paired_bootstrap
from fmboost_core.metrics import lpips
from fmboost_core.metrics.fidelity import gmsd, haarpsi, latent_mse
from fmboost_core.metrics.image_metrics import FUNCTIONS, measure
from fmboost_core.metrics.meanings import DEFAULT_METRICS, METRICS, Meaning
from fmboost_core.metrics.texture import colour_shift, spectrum, swd


def scene(height: int = 64, width: int = 96) -> Tensor:
    """An image with structure and texture, the same on every machine."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    base = torch.stack([torch.sin(9 * x + 4 * y * y), torch.cos(14 * x * y), torch.sin(25 * (x - y))]) * 0.6
    return (base + 0.15 * torch.sin(71 * x + 40 * y) * torch.cos(83 * y - 30 * x)).clamp(-1, 1)[None]


def faded(image: Tensor) -> Tensor:
    """With less contrast and an added pattern."""
    height, width = image.shape[-2:]
    pattern = torch.cos(torch.arange(height)[:, None] * 1.3) * torch.sin(torch.arange(width) * 0.9 + 1)
    return (image * 0.9 + 0.1 * pattern).clamp(-1, 1)


def blurred(image: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(image, size, 1, size // 2, count_include_pad=False)


def noisy(image: Tensor, amount: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + amount * noise).clamp(-1, 1)


def test_equal_images_are_perfect_by_every_metric() -> None:
    best = {"higher": {"psnr": 120.0, "ssim": 1.0, "haarpsi": 1.0}, "lower": 0.0, "zero": 0.0, "one": 1.0}
    for name, value in measure(scene(), scene(), DEFAULT_METRICS).items():
        wanted = best[METRICS[name].better]
        assert value == pytest.approx(wanted[name] if isinstance(wanted, dict) else wanted, abs=1e-6), name


@pytest.mark.parametrize("harm", [lambda x, i: blurred(x, 2 * i + 1), lambda x, i: noisy(x, 0.04 * i)])
def test_more_blur_and_more_noise_are_worse(harm: Callable[[Tensor, int], Tensor]) -> None:
    image = noisy(scene(), 0.05)  # all frequencies have power, so that blur takes some from each
    names = ["psnr", "ssim", "mse", "gmsd", "haarpsi", "swd", "spectrum", "detail"]
    measured = [measure(harm(image, i), image, names) for i in range(4)]
    for name in names:
        losses = [METRICS[name].loss(figures[name]) for figures in measured]
        assert losses == sorted(losses) and losses[0] < losses[1], name


def test_mirrored_images_measure_alike() -> None:
    image, reference = noisy(scene(), 0.1), scene()
    mirrored = measure(image.flip(-1), reference.flip(-1), DEFAULT_METRICS)
    # Both papers' even-sized wavelets and the patches' stride of 3 are not quite symmetric.
    assert measure(image, reference, DEFAULT_METRICS) == pytest.approx(mirrored, rel=0.02)


@pytest.mark.parametrize("size", [(64, 96), (61, 97)])
def test_published_code_agrees(size: tuple[int, int]) -> None:
    """HaarPSI by its authors' numpy code (rgcda/haarpsi); GMSD by piq 0.8 with N - 1 for N, as in the authors' code."""
    expected = {(64, 96): (0.9159118408, 0.0089593528), (61, 97): (0.9238158510, 0.0087893213)}[size]
    reference = scene(*size)
    assert haarpsi(faded(reference), reference) == pytest.approx(expected[0], abs=1e-6)
    assert gmsd(faded(reference), reference) == pytest.approx(expected[1], abs=1e-6)


def test_psnr_mse_and_colour_are_their_closed_forms() -> None:
    reference = scene() * 0.5
    shift = torch.tensor([0.1, -0.2, 0.0]).view(1, 3, 1, 1)
    values = measure(reference + shift, reference, ["psnr", "mse", "colour", "red"])
    assert values["mse"] == pytest.approx(0.05 / 3, rel=1e-5)
    assert values["psnr"] == pytest.approx(10 * math.log10(4 * 3 / 0.05), rel=1e-5)
    assert values["colour"] == pytest.approx(0.2 * 127.5, rel=1e-5) and values["red"] == pytest.approx(12.75, rel=1e-5)
    assert colour_shift(reference + shift, reference) == pytest.approx((12.75, -25.5, 0.0), abs=1e-4)


def test_detail_is_the_gradient_s_ratio() -> None:
    assert measure(scene() * 0.5, scene(), ["detail"])["detail"] == pytest.approx(0.5, rel=1e-4)
    flat = torch.zeros(1, 3, 32, 32)
    assert measure(flat, flat, ["detail"])["detail"] == 1.0


def test_spectrum_is_the_power_ratio_of_white_noise_in_db() -> None:
    white = torch.randn(1, 3, 128, 96, generator=torch.Generator().manual_seed(0)) * 0.2
    assert spectrum(white * 0.5, white) == pytest.approx(20 * math.log10(2), abs=0.01)
    assert spectrum(-white, white) == 0.0


def test_swd_ignores_where_the_texture_is() -> None:
    """A shifted image has the same patches and other pixels."""
    white = torch.randn(1, 3, 126, 126, generator=torch.Generator().manual_seed(0)) * 0.2
    moved = white.roll((60, 60), (2, 3))
    assert swd(moved, white) < 0.1 * swd(white * 0.5, white)


def test_black_and_flat_images_have_finite_figures() -> None:
    black, grey = -torch.ones(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    for a, b in ((black, black), (black, grey), (grey, black)):
        assert all(map(math.isfinite, measure(a, b, DEFAULT_METRICS).values()))


def test_a_ratio_s_loss_is_its_distance_from_one() -> None:
    detail = METRICS["detail"]
    assert detail.loss(0.9) == pytest.approx(detail.loss(1.1)) and detail.loss(1.0) == 0
    assert METRICS["psnr"].loss(30) < METRICS["psnr"].loss(29) and METRICS["red"].loss(-2) == 2
    with pytest.raises(ConfigError, match="better must be one of higher, lower, one, zero, but it is 'most'"):
        Meaning("most", "", "")


def test_latent_error_is_the_mean_square() -> None:
    assert latent_mse(torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)) == 1.0
    with pytest.raises(LatentError, match=r"\(1, 4, 2, 2\) and the reference latent \(1, 4, 2, 3\)"):
        latent_mse(torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 3))


def test_what_cannot_be_measured_is_refused() -> None:
    image = scene()
    with pytest.raises(ConfigError, match=r"no metric psrn; choose from psnr, ssim, .*lpips\.$"):
        measure(image, image, ["psrn"])
    with pytest.raises(ConfigError, match="no metric given"):
        measure(image, image, [])
    with pytest.raises(ImageError, match="96x64 and its reference 64x96; only equal sizes compare"):
        measure(image, image.transpose(-1, -2), ["mse"])
    with pytest.raises(ImageError, match="15x64; metrics need at least 16 pixels"):
        measure(image[..., :15], image[..., :15], ["mse"])
    with pytest.raises(ImageError, match="NaN or infinity"):
        measure(image * torch.nan, image, ["mse"])
    with pytest.raises(ImageError, match=r"must be \(1, 3, height, width\), but it is \(2, 3, 64, 96\)"):
        measure(image.repeat(2, 1, 1, 1), image, ["mse"])


def test_every_metric_has_a_function() -> None:
    assert list(FUNCTIONS) == list(METRICS)


def test_the_smallest_image_has_all_figures() -> None:
    assert set(measure(scene(16, 16), scene(16, 16), DEFAULT_METRICS)) == set(DEFAULT_METRICS)


def test_without_torchmetrics_the_rest_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.functional.image", None)
    assert measure(scene(), scene(), ["gmsd", "swd"])
    with pytest.raises(MissingDependencyError, match="pip install torchmetrics"):
        measure(scene(), scene(), ["ssim"])


# --- features and CLIP


class Moments(nn.Module):
    """Eight features of an image of any size: means and deviations of colours and gradients."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() / 255
        edges = x.diff(dim=-1).abs().mean((2, 3))
        return torch.cat([x.mean((2, 3)), x.std((2, 3)), edges[:, :2]], dim=1)


class Switched(nn.Module):
    """As NVIDIA's file: classes, unless features are asked for."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        found = x.float().mean((2, 3))
        return found if return_features else found.sum(1, keepdim=True)


def images(count: int, seed: int, amount: float = 0.3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(1, 3, 32, 32, generator=generator) * amount * (i + 1) / count).clamp(-1, 1) for i in range(count)
    ]


def test_fid_of_a_set_and_itself_is_nothing() -> None:
    found = features(Moments(), torch.cat(images(12, 0)))
    assert frechet(found, found) < 1e-6
    assert frechet(found, features(Moments(), torch.cat(images(12, 0, 0.6)))) > 1e-3


def test_fid_of_gaussians_is_the_closed_form() -> None:
    """|m1-m2|^2 + Tr(C1 + C2 - 2 sqrt(C1 C2)), with sqrt(C1 C2) from SciPy."""
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5)) + 1
    b = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    product = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = mean + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * product)
    assert frechet(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-8)


def test_patch_fid_of_whole_images_is_fid() -> None:
    whole = Patches(count=1, side=32)
    sets = [images(10, 0), images(10, 1, 0.5)]
    fid = frechet(*(features(Moments(), torch.cat(s)) for s in sets))
    crops = [torch.cat([whole.cut(x, str(i)) for i, x in enumerate(s)]) for s in sets]
    assert fid == frechet(*(features(Moments(), c) for c in crops))


def test_patches_are_seeded_and_the_same_in_both_sets() -> None:
    patches, index = Patches(5, 8), torch.arange(3.0 * 20 * 30).view(1, 3, 20, 30)
    crops = patches.cut(index, "a")
    assert crops.shape == (5, 3, 8, 8) and torch.equal(crops, patches.cut(index, "a"))
    assert not torch.equal(crops, patches.cut(index, "b"))
    assert not torch.equal(crops, Patches(5, 8, seed=1).cut(index, "a"))
    assert torch.equal(Patches(400, 19).cut(index, "a")[:, 0, 0, 0].unique().remainder(30).unique(), torch.arange(12.0))
    with pytest.raises(ImageError, match="30x20 has no patches of 21"):
        Patches(5, 21).cut(index, "a")
    with pytest.raises(ConfigError, match="count of the patches must be a whole number above 0, but it is 0"):
        Patches(count=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_files_are_feature_networks(tmp_path: Path) -> None:
    path = tmp_path / "moments.pt"
    torch.jit.script(Moments()).save(str(path))
    batch = torch.cat(images(3, 0))
    assert torch.equal(features(load_feature_network(path), batch), features(Moments(), batch))
    torch.jit.script(Switched()).save(str(path))
    assert features(load_feature_network(path), batch).shape == (3, 3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_bad_feature_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt does not exist; FID needs a TorchScript file"):
        load_feature_network(tmp_path / "nowhere.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(CheckpointError, match=r"text\.pt is no TorchScript file"):
        load_feature_network(tmp_path / "text.pt")
    with pytest.raises(ConfigError, match=r"must give \(images, features\), but this one gives \(2, 3, 32, 32\)"):
        features(nn.Identity(), torch.cat(images(2, 0)))
    with pytest.raises(ConfigError, match="at least two features of one width"):
        frechet(torch.zeros(1, 4), torch.zeros(3, 4))


def test_clip_from_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save_tiny_clip(tmp_path)
    clip = load_clip(str(tmp_path))
    black, white = -torch.ones(1, 3, 40, 40), torch.ones(1, 3, 40, 40)
    assert 0 <= clip.score(white, "a photo") <= 100
    qualities = [clip.quality(x) for x in (black, white, scene(40, 40))]
    assert all(0 <= q <= 1 for q in qualities) and len(set(qualities)) == 3, qualities


def save_tiny_clip(folder: Path) -> None:
    """A CLIP of random weights whose words are letters."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = [*"abcdefghijklmnopqrstuvwxyz.", *(c + "</w>" for c in "abcdefghijklmnopqrstuvwxyz.")]
    words = ["<|startoftext|>", "<|endoftext|>", *letters]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=24)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = layers | {"vocab_size": len(words), "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    vision = layers | {"image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


def test_bad_clips_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="is no folder with a CLIP model; a model of the hub is named hf://"):
        load_clip("openai/clip-vit-base-patch16")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"CLIP needs transformers .*: pip install transformers"):
        load_clip(str(tmp_path))


def test_an_empty_folder_is_no_clip(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="has no CLIP model that transformers can load"):
        load_clip(str(tmp_path))


def test_lpips_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lpips.load_network.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"LPIPS needs torchvision .*: pip install torchvision"):
        measure(scene(), scene(), ["lpips"])
    monkeypatch.setitem(__import__("sys").modules, "torchvision", nn)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError, match=r"LPIPS needs AlexNet's weights: put download\.pytorch\.org"):
        measure(scene(), scene(), ["lpips"])


# --- statistics


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        interval = bootstrap(rng.normal(3, 2, 40).tolist(), resamples=400, seed=trial)
        hits += interval.low <= 3 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(0, 1, 400)
    interval = bootstrap(values.tolist())
    assert interval.mean == pytest.approx(values.mean()) and interval.count == 400
    assert interval.half_width == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert bootstrap(values.tolist(), level=0.5).half_width == pytest.approx(0.674 * values.std() / 20, rel=0.15)


def test_bootstrap_is_deterministic_and_seeded() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 9.0, 12.0, 20.0]
    assert bootstrap(values) == bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap([5.0]) == Interval(5.0, 5.0, 5.0, 1)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    whole = bootstrap(values)
    monkeypatch.setattr("fmboost_core.evaluation.statistics._BLOCK", 100)
    assert bootstrap(values) == whole


def test_pairs_cancel_the_photographs_difficulty() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, 50)
    a, b = difficulty + 0.5 + rng.normal(0, 0.1, 50), difficulty
    paired = paired_bootstrap(a.tolist(), b.tolist())
    assert paired.low > 0.4 and paired.high < 0.6 < bootstrap(a.tolist()).half_width
    with pytest.raises(ConfigError, match="there are 2 and 3"):
        paired_bootstrap([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap([]), "at least one value"),
        (lambda: bootstrap([1.0, math.nan]), "finite numbers"),
        (lambda: bootstrap([1.0], level=1.0), "level must be between 0 and 1, but it is 1.0"),
        (lambda: bootstrap([1.0], resamples=0), "resamples must be a whole number above 0, but it is 0"),
        (lambda: Interval(1, 2, 0, 1), "it is 2 to 0"),
        (lambda: Interval(1, 0, 2, 0), "count must be a whole number above 0, but it is 0"),
    ],
)
def test_impossible_statistics_are_refused(call: Callable[[], Interval], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
