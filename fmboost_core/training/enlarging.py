"""Upscale models in training: compact and RRDB networks learn from small images, most of them decoded latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, require
from ..files.upscale_model import find_upscale_model
from ..files.upscale_network import UpscaleNetwork, load_upscale_network
from ..imaging.blur import blurred
from ..imaging.resample import resize
from ..networks.compact import CompactNetwork
from ..networks.rrdb import RRDBNetwork
from .data.crops import ImageCrops
from .data.latents import LatentSet
from .loop import Trainer
from .losses import image_distance
from .losses.perception import Perception
from .losses.weighted import WeightedDistance
from .recipe import Recipe
from .start import freeze
from .train import perceived_trainer, perception_of, require_twofold

# Sharpening: the reach in pixels of what is taken for blur, and the least difference that is not noise, in [-1,1].
REACH, LEAST_EDGE = 2.0, 0.08


@dataclass(frozen=True)
class EnlargingTask:
    """Crops of small images, and the distance of what a network makes of them from the photographs.

    A decoded small latent has lost what a codec loses, so the network learns to undo that as well.
    sharpen: how much edges of the photographs are sharpened first, `sharpened`.
    """

    crops: ImageCrops
    distance: WeightedDistance
    perception: Perception | None = None
    sharpen: float = 0.0

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        small, photos = self.crops.draw(batch, generator)
        return small, photos, torch.randint(2**31, (batch,), generator=generator)

    def loss(self, network: Callable[..., Tensor], small: Tensor, photos: Tensor, seed: Tensor) -> Tensor:
        """The mean loss of images (B,3,h,w) enlarged to photographs (B,3,kh,kw), both in [-1,1]. seed: (B,)."""
        made = network(small / 2 + 0.5).float() * 2 - 1
        photos = sharpened(photos, self.sharpen)
        loss = self.distance(made, photos)
        if self.perception is not None:
            seen = resize(small, (photos.shape[-2], photos.shape[-1]))
            loss = loss + self.perception(made.clamp(-1, 1), photos, None, seen, seed)
        return loss.mean()


def sharpened(images: Tensor, amount: float) -> Tensor:
    """Images (B,3,H,W) in [-1,1] whose edges are sharpened, and flat areas are not.

    Real-ESRGAN learns from such photographs (Wang et al. 2021).
    """
    if not amount:
        return images
    details = images - blurred(images, REACH)
    edges = blurred((details.abs() > LEAST_EDGE).to(images), REACH)
    return (images + amount * edges * details).clamp(-1, 1)


def at_factor(network: UpscaleNetwork, factor: int) -> UpscaleNetwork:
    """A network at another upscale factor, which divides its own, from where its training can go on.

    A compact network then makes what it made, reduced by area; an RRDB network, what it made of the image reduced by
    area. Raises `ConfigError` for other factors.
    """
    if network.factor % factor or (isinstance(network, RRDBNetwork) and factor not in (2, 4)):
        raise ConfigError(
            f"start.model enlarges {network.factor}x, and the shards are for {factor}x; take one for {factor}x "
            "or for a multiple of it."
        )
    if network.factor == factor:
        return network
    return _with_more_inputs(network) if isinstance(network, RRDBNetwork) else _with_fewer_outputs(network, factor)


@torch.no_grad()
def _with_fewer_outputs(network: CompactNetwork, factor: int) -> CompactNetwork:
    weights, reduction = network.state_dict(), network.factor // factor
    for name in list(weights)[-2:]:  # the last convolution's outputs are the pixels of a square
        outputs = weights[name].flatten(1) if weights[name].dim() > 1 else weights[name][:, None]
        pixels = outputs.view(3, network.factor, network.factor, -1).permute(0, 3, 1, 2)
        reduced = F.avg_pool2d(pixels, reduction).permute(0, 2, 3, 1).reshape(3 * factor**2, -1)
        weights[name] = reduced.view(-1, *weights[name].shape[1:])
    other = CompactNetwork(factor, network.width, network.depth)
    other.load_state_dict(weights)
    return other


@torch.no_grad()
def _with_more_inputs(network: RRDBNetwork) -> RRDBNetwork:
    weights, first = network.state_dict(), "conv_first.weight"
    weights[first] = weights[first].repeat_interleave(4, 1) / 4  # the mean of each square
    other = RRDBNetwork(2, network.width, network.growth, len(network.body))
    other.load_state_dict(weights)
    return other


def make_enlarging_trainer(recipe: Recipe, data: LatentSet) -> tuple[Trainer[UpscaleNetwork], Perception | None]:
    """A trainer of an upscale model at its first step, and its features and critics, if it has any."""
    crops = ImageCrops(data, recipe.data.crop, recipe.data.shares)
    start, objective = recipe.start.model, recipe.objective
    require_twofold(recipe, data)
    if least := objective.least_perceived:
        require(recipe.data.crop >= least, "data.crop", recipe.data.crop, f"{least} or above for features and critics")
    require(bool(start) or not recipe.start.kept, "start.kept", recipe.start.kept, "0 without start.model")
    torch.manual_seed(recipe.loop.seed)
    network = starting_network(start, data.scale)
    perception = perception_of(recipe)
    task = EnlargingTask(crops, image_distance(objective), perception, objective.sharpen)
    facts = recipe.flat() | {"samples in the shards": len(data.samples), "scale": data.scale}
    network.train().requires_grad_()
    freeze(network, recipe.start.frozen)
    return perceived_trainer(network, task.draw, task.loss, recipe, facts, perception), perception


def starting_network(start: str, factor: int) -> UpscaleNetwork:
    """The network before the first step: a file's, or a fresh compact one. start: as in `StartSection.model`."""
    if not start:
        return CompactNetwork(factor)
    network = load_upscale_network(find_upscale_model(start))
    return at_factor(network, factor)


@torch.no_grad()
def mixed(network: UpscaleNetwork, recipe: Recipe) -> UpscaleNetwork:
    """A trained network with a share of the weights that its training began with, `StartSection.kept`."""
    if not recipe.start.kept:
        return network
    before = starting_network(recipe.start.model, network.factor).to(next(network.parameters()).device)
    for now, then in zip(before.parameters(), network.parameters(), strict=True):
        now.lerp_(then, 1 - recipe.start.kept)
    return before
