"""Training objectives, on Gaussians whose best prediction, least loss and exact map are known; distances as losses."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fmboost_core.errors import ConfigError
from fmboost_core.metrics.distances import (
    STRIP,
    coarse_error,
    colour_planes,
    directions,
    laplacian,
    laplacian_patches,
    line_distance,
    overshoot,
    sliced_distance,
    texture_distance,
)
from fmboost_core.sampling.schedule import alpha_bar
from fmboost_core.training.losses import BUILDERS, make_objective
from fmboost_core.training.losses.decoded import Decoded
from fmboost_core.training.losses.diffusion import Diffusion
from fmboost_core.training.losses.flow_matching import CouplingFlow, NaiveFlow
from fmboost_core.training.losses.objective import Examples, Objective, Predict, uniform_times
from fmboost_core.training.losses.reflow import Reflow
from fmboost_core.training.losses.regression import Regression
from fmboost_core.training.losses.weighted import WeightedDistance
from fmboost_core.training.sections import OBJECTIVE_NAMES, ObjectiveSection

MEAN, STD = 0.7, 0.5  # of the data
SIGNAL = alpha_bar(400)
COUNT = 4000


def wide(t: Tensor) -> Tensor:
    return t.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Gaussians:
    """Independent x0 ~ N(first, start²) and x1 ~ N(last, end²), and the line between them, thickened by sigma."""

    first: Tensor | float
    start: float
    last: Tensor | float
    end: float
    sigma: float = 0.0

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Covariance of x1 - x0 with x_t, and the variance of x_t."""
        return t * self.end**2 - (1 - t) * self.start**2, (t * self.end) ** 2 + (
            (1 - t) * self.start
        ) ** 2 + self.sigma**2

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x1 - x0 | x_t = x]."""
        covariance, variance = self.moments(t)
        mean = (1 - t) * self.first + t * self.last
        return self.last - self.first + covariance / variance * (x - mean)

    def least_loss(self) -> float:
        """The mean over t of Var[x1 - x0 | x_t], which no prediction can go below."""
        covariance, variance = self.moments((torch.arange(10_000).double() + 0.5) / 10_000)
        return float((self.start**2 + self.end**2 - covariance**2 / variance).mean())


def examples(high_of: Callable[[Tensor, Tensor], Tensor], t: Tensor | None = None) -> Examples:
    """`COUNT` of them, from standard normal guides; high_of(guide, other noise); evenly spaced times."""
    generator = torch.Generator().manual_seed(0)
    guide, own, *noises = torch.randn(4, COUNT, 4, 4, 4, generator=generator)
    times = (torch.arange(COUNT) + 0.5) / COUNT if t is None else t
    kinds, signals = torch.zeros(COUNT, dtype=torch.long), torch.full((COUNT,), SIGNAL)
    noise, seeds = torch.stack(noises, dim=1), torch.arange(COUNT)
    high = high_of(guide, own)
    return Examples(high, guide, kinds, signals, noise, times, seeds, high)


def coupled(guide: Tensor, sigma: float = 0.0) -> Gaussians:
    """CFM's, for data at STD around guide + MEAN."""
    return Gaussians(SIGNAL**0.5 * guide, (1 - SIGNAL) ** 0.5, guide + MEAN, STD, sigma)


