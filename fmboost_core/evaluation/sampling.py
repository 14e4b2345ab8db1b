"""The large latent by a network of any objective, for judging: `pipeline.boost` is for flows (cfm) alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import Model
from ..codec import Codec
from ..pipeline import stage_sizes
from ..schedule import seeded_noise
from ..training.train import objective_of
from ..upsample import image_guide, latent_size, latent_upsample, pixel_upsample


@dataclass(frozen=True)
class Sampler:
    """Enlarges as `boost` does: guide, start, evaluations, in as many stages as the network's scale asks for.

    kind: what the first guide is made from, one of `config.GUIDE_KINDS`. seed: of the noise.
    """

    model: Model
    codec: Codec
    nfe: int
    solver: str = "euler"
    kind: str = "latent"
    seed: int = 0

    @torch.no_grad()
    def __call__(
        self,
        small: Tensor,
        low: Tensor,
        size: tuple[int, int],
        first: Tensor | None = None,
        on_evaluation: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """The latent of size (height, width) in pixels, from the small picture (1,3,h,w) and its latent.

        first: the first stage's guide where it is at hand (`first_guide`).
        """
        noise, latent = seeded_noise(self.seed, 1), low
        for index, stage in enumerate(self._stages(small, size)):
            kind = self.kind if index == 0 else "latent"
            guide = first if index == 0 and first is not None else self._guide(small, latent, stage, kind)

            def predict(x: Tensor, t: Tensor, guide: Tensor, kind: str = kind) -> Tensor:
                on_evaluation()
                return self.model.velocity(x, t, guide, kind)

            fresh = noise(tuple(guide.shape)).to(guide)
            latent = objective_of(self.model.spec).sample(predict, guide, fresh, self.nfe, self.solver)
        return latent

    @torch.no_grad()
    def first_guide(self, small: Tensor, low: Tensor, size: tuple[int, int]) -> Tensor:
        """What the first stage starts from; networks of one scale, kind and upsampling share it."""
        return self._guide(small, low, self._stages(small, size)[0], self.kind)

    def _stages(self, small: Tensor, size: tuple[int, int]) -> list[tuple[int, int]]:
        return stage_sizes((small.shape[-2], small.shape[-1]), size, self.model.spec.scale)

    def _guide(self, small: Tensor, latent: Tensor, size: tuple[int, int], kind: str) -> Tensor:
        if self.model.spec.guide != "psu":
            return latent_upsample(latent, latent_size(size, self.codec.factor), self.model.spec.guide)
        if kind == "image":
            return image_guide(small, self.codec, size)
        return pixel_upsample(latent, self.codec, size)
