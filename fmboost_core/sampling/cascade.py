"""The cascade: guides, stages, and the images between stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..imaging.resample import resize
from ..tiles import NOT_TILEABLE, Tileable
from .checks import check_finite
from .guide import LatentUpsampling, image_guide, latent_size
from .restore import back_projected

# (index of the stage, guide (B,C,h,w), what it was encoded from) -> the stage's latent (B,C,h,w)
SampleStage = Callable[[int, Tensor, str], Tensor]


@dataclass(frozen=True)
class Cascade:
    """Stages one after the other; the result of one is the small latent or image of the next.

    codec: None where there is none, which `image` and pixel-space upsampling need.
    sizes: (height, width) in pixels after each stage. sample: makes a stage's latent.
    unit: pixels per latent along each side.
    upsampling: how guides are made of latents; None: pixel-space upsampling.
    tileable: the axes along which the images are; the codec must be `periodic` there.
    Between stages the image is restored, so that colours and shapes do not drift, where guides are made in pixel space.
    """

    codec: Codec | None
    sizes: Sequence[tuple[int, int]]
    sample: SampleStage
    unit: int
    upsampling: LatentUpsampling | None = None
    tileable: Tileable = NOT_TILEABLE

    @property
    def _in_pixels(self) -> bool:
        return self.upsampling is None

    @property
    def _latent_kind(self) -> str:
        """The kind of a guide that is made from a latent."""
        return "latent" if self.upsampling is None else self.upsampling.kind

    @torch.no_grad()
    def latent(self, latent: Tensor, image: Tensor | None = None, distort: bool = True, kind: str = "latent") -> Tensor:
        """The last stage's latent.

        latent: (B,C,h,w) scaled. image: the small image (B,3,H,W), or None: the decoded latent.
        distort: see `Target.distorts`. kind: what `image` is, one of `GUIDE_KINDS`.
        """
        if not self._in_pixels:
            image = None
        elif image is None:
            image = self._codec.decode(latent).clamp(-1, 1)
        for index, size in enumerate(self.sizes):
            whole = distort or index > 0
            guide = self.guide(latent, image, size, whole)
            latent = self.sample(index, guide, kind if index == 0 and self._in_pixels else self._latent_kind)
            if image is not None and index + 1 < len(self.sizes):
                image = back_projected(self._decoded(latent, size), image, whole, self.tileable).clamp(-1, 1)
        return latent

    @torch.no_grad()
    def image(self, image: Tensor, distort: bool, restore: bool) -> Tensor:
        """The last stage's image (B,3,H,W) in [-1,1], from the small image (B,3,h,w).

        restore: whether the image gets the small image's content back, in pixel space that of each stage.
        """
        latent = None
        for index, size in enumerate(self.sizes):
            whole = distort or index > 0
            guide = self.guide(latent, image, size, whole)
            # A restored image has all its detail, as the one that came in; another is a decoded latent.
            kind = "image" if self._in_pixels and (index == 0 or restore) else self._latent_kind
            latent = self.sample(index, guide, kind)
            if self._in_pixels or index + 1 == len(self.sizes):
                large = self._decoded(latent, size)
                image = back_projected(large, image, whole, self.tileable).clamp(-1, 1) if restore else large
        return image

    def guide(self, latent: Tensor | None, image: Tensor | None, size: tuple[int, int], distort: bool) -> Tensor:
        """A stage's guide, for size (height, width) in pixels, from the small latent or image."""
        if self.upsampling is None:
            assert image is not None
            return image_guide(image, self._codec, self._encoded(size), distort, self.tileable)
        if latent is None:
            assert image is not None
            own = self._encoded((image.shape[-2], image.shape[-1]))
            latent = image_guide(image, self._codec, own, tileable=self.tileable)
        return self.upsampling(latent, latent_size(size, self.unit), distort)

    @property
    def _codec(self) -> Codec:
        assert self.codec is not None, "the callers check that there is one where it is needed"
        return self.codec

    def _encoded(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (height, width) at which an image is encoded: a period must be of whole latents."""
        y, x = self.tileable.y, self.tileable.x
        return size[0] + (-size[0] % self.unit if y else 0), size[1] + (-size[1] % self.unit if x else 0)

    def _decoded(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """The latent's image, without the edge that fills up the last latents."""
        height, width = self._encoded(size)
        image = resize(self._codec.decode(latent)[..., :height, :width], size, tileable=self.tileable)
        check_finite(image, "The decoded image")
        return image.clamp(-1, 1)
