"""Sampling with networks of any objective, in stages; `boost` samples flows (cfm) alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...codecs.protocol import Codec
from ...model import Model
from ...sampling.guide import image_guide, latent_size, latent_upsample
from ...sampling.restore import restored
from ...sampling.schedule import seeded_noise
from ...sampling.target import stage_sizes
from ...training.train import objective_of
from ..photographs import PreparedPhoto, decoded


@dataclass(frozen=True)
class Sampler:
    """Enlarges a photograph by its network's objective, in the stages that the network's scale asks for.

    kind: what the first guide is made from, one of `GUIDE_KINDS`; seed: of the noise.
    """

    model: Model
    codec: Codec
    nfe: int
    solver: str = "euler"
    kind: str = "latent"
    seed: int = 0

    @torch.no_grad()
    def __call__(
        self, photo: PreparedPhoto, first: Tensor | None = None, on_evaluation: Callable[[], None] = lambda: None
    ) -> Tensor:
        """The large scaled latent (1,C,H,W). first: the first stage's guide where it is at hand (`first_guide`)."""
        noise, latent, image = seeded_noise(self.seed, 1), photo.low, self._first_image(photo)
        stages = self._stages(photo)
        for index, stage in enumerate(stages):
            kind = self.kind if index == 0 else "latent"
            guide = first if index == 0 and first is not None else self._guide(image, latent, stage)

            def predict(x: Tensor, t: Tensor, guide: Tensor, kind: str = kind) -> Tensor:
                on_evaluation()
                return self.model.velocity(x, t, guide, kind)

            fresh = noise(tuple(guide.shape)).to(guide)
            latent = objective_of(self.model.spec).sample(predict, guide, fresh, self.nfe, self.solver)
            if self._psu and index + 1 < len(stages):
                large = decoded(self.codec, latent)[..., : stage[0], : stage[1]]
                image = restored(large, image).clamp(-1, 1)
        return latent

    @torch.no_grad()
    def first_guide(self, photo: PreparedPhoto) -> Tensor:
        """The first stage's guide; networks of one scale, kind and upsampling share it."""
        return self._guide(self._first_image(photo), photo.low, self._stages(photo)[0])

    @property
    def _psu(self) -> bool:
        return self.model.spec.guide == "psu"

    def _stages(self, photo: PreparedPhoto) -> list[tuple[int, int]]:
        return stage_sizes((photo.small.shape[-2], photo.small.shape[-1]), photo.size, self.model.spec.scale)

    def _first_image(self, photo: PreparedPhoto) -> Tensor:
        return photo.small if self.kind == "image" or not self._psu else decoded(self.codec, photo.low)

    def _guide(self, image: Tensor, latent: Tensor, size: tuple[int, int]) -> Tensor:
        if self._psu:
            return image_guide(image, self.codec, size)
        return latent_upsample(latent, latent_size(size, self.codec.factor), self.model.spec.guide)
