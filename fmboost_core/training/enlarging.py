"""Upscale models in training: the compact network learns from small images, most of them decoded latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, require
from ..files.compact_file import load_compact
from ..files.upscale_model import find_upscale_model
from ..imaging.resample import resize
from ..networks.compact import CompactNetwork
from .data.crops import ImageCrops
from .data.latents import LatentSet
from .loop import Trainer
from .losses import image_distance
from .losses.perception import Perception
from .losses.weighted import WeightedDistance
from .recipe import Recipe
from .sections import LEAST_PERCEIVED
from .train import perceived_trainer, perception_of


@dataclass(frozen=True)
class EnlargingTask:
    """Crops of small images, and the distance of what a network makes of them from the photographs.

    A decoded small latent has lost what a codec loses, so the network learns to undo that as well.
    """

    crops: ImageCrops
    distance: WeightedDistance
    perception: Perception | None = None

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        small, photos = self.crops.draw(batch, generator)
        return small, photos, torch.randint(2**31, (batch,), generator=generator)

    def loss(self, network: Callable[..., Tensor], small: Tensor, photos: Tensor, seed: Tensor) -> Tensor:
        """The mean loss of images (B,3,h,w) enlarged to photographs (B,3,kh,kw), both in [-1,1]. seed: (B,)."""
        made = network(small / 2 + 0.5).float() * 2 - 1
        loss = self.distance(made, photos)
        if self.perception is not None:
            seen = resize(small, (photos.shape[-2], photos.shape[-1]))
            loss = loss + self.perception(made.clamp(-1, 1), photos, None, seen, seed)
        return loss.mean()


@torch.no_grad()
def at_factor(network: CompactNetwork, factor: int) -> CompactNetwork:
    """The network that makes what `network` makes, reduced by area to another upscale factor, which divides its own."""
    reduction, rest = divmod(network.factor, factor)
    if rest:
        raise ConfigError(
            f"start.model enlarges {network.factor}x, and the shards are for {factor}x; take one for {factor}x "
            "or for a multiple of it."
        )
    weights = network.state_dict()
    for name in list(weights)[-2:]:  # the last convolution's outputs are the pixels of a square
        outputs = weights[name].flatten(1) if weights[name].dim() > 1 else weights[name][:, None]
        pixels = outputs.view(3, network.factor, network.factor, -1).permute(0, 3, 1, 2)
        reduced = F.avg_pool2d(pixels, reduction).permute(0, 2, 3, 1).reshape(3 * factor**2, -1)
        weights[name] = reduced.view(-1, *weights[name].shape[1:])
    other = CompactNetwork(factor, network.width, network.depth)
    other.load_state_dict(weights)
    return other


def make_enlarging_trainer(recipe: Recipe, data: LatentSet) -> tuple[Trainer[CompactNetwork], Perception | None]:
    """A trainer of an upscale model at its first step, and its features and critics, if it has any."""
    crops = ImageCrops(data, recipe.data.crop, recipe.data.shares)
    start, objective = recipe.start.model, recipe.objective
    if objective.features or objective.critics:
        rule = f"{LEAST_PERCEIVED} or above for features and critics"
        require(recipe.data.crop >= LEAST_PERCEIVED, "data.crop", recipe.data.crop, rule)
    torch.manual_seed(recipe.loop.seed)
    network = at_factor(load_compact(find_upscale_model(start)), data.scale) if start else CompactNetwork(data.scale)
    perception = perception_of(recipe)
    task = EnlargingTask(crops, image_distance(objective), perception)
    facts = recipe.flat() | {"samples in the shards": len(data.samples), "scale": data.scale}
    network.train().requires_grad_()
    return perceived_trainer(network, task.draw, task.loss, recipe, facts, perception), perception
