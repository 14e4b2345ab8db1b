"""The cascade: guides, stages, and the images between stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..imaging.resample import resize
from ..tiles import NOT_TILEABLE, Tileable
from .checks import check_finite
from .guide import LatentUpsampling, encoded, image_guide
from .restore import each_back_projected, retouched
from .upscale_model import UpscaleModel, enlarged

# (index of the stage, guide (B,C,h,w), what it was encoded from) -> the stage's latent (B,C,h,w)
SampleStage = Callable[[int, Tensor, str], Tensor]


class Made(NamedTuple):
    """What a stage makes: its latent (B,C,h,w), of a guide of the same shape.

    enlarged: the image (B,3,H,W) that an upscale model has made and the guide was encoded from; None without such a
    model. ratio: by how much that image was enlarged.
    """

    latent: Tensor
    guide: Tensor
    enlarged: Tensor | None = None
    ratio: float = 1.0


@dataclass(frozen=True)
class Cascade:
    """Stages one after the other; the result of one is the small latent or image of the next.

    codec: None where there is none, which images and pixel-space upsampling need.
    sizes: (height, width) in pixels after each stage. sample: makes a stage's latent.
    unit: pixels per latent along each side.
    upsampling: how guides are made of latents; None: pixel-space upsampling.
    tileable: the axes along which the images are; the codec must be `periodic` there.
    upscale_model: enlarges the images in pixel space; None: bilinear interpolation does. It takes a single stage, for
        what the flow draws in one stage, an upscale model would enlarge to blotches in the next.
    takes_flow: tells whether the flow takes part in an image, from whether that is restored; see `ResolvedOptions`.
    Between stages the image is restored, so that colours and shapes do not drift, where guides are made in pixel space.
    """

    codec: Codec | None
    sizes: Sequence[tuple[int, int]]
    sample: SampleStage
    unit: int
    upsampling: LatentUpsampling | None = None
    tileable: Tileable = NOT_TILEABLE
    upscale_model: UpscaleModel | None = None
    takes_flow: Callable[[bool], bool] = lambda restore: True

    @property
    def _in_pixels(self) -> bool:
        return self.upsampling is None

    @torch.no_grad()
    def latent(self, latent: Tensor, image: Tensor | None = None, distort: bool = True, kind: str = "latent") -> Tensor:
        """The last stage's latent.

        latent: (B,C,h,w) scaled. image: the small image (B,3,H,W), or None: the decoded latent.
        distort: see `Target.distorts`. kind: what `image` is, one of `GUIDE_KINDS`.
        """
        return self._last(latent, image, distort, kind).latent

    @torch.no_grad()
    def image_of_latent(self, latent: Tensor, image: Tensor | None, distort: bool, restore: bool) -> Tensor:
        """The image alone that `latent_and_image` makes; the arguments are the same."""
        if not self._enlarges_alone(restore):
            return self.latent_and_image(latent, image, distort, restore)[1]
        if image is None:
            image = self._codec.decode(latent).clamp(-1, 1)
        return self._by_upscale_model(image, self.sizes[-1], distort)

    @torch.no_grad()
    def latent_and_image(
        self, latent: Tensor, image: Tensor | None, distort: bool, restore: bool
    ) -> tuple[Tensor, Tensor]:
        """The last stage's latent, and its image (B,3,H,W) in [-1,1].

        restore: whether the image gets the content of the small one back. The others: see `latent`.
        """
        if image is None and (restore or self._in_pixels):
            image = self._codec.decode(latent).clamp(-1, 1)
        last = self._last(latent, image, distort, "latent")
        return last.latent, self._shown(last, self.sizes[-1], image if restore else None, distort)

    @torch.no_grad()
    def image(self, image: Tensor, distort: bool, restore: bool) -> Tensor:
        """The last stage's image (B,3,H,W) in [-1,1], from the small image (B,3,h,w).

        restore: whether the image gets the small image's content back, in pixel space that of each stage.
        """
        if self._enlarges_alone(restore):
            large = self._by_upscale_model(image, self.sizes[-1], distort, restore)
            # Restored a second time, photographs come 0.2 dB nearer to the original still.
            return each_back_projected(large, image, distort, self.tileable)
        latent = None
        for index, size in enumerate(self.sizes):
            whole = distort or index > 0
            # A restored image has all its detail, as the one that came in; another is a decoded latent.
            made = self._stage(index, latent, image, whole, "image" if index == 0 or restore else "latent", restore)
            latent = made.latent
            if self._in_pixels:
                image = self._shown(made, size, image if restore else None, whole, came_in=True)
        if not self._in_pixels:  # the image is still the one that came in
            image = self._shown(made, self.sizes[-1], image if restore else None, distort, came_in=True)
        return image

    def _last(self, latent: Tensor, image: Tensor | None, distort: bool, kind: str) -> Made:
        """What the last stage makes; the arguments are those of `latent`."""
        if not self._in_pixels:
            image = None
        elif image is None:
            image = self._codec.decode(latent).clamp(-1, 1)
        made = self._stage(0, latent, image, distort, kind)
        for index in range(1, len(self.sizes)):
            if image is not None:
                image = self._shown(made, self.sizes[index - 1], image, distort or index > 1)
            made = self._stage(index, made.latent, image, True, "latent")
        return made

    def _stage(
        self, index: int, latent: Tensor | None, image: Tensor | None, distort: bool, kind: str, restore: bool = False
    ) -> Made:
        """One stage, from the small latent or image. kind: what `image` is, one of `GUIDE_KINDS`.

        restore: whether what an upscale model makes is restored, too.
        """
        size = self.sizes[index]
        if self.upsampling is None:
            assert image is not None
            if self.upscale_model is None:  # the large image is not kept: it would count in the flow's memory
                guide = image_guide(image, self._codec, self._encoded(size), distort, self.tileable)
                return Made(self.sample(index, guide, kind), guide)
            large = self._by_upscale_model(image, self._encoded(size), distort, restore)
            guide, ratio = encoded(large, self._codec), max(size[0] / image.shape[-2], size[1] / image.shape[-1])
            return Made(self.sample(index, guide, "enlarged"), guide, large, ratio)
        if latent is None:
            assert image is not None
            start = (image.shape[-2], image.shape[-1])
            latent = image_guide(image, self._codec, self._encoded(start), tileable=self.tileable)
        elif index:
            start = self.sizes[index - 1]
        else:
            start = (latent.shape[-2] * self.unit, latent.shape[-1] * self.unit)
        guide = self.upsampling(latent, start, size, distort)
        return Made(self.sample(index, guide, self.upsampling.kind), guide)

    def _enlarges_alone(self, restore: bool) -> bool:
        """Whether an image is the upscale model's own, so that no flow is needed. restore: see `image`."""
        return self.upscale_model is not None and not self.takes_flow(restore)

    def _by_upscale_model(self, image: Tensor, size: tuple[int, int], distort: bool, restore: bool = False) -> Tensor:
        """An image as the upscale model enlarges it to a size (height, width)."""
        return enlarged(image, size, self.upscale_model, distort, self.tileable, restore)

    def _shown(
        self, made: Made, size: tuple[int, int], small: Tensor | None, distort: bool, came_in: bool = False
    ) -> Tensor:
        """The image of what a stage has made, at the stage's size (height, width), in [-1,1].

        small: the small image, whose content it gets back; None: the decoded latent is left as it is. came_in: whether
        that is an image that came in. Behind an upscale model one of a decoded latent does not count: the model has
        cleaned it of what the codec does to it.
        """
        if small is not None and made.enlarged is not None and self._enlarges_alone(restore=True):
            return self._fitted(made.enlarged, size)
        image = self._decoded(made.latent, size)
        if small is None:
            return image
        if made.enlarged is not None:
            before = self._decoded(made.guide, size)
            image = retouched(self._fitted(made.enlarged, size), before, image, made.ratio, self.tileable)
            if not came_in:
                return image
        return each_back_projected(image, small, distort, self.tileable)

    @property
    def _codec(self) -> Codec:
        assert self.codec is not None, "the callers check that there is one where it is needed"
        return self.codec

    def _encoded(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (height, width) at which an image is encoded: a period must be of whole latents."""
        y, x = self.tileable.y, self.tileable.x
        return size[0] + (-size[0] % self.unit if y else 0), size[1] + (-size[1] % self.unit if x else 0)

    def _decoded(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """The latent's image at a stage's size (height, width), in [-1,1]."""
        image = self._fitted(self._codec.decode(latent), size)
        check_finite(image, "The decoded image")
        return image.clamp(-1, 1)

    def _fitted(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """An image as it is encoded or decoded, without the edge that fills up the last latents."""
        height, width = self._encoded(size)
        return resize(image[..., :height, :width], size, tileable=self.tileable)
