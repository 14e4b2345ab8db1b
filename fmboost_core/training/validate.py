"""Validation of a training on shards that it does not train on: loss, and images of its results."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codecs.protocol import Codec
from ..errors import ConfigError
from ..sampling.schedule import alpha_bar
from .data.crops import LatentCrops
from .data.latents import LatentSet
from .loop import step_generator
from .task import TrainingTask
from .train import require_family

CROPS, IMAGES = 64, 4
NFE = (1, 4)


class Validation:
    """Validates on the same crops, noise and times every time, so that its figures compare."""

    def __init__(self, task: TrainingTask, data: LatentSet, codec: Codec | None) -> None:
        """data: shards of photographs that are not trained on. codec: decodes the images; None: no images."""
        recipe, self.codec = task.recipe, codec
        require_family(recipe, data)
        if data.scale != task.crops.scale:
            raise ConfigError(
                f"The validation shards are of scale {data.scale}, but those trained on are of {task.crops.scale}; "
                "encode them alike."
            )
        crops = LatentCrops(data, recipe.data.crop, recipe.data.shares, recipe.data.upsampling)
        self.task = replace(task, crops=crops)
        self.drawn = self.task.draw(CROPS, step_generator(0, 0))

    def __call__(self, network: nn.Module) -> tuple[float, Tensor | None]:
        """The validation loss, and the images if there is a codec."""
        return self.loss(network), self.images(network)

    @torch.no_grad()
    def loss(self, network: nn.Module) -> float:
        """The mean loss of the validation crops."""
        device = next(network.parameters()).device
        parts = zip(*(x.to(device).split(16) for x in self.drawn), strict=True)
        losses = [self.task.loss(network, *part) for part in parts]
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def images(self, network: nn.Module) -> Tensor | None:
        """(3,H,W) in [-1,1]: one row per crop, of its guide, its results with 1 and 4 evaluations, the ground truth."""
        if self.codec is None:
            return None
        device = next(network.parameters()).device
        examples, _ = self.task.with_guides(network, *(x[:IMAGES].to(device) for x in self.drawn))
        high, guide, kind, _, noise, *_ = examples
        signal = torch.full((len(kind),), alpha_bar(self.task.recipe.objective.noise_step), device=device)
        predict, objective = self.task.predict(network, kind, signal), self.task.objective(kind, signal)
        results = [objective.sample(predict, guide, noise[:, 0], nfe) for nfe in NFE]
        columns = [self.codec.decode(latent.cpu()).clamp(-1, 1) for latent in (guide, *results, high)]
        rows = torch.cat([F.pad(column, (2, 2, 2, 2), value=1.0) for column in columns], dim=3)
        return torch.cat(list(rows), dim=1)
