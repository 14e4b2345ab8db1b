"""How a training is doing on latents that it does not see: their loss, and pictures of what it makes of them."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codecs.protocol import Codec
from ..errors import ConfigError
from ..sampling.schedule import alpha_bar
from .data.latents import LatentCrops, LatentSet
from .loop import step_generator
from .losses.objectives import Examples
from .train import Learning, require_family, told

CROPS, PICTURES = 64, 4
EVALUATIONS = (1, 4)


class Validation:
    """Always the same crops, noises and times, so that its figures can be compared from one time to the next."""

    def __init__(self, learning: Learning, data: LatentSet, codec: Codec | None) -> None:
        """data: shards of photographs that are not trained on. codec: decodes the pictures; None: no pictures."""
        recipe, self.codec = learning.recipe, codec
        require_family(recipe, data)
        if data.scale != learning.crops.scale:
            raise ConfigError(
                f"The validation shards are of scale {data.scale}, but those trained on are of {learning.crops.scale}."
            )
        crops = LatentCrops(data, recipe.data.crop, recipe.data.shares, recipe.data.upsampling)
        self.learning = replace(learning, crops=crops)
        self.examples: Examples = self.learning.draw(CROPS, step_generator(0, 0))

    def look(self, network: nn.Module) -> tuple[float, Tensor | None]:
        """The validation loss, and the pictures if there is a codec."""
        return self.loss(network), self.pictures(network)

    @torch.no_grad()
    def loss(self, network: nn.Module) -> float:
        """The mean loss of the validation crops."""
        device = next(network.parameters()).device
        parts = zip(*(x.to(device).split(16) for x in self.examples), strict=True)
        losses = [self.learning.loss(network, *part) for part in parts]
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def pictures(self, network: nn.Module) -> Tensor | None:
        """(3,H,W) in [-1,1]: a row a crop, of its guide, one evaluation, four, and the truth."""
        if self.codec is None:
            return None
        device = next(network.parameters()).device
        high, guide, kind, _, noise, _ = (x[:PICTURES].to(device) for x in self.examples)
        signal = torch.full((len(kind),), alpha_bar(self.learning.recipe.objective.noise_step), device=device)
        predict = told(network, self.learning.recipe.network, kind, signal)
        objective = self.learning.objective(kind, signal)
        made = [objective.sample(predict, guide, noise[:, 0], nfe) for nfe in EVALUATIONS]
        columns = [self.codec.decode(latent.cpu()).clamp(-1, 1) for latent in (guide, *made, high)]
        rows = torch.cat([F.pad(column, (2, 2, 2, 2), value=1.0) for column in columns], dim=3)
        return torch.cat(list(rows), dim=1)
