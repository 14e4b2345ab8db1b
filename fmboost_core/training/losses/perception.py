"""How a made image looks beside the true one: the distance of their features, and what critics say of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .critics import Critics
from .features import FeatureNetwork, feature_distance
from .hashed import random_bits, seeded_normal, windows

# Added to both images, or the critics learn what rounding has left in them.
NOISE = 0.03
# Pixels at the borders of a window that do not count, where the decoder sees no neighbours; and by how many
# more the window moves, so that the critics do not learn where the decoder's grid lies.
BORDER, SHIFTS = 8, 8


class Perception(nn.Module):
    """A loss of made images (B,3,H,W) in [-1,1] against true ones, at least 56 a side.

    features: weight of `feature_distance`. critics: weight of what the critics say; 0: there are none.
    informed: the critics see beside each image what the small latent shows of it. They then know where it is flat, and
    what was drawn besides.
    small: weight of the features' distance from what the small latent shows, at half the size, where that is known.
    A network makes grey what it cannot foretell of the ground truth. What the latent shows it can foretell.
    The critics' own loss is part of the result and has no gradient for the images: one backward pass teaches both.
    """

    def __init__(
        self, network: FeatureNetwork, features: float, critics: float, informed: bool = False, small: float = 0.0
    ) -> None:
        super().__init__()
        self.network, self.features, self.weight = network, features, critics
        self.informed, self.small = informed, small
        views = 2 if informed else 1
        self.critics = Critics([views * count for count in network.channels], views * 3) if critics else None
        self._parts: dict[str, Tensor] = {}

    @property
    def parts(self) -> dict[str, float]:
        """The parts of the last images' loss, for whoever watches a training."""
        return {name: float(part) for name, part in self._parts.items()}

    def forward(self, made: Tensor, truth: Tensor, photo: Tensor | None, seen: Tensor | None, seed: Tensor) -> Tensor:
        """The loss (B,). seen: what the small latent shows of the images, for informed critics and for `small`.

        photo: what the critics take for real instead of the true images (B,3,H,W); None: those.
        seed: of each item's window and noise (B,). Without gradients the critics are not asked.
        """
        shown = [] if seen is None or not (self.informed or self.small) else [seen]
        photos = [] if photo is None else [photo]
        made, truth, *others = noisy_windows(seed, made, truth, *shown, *photos)
        real = others.pop() if photos else truth
        small = self._small_distance(made, *others) if shown and self.small else made.new_zeros(len(made))
        others = others if self.informed else []
        with torch.no_grad():
            of_truth = self.network(truth)
        of_made = [*self.network(made), made]
        distance = feature_distance(of_made[:-1], of_truth)
        if self.critics is None or not torch.is_grad_enabled():
            return self.features * distance + self.small * small
        with torch.no_grad():
            of_real = [*(self.network(real) if photos else of_truth), real]
            of_seen = [[*self.network(other), other] for other in others]
        of_made, of_real = (
            [torch.cat(views, 1) for views in zip(x, *of_seen, strict=True)] for x in (of_made, of_real)
        )
        generator, critic = self.critics.generator_loss(of_made), self.critics.critic_loss(of_made, of_real)
        losses = {"features": distance, "generator loss": generator, "critic loss": critic}
        losses |= {"small": small} if self.small else {}
        # Not yet numbers: a GPU would have to be waited for at each step.
        self._parts = {name: loss.detach().mean() for name, loss in losses.items()}
        return self.features * distance + self.small * small + self.weight * generator + critic

    def _small_distance(self, made: Tensor, seen: Tensor) -> Tensor:
        """The distance (B,) of features at half the size."""
        made, seen = (F.avg_pool2d(image, 2) for image in (made, seen))
        with torch.no_grad():
            of_seen = self.network(seen)
        return feature_distance(self.network(made), of_seen)


def noisy_windows(seed: Tensor, *images: Tensor) -> list[Tensor]:
    """The same windows of images (B,3,H,W) each, each with noise of its own; all follow from the seeds (B,)."""
    height, width = (length - 2 * BORDER - SHIFTS for length in images[0].shape[-2:])
    corners, count = BORDER + random_bits(seed, 2) % SHIFTS, len(images)
    noise = NOISE * seeded_normal(seed, count * 3 * height * width).view(-1, count, 3, height, width)
    cut = [windows(image, corners, (height, width)) for image in images]
    return [image + noise[:, i].to(image) for i, image in enumerate(cut)]
