"""The large latent by a network of any objective, for judging: `pipeline.boost` is for flows (cfm) alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..model import Model
from ..sampling.guide import image_guide, latent_size, latent_upsample
from ..sampling.restore import restored
from ..sampling.schedule import seeded_noise
from ..sampling.target import stage_sizes
from ..training.train import objective_of
from .judge import decoded


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
        noise, latent, picture = seeded_noise(self.seed, 1), low, self._picture(small, low)
        stages = self._stages(small, size)
        for index, stage in enumerate(stages):
            kind = self.kind if index == 0 else "latent"
            guide = first if index == 0 and first is not None else self._guide(picture, latent, stage)

            def predict(x: Tensor, t: Tensor, guide: Tensor, kind: str = kind) -> Tensor:
                on_evaluation()
                return self.model.velocity(x, t, self.model.conditioning(guide, kind))

            fresh = noise(tuple(guide.shape)).to(guide)
            latent = objective_of(self.model.spec).sample(predict, guide, fresh, self.nfe, self.solver)
            if self._psu and index + 1 < len(stages):
                large = decoded(self.codec, latent)[..., : stage[0], : stage[1]]
                picture = restored(large, picture).clamp(-1, 1)
        return latent

    @torch.no_grad()
    def first_guide(self, small: Tensor, low: Tensor, size: tuple[int, int]) -> Tensor:
        """What the first stage starts from; networks of one scale, kind and upsampling share it."""
        return self._guide(self._picture(small, low), low, self._stages(small, size)[0])

    @property
    def _psu(self) -> bool:
        return self.model.spec.guide == "psu"

    def _stages(self, small: Tensor, size: tuple[int, int]) -> list[tuple[int, int]]:
        return stage_sizes((small.shape[-2], small.shape[-1]), size, self.model.spec.scale)

    def _picture(self, small: Tensor, low: Tensor) -> Tensor:
        """What the first guide is made of."""
        return small if self.kind == "image" or not self._psu else decoded(self.codec, low)

    def _guide(self, picture: Tensor, latent: Tensor, size: tuple[int, int]) -> Tensor:
        if self._psu:
            return image_guide(picture, self.codec, size)
        return latent_upsample(latent, latent_size(size, self.codec.downscale_factor), self.model.spec.guide)
