"""How a made image looks beside the true one: the distance of their features, and what critics say of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .critics import Critics
from .features import FeatureNetwork, feature_distance
from .hashed import random_bits, seeded_normal

# Added to both images, or the critics learn what rounding has left in them.
NOISE = 0.03
# Pixels at the borders of a window that do not count, where the decoder sees no neighbours; and by how many
# more the window moves, so that the critics do not learn where the decoder's grid lies.
BORDER, SHIFTS = 8, 8


class Perception(nn.Module):
    """A loss of made images (B,3,H,W) in [-1,1] against true ones, at least 56 a side.

    features: weight of `feature_distance`. critics: weight of what the critics say; 0: there are none.
    The critics' own loss is part of the result and has no gradient for the images: one backward pass teaches both.
    """

    def __init__(self, network: FeatureNetwork, features: float, critics: float) -> None:
        super().__init__()
        self.network, self.features, self.weight = network, features, critics
        self.critics = Critics(network.channels) if critics else None
        self.parts: dict[str, float] = {}  # of the last images: the parts of the loss, for whoever watches a training

    def forward(self, made: Tensor, truth: Tensor, seed: Tensor) -> Tensor:
        """The loss (B,). seed: of each item's window and noise (B,). Without gradients the critics are not asked."""
        made, truth = noisy_windows(made, truth, seed)
        with torch.no_grad():
            of_truth = [*self.network(truth), truth]
        of_made = [*self.network(made), made]
        distance = feature_distance(of_made[:-1], of_truth[:-1])
        if self.critics is None or not torch.is_grad_enabled():
            return self.features * distance
        generator, critic = self.critics.generator_loss(of_made), self.critics.critic_loss(of_made, of_truth)
        losses = {"features": distance, "generator loss": generator, "critic loss": critic}
        self.parts = {name: float(loss.detach().mean()) for name, loss in losses.items()}
        return self.features * distance + self.weight * generator + critic


def noisy_windows(made: Tensor, truth: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """The same windows of both images (B,3,H,W), each with noise of its own; all follow from the seeds (B,)."""
    height, width = (length - 2 * BORDER - SHIFTS for length in made.shape[-2:])
    offsets = BORDER + random_bits(seed, 2) % SHIFTS
    rows, columns = (
        offsets[:, axis, None] + torch.arange(length, device=seed.device) for axis, length in enumerate((height, width))
    )
    noise = NOISE * seeded_normal(seed, 2 * 3 * height * width).view(-1, 2, 3, height, width)

    def window(x: Tensor) -> Tensor:
        x = x.gather(2, rows[:, None, :, None].expand(-1, 3, -1, x.shape[-1]))
        return x.gather(3, columns[:, None, None].expand(-1, 3, height, -1))

    return window(made) + noise[:, 0].to(made), window(truth) + noise[:, 1].to(truth)
