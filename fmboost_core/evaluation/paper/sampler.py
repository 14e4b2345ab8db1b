"""Sampling with networks of any objective, in the stages of `Cascade`; `boost` samples flows (cfm) alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...codecs.protocol import Codec
from ...model import Model
from ...sampling.cascade import Cascade
from ...sampling.guide import LatentUpsampling
from ...sampling.schedule import seeded_noise
from ...sampling.target import stage_sizes
from ...training.losses import objective_of
from ..photographs import PreparedPhoto


@dataclass(frozen=True)
class Sampler:
    """Enlarges a photograph by its network's objective, in as many stages as the network's scale asks for.

    kind: what the first guide is encoded from, one of `GUIDE_KINDS`; seed: of the noise.
    """

    model: Model
    nfe: int
    solver: str = "euler"
    kind: str = "latent"
    seed: int = 0

    def __call__(self, photo: PreparedPhoto, codec: Codec, on_evaluation: Callable[[], None] = lambda: None) -> Tensor:
        """The large scaled latent (1,C,H,W). on_evaluation: called before each evaluation of the network."""
        spec, noise = self.model.spec, seeded_noise(self.seed, 1)
        objective = objective_of(spec)

        def sample(index: int, guide: Tensor, kind: str) -> Tensor:
            def predict(x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
                on_evaluation()
                return self.model.velocity(x, t, self.model.conditioning(guide, kind))

            fresh = noise(tuple(guide.shape)).to(guide)
            return objective.sample(predict, guide, fresh, self.nfe, self.solver)

        sizes = stage_sizes((photo.small.shape[-2], photo.small.shape[-1]), photo.size, spec.scale)
        image = photo.small if self.kind == "image" else None
        unit = codec.downscale_factor
        upsampling = None if spec.guide == "psu" else LatentUpsampling(spec.guide, unit, self.model.guide)
        cascade = Cascade(codec, sizes, sample, unit, upsampling)
        return cascade.latent(photo.low, image, kind=self.kind)