CLOSED_FORMS = {
    "fm": (NaiveFlow(0.0), lambda g, e: MEAN + STD * e, lambda g: Gaussians(0.0, 1.0, MEAN, STD)),
    "cfm": (CouplingFlow(SIGNAL), lambda g, e: g + MEAN + STD * e, coupled),
    "cfm, sigma": (CouplingFlow(SIGNAL, 0.4), lambda g, e: g + MEAN + STD * e, lambda g: coupled(g, 0.4)),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_true_velocity_has_the_least_loss_and_others_their_distance_more(name: str) -> None:
    objective, high_of, gaussians = CLOSED_FORMS[name]
    drawn = examples(high_of)

    def loss(disturbance: Callable[[Tensor], Tensor | float]) -> float:
        return float(objective.loss(lambda x, t, g: gaussians(g).velocity(x, wide(t)) + disturbance(x), drawn))

    least = loss(lambda x: 0.0)
    assert least == pytest.approx(gaussians(torch.zeros(1)).least_loss(), rel=0.02)
    assert loss(lambda x: 0.3) - least == pytest.approx(0.09, abs=0.01)
    assert loss(lambda x: 0.3 * torch.sign(x - 1)) - least == pytest.approx(0.09, abs=0.01)


def test_the_least_loss_of_naive_flow_matching_is_half_a_circle_s() -> None:
    """The integral of s²/(t² s² + (1-t)²) is pi s / 2."""
    assert Gaussians(0.0, 1.0, MEAN, STD).least_loss() == pytest.approx(math.pi * STD / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "end"), [("fm", lambda g, z: MEAN + STD * z), ("cfm", lambda g, z: g + MEAN + STD * z)]
)
def test_the_true_velocity_carries_one_gaussian_to_the_other(
    name: str, end: Callable[[Tensor, Tensor], Tensor]
) -> None:
    objective, _, gaussians = CLOSED_FORMS[name]
    guide, noise = torch.randn(2, 8, 4, 4, 4, generator=torch.Generator().manual_seed(1))

    def error(nfe: int, solver: str) -> float:
        def velocity(x: Tensor, t: Tensor, g: Tensor) -> Tensor:
            return gaussians(g).velocity(x, wide(t))

        return float((objective.sample(velocity, guide, noise, nfe, solver) - end(guide, noise)).abs().max())

    assert error(200, "rk4") < 1e-4
    assert error(80, "euler") / error(160, "euler") == pytest.approx(2, abs=0.3)


