"""Fast guides in training: a guide network learns PSU's guide alone, then together with the flow that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..codecs.load import is_pair, load_codec
from ..codecs.tiny import TinyVAE
from ..errors import require
from ..files.guide_file import load_guide
from ..networks import build_network
from ..networks.blocks import TinyBlock, zeroed
from ..networks.conditioning import Conditioning
from ..networks.config import GuideConfig
from ..networks.guide import GuideNetwork
from .data.crops import LatentCrops
from .data.latents import LatentSet, require_latents
from .loop import Trainer
from .recipe import Recipe


class GuidedFlow(nn.Module):
    """A guide network and the velocity network that follows its guides, as one network in training."""

    def __init__(self, guide: GuideNetwork, flow: nn.Module) -> None:
        super().__init__()
        self.guide, self.flow = guide, flow

    def forward(
        self, x: Tensor, t: Tensor | None = None, conditioning: Conditioning | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:  # fmt: skip
        """The velocity at the state x and time t; with a size alone, the guide of that size of the small latent x."""
        made: Tensor = self.flow(x, t, conditioning) if size is None else self.guide(x, size)
        return made


def guided_flow(recipe: Recipe) -> GuidedFlow:
    """The network of a recipe with fast guides: a new velocity network behind the guide network that it starts from."""
    return GuidedFlow(new_guide(recipe), build_network(recipe.network))


def new_guide(recipe: Recipe) -> GuideNetwork:
    """The guide network that a recipe starts from, to be trained: a new one, a tiny VAE's layers, or a trained one."""
    start, family, channels = recipe.start.guide, recipe.card.family, recipe.network.channels
    if not start:
        network = GuideNetwork(GuideConfig(channels))
    elif is_pair(start):
        network = guide_of(load_codec(start, family))
    else:
        network = load_guide(start)
    require(network.config.channels == channels, "start.guide", start, f"a network for latents of {family}")
    return network.train().requires_grad_()


def guide_of(tiny: TinyVAE) -> GuideNetwork:
    """A guide network with the first layers of a public tiny VAE's decoder and the last ones of its encoder.

    They know the latents from millions of pictures; the block between them, which is new, begins as the identity.
    """
    decoder, encoder = list(tiny.decoder.children()), list(tiny.encoder.children())
    network = GuideNetwork(GuideConfig(tiny.channels, width=len(tiny.decoder.state_dict()["1.weight"])))
    layers, between = list(network.encoder), network.config.between
    known = [*decoder[: len(network.decoder)], *encoder[between - len(layers) :]]
    for layer, trained in zip([*network.decoder, *layers[between:]], known, strict=True):
        layer.load_state_dict(trained.state_dict())
    for block in layers[:between]:
        assert isinstance(block, TinyBlock)
        zeroed(block.conv[-1])
    return network


@dataclass(frozen=True)
class GuideTask:
    """Crops of small latents, and the squared error of their guides against PSU's."""

    crops: LatentCrops

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = self.crops.draw(batch, generator)
        assert drawn.low is not None
        return drawn.low, drawn.guide

    def loss(self, network: Callable[..., Tensor], low: Tensor, guide: Tensor) -> Tensor:
        return mse_loss(network(low, (guide.shape[-2], guide.shape[-1])).float(), guide)


def make_guide_trainer(recipe: Recipe, data: LatentSet) -> Trainer[GuideNetwork]:
    """A trainer of a guide network alone, at its first step."""
    require_latents(data)
    task = GuideTask(LatentCrops(data, recipe.data.crop, recipe.data.shares, "fast"))
    torch.manual_seed(recipe.loop.seed)
    facts = recipe.flat() | {"samples in the shards": len(data.samples), "scale": data.scale}
    return Trainer(new_guide(recipe), task.draw, task.loss, recipe.loop, recipe.data.batch, facts=facts)