def test_sigma_min_keeps_a_little_of_the_noise_at_the_end_of_naive_flow_matching() -> None:
    seen: list[Tensor] = []
    drawn = examples(lambda g, e: 0 * e, t=torch.ones(COUNT))

    def truth(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        seen.append(x)
        return -0.9 * drawn.noise[:, 0]

    assert NaiveFlow(0.1).loss(truth, drawn) < 1e-12
    assert seen[0].std() == pytest.approx(0.1, rel=0.02)


def test_coupling_flow_learns_the_trajectory_from_the_noised_guide() -> None:
    """Where the guide decides the data, the loss of the true velocity is 0."""
    drawn = examples(lambda g, e: g + 1)

    def truth(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        start = SIGNAL**0.5 * guide + (1 - SIGNAL) ** 0.5 * drawn.noise[:, 0]
        assert torch.allclose(x, (1 - wide(t)) * start + wide(t) * drawn.high, atol=1e-5)
        return drawn.high - start

    assert CouplingFlow(SIGNAL).loss(truth, drawn) < 1e-10


# --- diffusion


def epsilon(x: Tensor, step: Tensor, guide: Tensor) -> Tensor:
    """E[noise | x] for data of MEAN and STD, at steps 0 to 999."""
    a = wide(torch.tensor([alpha_bar(int(s)) for s in step]))
    return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)


def test_the_true_noise_has_the_least_loss_of_a_diffusion_model() -> None:
    steps = torch.arange(COUNT) % 999 + 1
    drawn = examples(lambda g, e: MEAN + STD * e, t=steps / 1000)
    signals = torch.tensor([alpha_bar(int(s)) for s in steps])
    least = (signals * STD**2 / (signals * STD**2 + 1 - signals)).mean()
    loss = Diffusion().loss(epsilon, drawn)
    assert loss == pytest.approx(float(least), rel=0.02)
    worse = Diffusion().loss(lambda x, t, g: epsilon(x, t, g) + 0.3 * torch.sign(x - MEAN), drawn)
    assert worse - loss == pytest.approx(0.09, abs=0.01)


def test_ddim_comes_to_the_probability_flow_s_end_with_order_one() -> None:
    noise = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    last = alpha_bar(999)
    end = MEAN + STD * (noise - last**0.5 * MEAN) / (last * STD**2 + 1 - last) ** 0.5
    errors = [float((Diffusion().sample(epsilon, noise, noise, nfe) - end).abs().max()) for nfe in (37, 111, 333)]
    orders = [math.log(a / b) / math.log(3) for a, b in pairwise(errors)]
    assert errors[-1] < 0.02 and orders == pytest.approx([1, 1], abs=0.2)


def test_ddim_holds_its_estimates_where_a_network_is_wrong() -> None:
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    end = Diffusion().sample(lambda x, t, g: x + 0.1, noise, noise, 4)
    assert torch.isfinite(end).all() and end.abs().max() <= 6


@pytest.mark.parametrize("nfe", [0, 1000, 5000])
def test_a_diffusion_model_refuses_more_steps_than_it_has(nfe: int) -> None:
    noise = torch.zeros(1, 4, 4, 4)
    with pytest.raises(ConfigError, match="nfe must be from 1 to 999"):
        Diffusion().sample(epsilon, noise, noise, nfe)


# --- regression


@pytest.mark.parametrize(("power", "loss"), [(1, 2.0), (2, 5.0)])
def test_regression_s_loss_by_hand(power: int, loss: float) -> None:
    """From guides of 1 to latents of 2 and 4: the distances are 1 and 3."""
    guide, high = torch.ones(2, 1, 1, 1), torch.tensor([2.0, 4.0]).view(2, 1, 1, 1)
    noise = torch.full((2, 2, 1, 1, 1), 99.0)
    drawn = Examples(high, guide, torch.zeros(2), torch.ones(2), noise, *torch.zeros(2, 2), high)
    assert Regression(power).loss(lambda x, t, g: 0 * x, drawn) == loss
    assert Regression(power).loss(lambda x, t, g: high - x, drawn) == 0


def test_regression_is_one_evaluation_from_the_guide_whatever_is_asked() -> None:
    guide, noise = torch.randn(2, 3, 4, 2, 2)
    asked: list[tuple[Tensor, Tensor]] = []

    def predict(x: Tensor, t: Tensor, g: Tensor) -> Tensor:
        asked.append((x, t))
        return 2 * g + 1

    assert torch.allclose(Regression(2).sample(predict, guide, noise, 50), 3 * guide + 1, atol=1e-6)
    assert len(asked) == 1 and torch.equal(asked[0][0], guide) and not asked[0][1].any()


# --- reflow


def turn(x: Tensor) -> Tensor:
    """The velocity 2 i x on pairs of channels: trajectories are circles, and Euler steps are known."""
    return 2 * torch.cat([-x[:, 2:], x[:, :2]], dim=1)


def teacher(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
    return turn(x)


def turned(x: Tensor, length: float, steps: int) -> Tensor:
    for _ in range(steps):
        x = x + turn(x) * length / steps
    return x


@pytest.mark.parametrize("since", [0.0, 0.25])
def test_reflow_rectifies_the_teacher_s_trajectory_after_since(since: float) -> None:
    """With since=0 all of it; with 1/4 all but the first step, which keeps CFM's loss."""
    objective = Reflow(CouplingFlow(SIGNAL), teacher, since, 6)
    drawn = examples(lambda g, e: g + e, objective.times(COUNT, torch.Generator().manual_seed(0)))
    start = SIGNAL**0.5 * drawn.guide + (1 - SIGNAL) ** 0.5 * drawn.noise[:, 0]
    corner = turned(start, since, 1)
    end = turned(corner, 1 - since, 6)
    first = wide(drawn.time == 0) & bool(since)

    def truth(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        line = corner + wide((t - since) / (1 - since)) * (end - corner)
        assert torch.allclose(x, torch.where(first, start, line), atol=1e-4)
        return torch.where(first, drawn.high - start, (end - corner) / (1 - since))

    assert objective.loss(truth, drawn) < 1e-9
    assert objective.loss(lambda x, t, g: turn(x), drawn) > 0.1


def test_one_evaluation_of_a_wholly_rectified_flow_is_the_teacher_s_end() -> None:
    """Where trajectories do not cross, the start decides the velocity of the line."""
    objective = Reflow(CouplingFlow(SIGNAL), teacher, 0.0, 50)
    guide, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    start = SIGNAL**0.5 * guide + (1 - SIGNAL) ** 0.5 * noise
    end = objective.sample(lambda x, t, g: turned(x, 1.0, 50) - x, guide, noise, 1)
    assert torch.allclose(end, turned(start, 1.0, 50), atol=1e-5)


@pytest.mark.parametrize("since", [0.0, 0.25])
def test_reflow_s_times_are_of_three_kinds(since: float) -> None:
    times = Reflow(CouplingFlow(SIGNAL), teacher, since).times(6000, torch.Generator().manual_seed(0))
    fourths = sum((times == k / 4).sum() for k in (1, 2, 3))
    assert (times == 0).sum() / 6000 == pytest.approx(1 / 3, abs=0.03)
    assert fourths / 6000 == pytest.approx(1 / 3, abs=0.03)
    rest = times[(times * 4) % 1 != 0]
    assert rest.min() == pytest.approx(since, abs=0.01) and 0.98 < rest.max() < 1


# --- decoded


def paint(latents: Tensor) -> Tensor:
    """A decoder whose images are known: the first three channels of the latents, eight times as large."""
    return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


IMAGES, NOTHING = WeightedDistance(error=2.0, coarse=1.0, texture=3.0, lines=1.0, mean=150.0), WeightedDistance()


def decoded(images: WeightedDistance = IMAGES, latents: WeightedDistance = NOTHING, **more: float) -> Decoded:
    return Decoded(CouplingFlow(SIGNAL), paint, images, latents, **more)


def test_each_step_of_the_decoded_objective_ends_at_the_ground_truth() -> None:
    """The exact velocity from any state to a latent that the guide decides has no loss."""
    drawn = examples(lambda g, e: 2 * g + 1, decoded().times(COUNT, torch.Generator().manual_seed(0)))
    drawn = Examples(*(x[:200] for x in drawn))  # decoding is slow
    assert 50 < (drawn.time == 0).sum() < 150

    def straight(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        return (2 * guide + 1 - x) / (1 - wide(t))

    objective = decoded(latents=WeightedDistance(error=1.0, mean=1.0))
    assert objective.loss(straight, drawn) < 1e-6
    assert objective.loss(lambda x, t, g: straight(x, t, g) + 0.1, drawn) > 1e-3


def test_the_decoded_objective_follows_the_flow_s_own_trajectory_in_quarters() -> None:
    times = torch.tensor([0.0, 0.25, 0.5, 0.75, 0.4])
    seen: list[Tensor] = []

    def predict(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        seen.append(x)
        return turn(x)

    objective = decoded()
    drawn = Examples(*(x[:5] for x in examples(lambda g, e: g + e)))._replace(time=times)
    objective.loss(predict, drawn)
    start = SIGNAL**0.5 * drawn.guide + (1 - SIGNAL) ** 0.5 * drawn.noise[:, 0]
    for i, (t, steps) in enumerate([(0.0, 1), (0.25, 1), (0.5, 2), (0.75, 3), (0.4, 2)]):
        assert torch.allclose(seen[-1][i], turned(start[i : i + 1], t, steps)[0], atol=1e-5)


def test_the_first_step_of_the_decoded_objective_is_cfm_s() -> None:
    drawn = examples(lambda g, e: g + e, torch.zeros(COUNT))

    def predict(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        return 0.3 * x + guide

    assert decoded().loss(predict, drawn) == pytest.approx(float(CouplingFlow(SIGNAL).loss(predict, drawn)), rel=1e-5)


def test_without_since_the_first_step_is_decoded_too() -> None:
    drawn = Examples(*(x[:64] for x in examples(lambda g, e: g + e, torch.zeros(COUNT))))
    start = SIGNAL**0.5 * drawn.guide + (1 - SIGNAL) ** 0.5 * drawn.noise[:, 0]
    loss = decoded(since=0.0).loss(lambda x, t, g: 2 * g - start, drawn)
    assert loss == pytest.approx(float(IMAGES(paint(2 * drawn.guide), paint(drawn.high)).mean()), rel=1e-5)


def test_a_window_anywhere_in_the_crop_is_decoded() -> None:
    """Borders as often as they are drawn: a picture has borders too, and what is never decoded is not learned."""
    drawn = Examples(*(x[:400] for x in examples(lambda g, e: g, torch.full((COUNT,), 0.5))))
    drawn = drawn._replace(seed=torch.arange(400))
    velocity = torch.zeros(400, 4, 4, 4).requires_grad_()
    objective = decoded(WeightedDistance(error=1.0), window=2)
    objective.loss(lambda x, t, g: velocity + 9, drawn).backward()
    changed = velocity.grad.abs().sum(1) > 0
    assert (changed.flatten(1).sum(1) == 4).all()
    # Nine places: a corner is in one of them, a position inside in four.
    shares = changed.float().mean(0)
    assert torch.allclose(shares[[0, 0, 3, 3], [0, 3, 0, 3]], torch.tensor(1 / 9), atol=0.05)
    assert torch.allclose(shares[1:3, 1:3], torch.tensor(4 / 9), atol=0.08)
    # The same seeds place the same windows in a part of the batch.
    part = velocity.detach()[:5].requires_grad_()
    objective.loss(lambda x, t, g: part + 9, Examples(*(x[:5] for x in drawn))).backward()
    assert torch.equal(part.grad.abs().sum(1) > 0, changed[:5])


def test_informed_losses_see_the_guide_where_the_result_is_seen() -> None:
    drawn = Examples(*(x[:6] for x in examples(lambda g, e: g, torch.full((COUNT,), 0.5))))
    seen: list[Tensor | None] = []

    def perceive(made: Tensor, truth: Tensor, photo: Tensor | None, shown: Tensor | None, seed: Tensor) -> Tensor:
        seen.append(shown)
        return made.mean((1, 2, 3))

    flow = CouplingFlow(SIGNAL)
    for informed in (False, True):
        objective = Decoded(flow, paint, IMAGES, NOTHING, window=4, perceive=perceive, informed=informed)
        objective.loss(lambda x, t, g: x, drawn)
    assert seen[0] is None and torch.equal(seen[1], paint(drawn.guide).clamp(-1, 1))


@pytest.mark.parametrize("channels", [3, 4])  # images and latents
def test_the_distances_that_are_weighted(channels: int) -> None:
    """A constant shift changes error and mean, a stronger contrast the texture; both in closed form."""
    truth = torch.randn(2, channels, 40, 40, generator=torch.Generator().manual_seed(0)) / 4
    shift = WeightedDistance(error=1.0)(truth + 0.2, truth)
    assert torch.allclose(shift, torch.full((2,), 0.04), atol=1e-6)
    assert torch.allclose(WeightedDistance(mean=1.0)(truth + 0.2, truth), shift, atol=1e-6)
    assert WeightedDistance(texture=1.0)(truth + 0.2, truth).max() < 1e-6
    planes = colour_planes(truth) if channels == 3 else truth
    projected = [laplacian_patches(planes[:, [c]], 2) @ directions(32, seed=1) for c in range(planes.shape[1])]
    size = torch.stack([x.abs().mean((1, 2)) for x in projected]).mean(0)
    assert torch.allclose(WeightedDistance(texture=1.0)(1.5 * truth, truth), size / 2, rtol=1e-4)


def test_a_distance_can_be_learned_from_after_a_validation_has_asked_for_it() -> None:
    """What is kept between calls must not be of inference mode."""
    directions.cache_clear()
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        texture_distance(images, images)
    learned = images.clone().requires_grad_()
    texture_distance(learned, images.flip(0)).sum().backward()
    assert learned.grad is not None and learned.grad.abs().sum() > 0


def test_lines_weigh_more_than_texture_of_the_same_power() -> None:
    """A line's sum over a strip of n pixels, divided by sqrt(n), is sqrt(n) times its height; noise keeps its size."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.zeros(1, 1, 64, 64)
    rows = (torch.arange(64) % 4 < 2).float().mul(2).sub(1).view(1, 1, 64, 1).expand(1, 1, 64, 64)  # of power 1
    lines = float(line_distance(plain + rows, plain))
    expected = float(laplacian(rows).abs().mean()) * math.sqrt(STRIP) / 2  # along columns they cancel, but for the ends
    assert lines == pytest.approx(expected, rel=0.1)
    noise = torch.randn(1, 1, 64, 64, generator=generator)
    assert float(line_distance(plain + noise, plain)) < lines / 2
    assert line_distance(rows.mT, plain) == pytest.approx(lines, rel=1e-5)
    assert float(line_distance(rows.roll(1, 2), rows)) < lines / 10  # their place does not count


def test_white_noise_counts_alike_at_each_reduction_and_a_shift_by_its_area() -> None:
    truth = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert coarse_error(truth + noise, truth).tolist() == pytest.approx([3.0] * 3, rel=0.1)
    assert coarse_error(truth + 0.1, truth).tolist() == pytest.approx([0.01 * (4 + 16 + 64)] * 3, rel=1e-4)
    fine = (-1.0) ** (torch.arange(64)[:, None] + torch.arange(64))
    assert float(coarse_error(truth + fine, truth).max()) < 1e-6  # detail that is not coarse may be any


def test_a_recipe_scales_what_counts() -> None:
    plain = make_objective(ObjectiveSection("decoded", decoder="any"), decode=paint)
    scaled = make_objective(
        ObjectiveSection("decoded", decoder="any", texture=2.0, lines=3.0, mean=5.0, coarse=4.0, latents=1.5),
        decode=paint,
    )
    assert isinstance(plain, Decoded) and isinstance(scaled, Decoded)
    a, b = plain.images, scaled.images
    assert (b.error, b.mean, b.texture, b.lines) == (a.error, 5 * a.mean, 2 * a.texture, 6 * a.lines) and a.texture > 0
    assert a.coarse == 0 and b.coarse == 4.0
    a, b = plain.latents, scaled.latents
    assert (b.error, b.mean, b.texture, b.coarse) == (a.error, 1.5 * a.mean, 3 * a.texture, 0) and a.mean > 0


def test_the_sliced_distance_ignores_where_a_patch_is() -> None:
    patches = torch.randn(1, 500, 49, generator=torch.Generator().manual_seed(0))
    moved = patches[:, torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    along = directions(16, seed=0)
    assert sliced_distance(patches, moved, along) < 1e-5
    # Between N(0,1) and N(0,4) along any direction: E|z| of the difference of the quantiles.
    many = torch.randn(1, 40_000, 49, generator=torch.Generator().manual_seed(2))
    others = 2 * torch.randn(1, 40_000, 49, generator=torch.Generator().manual_seed(3))
    assert float(sliced_distance(many, others, along)) == pytest.approx(math.sqrt(2 / math.pi), rel=0.02)


def test_decoded_times_are_of_three_kinds() -> None:
    times = decoded().times(6000, torch.Generator().manual_seed(0))
    assert (times == 0).sum() / 6000 == pytest.approx(1 / 2, abs=0.03)
    assert sum((times == k / 4).sum() for k in (1, 2, 3)) / 6000 == pytest.approx(1 / 4, abs=0.03)
    rest = times[(times * 4) % 1 != 0]
    assert 1 / 8 <= rest.min() < 0.14 and 0.86 < rest.max() <= 7 / 8


def test_the_last_step_can_have_a_share_of_the_decoded_times() -> None:
    times = decoded(last_share=0.6).times(6000, torch.Generator().manual_seed(0))
    assert (times == 0).sum() / 6000 == pytest.approx(1 / 2, abs=0.03)
    assert (times == 3 / 4).sum() / 6000 == pytest.approx(0.3 + 0.2 / 6, abs=0.02)


def test_the_decoded_objective_shows_its_images_to_whoever_perceives_them() -> None:
    drawn = Examples(
        *(x[:6] for x in examples(lambda g, e: g, torch.full((COUNT,), 0.5).index_fill(0, torch.tensor(1), 0)))
    )
    seen: list[Tensor] = []
    photos: list[Tensor | None] = []

    def perceive(made: Tensor, truth: Tensor, photo: Tensor | None, shown: Tensor | None, seed: Tensor) -> Tensor:
        seen.extend((made, truth, seed))
        photos.append(photo)
        return torch.full((len(seed),), 5.0)

    further, plain = (decoded(perceive=p).loss(lambda x, t, g: g, drawn) for p in (perceive, None))
    assert further - plain == pytest.approx(5 * 5 / 6, rel=1e-4)  # not of the item at time 0
    assert seen[2].tolist() == [0, 2, 3, 4, 5] and seen[1].abs().max() <= 1
    assert torch.equal(seen[1], paint(drawn.high)[[0, 2, 3, 4, 5]].clamp(-1, 1))
    # The photographs behind a teacher's ground truth, if they are asked for.
    others = drawn._replace(real=drawn.high.flip(0))
    decoded(perceive=perceive, photos=True).loss(lambda x, t, g: g, others)
    assert photos[0] is None and torch.equal(photos[1], paint(others.real)[[0, 2, 3, 4, 5]].clamp(-1, 1))


def test_overshoot_is_what_leaves_the_range_nearby() -> None:
    """Grain where the truth is flat and rims beside its edges count; the truth's own texture anywhere near does not."""
    flat = torch.full((2, 3, 32, 32), 0.2)
    grain = 0.02 * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(overshoot(flat + grain, flat), grain.abs().mean((1, 2, 3)) / 0.1, rtol=1e-4)
    edge = flat.index_fill(3, torch.arange(16, 32), 0.7)
    assert overshoot(edge, edge).eq(0).all()
    assert overshoot(edge.roll(1, 3)[..., 4:-4], edge[..., 4:-4]).eq(0).all()  # an edge a pixel aside
    rim = edge.index_add(3, torch.tensor([16]), torch.full((2, 3, 32, 1), 0.12))
    assert torch.allclose(overshoot(rim, edge), torch.full((2,), 0.12 / 0.6 / 32), rtol=1e-4)
    stripes = flat + 0.3 * (torch.arange(32) % 2)
    assert overshoot(stripes.roll(1, 3), stripes).eq(0).all()  # in the other phase
    assert overshoot(flat, stripes).eq(0).all()  # smoothness is no overshoot
    assert torch.allclose(WeightedDistance(overshoot=3.0)(flat + grain, flat), 3 * overshoot(flat + grain, flat))


# --- all of them


def test_times_are_uniform_but_for_a_share_at_the_start() -> None:
    times = uniform_times(4000, 0.1, torch.Generator().manual_seed(0))
    inside = times[times > 0]
    assert len(inside) / 4000 == pytest.approx(0.9, abs=0.02)
    assert inside.mean() == pytest.approx(0.5, abs=0.02) and inside.var() == pytest.approx(1 / 12, abs=0.01)
    assert times.max() < 1 and (uniform_times(100, 0, torch.Generator().manual_seed(0)) > 0).all()
    assert not uniform_times(100, 1.0, torch.Generator().manual_seed(0)).any()


def test_diffusion_s_times_are_its_steps_but_the_first() -> None:
    seen: list[Tensor] = []

    def predict(x: Tensor, steps: Tensor, guide: Tensor) -> Tensor:
        seen.append(steps)
        return x

    times = Diffusion().times(20_000, torch.Generator().manual_seed(0))
    latents = torch.zeros(20_000, 1, 1, 1)
    Diffusion().loss(
        predict, Examples(latents, latents, times, times, torch.zeros(20_000, 2, 1, 1, 1), times, times, latents)
    )
    assert set(seen[0].tolist()) == set(range(1, 1000))


def test_every_name_has_an_objective() -> None:
    assert set(BUILDERS) == set(OBJECTIVE_NAMES)


def objective_named(name: str) -> Objective:
    return make_objective(ObjectiveSection(name, decoder="any", texture=0.0), teacher, paint)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@pytest.mark.parametrize(("nfe", "solver"), [(1, "euler"), (50, "euler"), (8, "heun"), (8, "rk4")])
def test_the_network_is_evaluated_exactly_as_often_as_asked(name: str, nfe: int, solver: str) -> None:
    count = 0

    def predict(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        nonlocal count
        count += 1
        assert t.shape == (2,)
        return 0.1 * x

    guide, noise = torch.randn(2, 2, 4, 4, 4)
    assert objective_named(name).sample(predict, guide, noise, nfe, solver).shape == guide.shape
    assert count == (1 if name in ("l1", "l2") else nfe)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_the_loss_of_a_batch_is_the_mean_of_its_items(name: str) -> None:
    """So that processes may divide a step."""
    objective = objective_named(name)
    drawn = Examples(*(x[:6] for x in examples(lambda g, e: g + e, objective.times(COUNT, torch.Generator()))))

    def predict(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        return 0.3 * x + guide + wide(t) / 1000

    parts = [objective.loss(predict, Examples(*(x[i : i + 1] for x in drawn))) for i in range(6)]
    assert objective.loss(predict, drawn) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("section", "words"),
    [(ObjectiveSection("reflow"), "needs a teacher"), (ObjectiveSection("decoded", decoder="any"), "needs a decoder")],
)
def test_what_an_objective_needs_is_named(section: ObjectiveSection, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_objective(section)


def test_predictions_in_half_precision_are_counted_in_full() -> None:
    def half(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        return (x + 1000).bfloat16()

    predict: Predict = half
    for name in OBJECTIVE_NAMES:
        objective = objective_named(name)
        drawn = Examples(*(x[:6] for x in examples(lambda g, e: g + e, objective.times(COUNT, torch.Generator()))))
        assert objective.loss(predict, drawn).dtype == torch.float32
        assert objective.sample(predict, drawn.guide, drawn.noise[:, 0], 4).dtype == torch.float32


def test_an_octave_more_noise_counts_texture_twice() -> None:
    """The weight of the squared error does not change, and neither does that of texture at the flow's own step."""
    drawn = Examples(*(x[:4] for x in examples(lambda g, e: g + e, torch.zeros(COUNT))))
    steps = (250, 400, 550, 700)
    flow = CouplingFlow(SIGNAL)
    far = drawn._replace(
        high=torch.randn(4, 4, 8, 8), guide=torch.zeros(4, 4, 8, 8), noise=torch.zeros(4, 2, 4, 8, 8),
        alpha_bar=torch.tensor([alpha_bar(step) for step in steps]),
    )  # fmt: skip

    def losses(images: WeightedDistance, octave: float) -> list[float]:
        objective = Decoded(flow, lambda z: z[:, :3], images, WeightedDistance(), since=0, octave=octave)
        parts = [Examples(*(x[i : i + 1] for x in far)) for i in range(4)]
        return [float(objective.loss(lambda x, t, g: torch.ones_like(x), part)) for part in parts]

    texture, error = WeightedDistance(texture=1.0, lines=2.0), WeightedDistance(error=1.0)
    factors = [a / b for a, b in zip(losses(texture, 150), losses(texture, 0), strict=True)]
    assert factors == pytest.approx([0.5, 1, 2, 4], rel=1e-4)
    assert losses(error, 150) == losses(error, 0)
