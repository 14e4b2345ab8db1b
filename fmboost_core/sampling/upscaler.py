"""Upscaling: a small latent or image becomes a large one.

    guide = E(UP(D(latent)))                                    pixel-space upsampling (PSU): guide.py
            UP: interpolation, or an upscale model              upscale_model.py
    or      a network's, of the latent alone                    the fast guide: fast_guide.py, networks/guide.py
    start = sqrt(alpha_bar) guide + sqrt(1 - alpha_bar) noise   noise augmentation: schedule.py
    end   = start + integral of v(x, t, guide), t: 0 -> 1       the flow: flow.py, solvers.py, tiling.py, networks/
    made  = guide + strength (end - guide)                      1: the end itself
    image = D(made), with the small image's content              restoring: restore.py
            or an upscale model's, with the flow's texture; or behind a bundled one its own, without any flow

A target beyond the upscale factor of training takes several stages (cascade.py, target.py). Behind an upscale model,
which can be applied again, it takes one. `Upscaler` holds a model, a codec and the options; `boost` and `upscale_image`
are short forms of it, and `flow` is the flow of a stage alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codecs.periodic import periodic
from ..codecs.protocol import Codec
from ..errors import LatentError
from ..families import FAMILIES
from ..imaging.alpha import fill_hidden
from ..imaging.resample import cover, resize
from ..model import Model
from .cascade import Cascade
from .checks import (
    check_bare_scale,
    check_crop,
    check_decoded,
    check_finite,
    check_image,
    check_latent,
    check_objective,
    check_pair,
    require_codec,
)
from .flow import Flow
from .guide import LatentUpsampling, latent_size
from .hooks import Hooks, Stage
from .keywords import grouped
from .options import BEHIND_OTHERS, ResolvedOptions, SamplingOptions, flow_behind
from .schedule import Noise, Seed, noise_augment, seeded_noise
from .target import Target, stage_sizes
from .tiling import Tiling, choose_tiling
from .upscale_model import UpscaleModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .keywords import FlowKeywords, Keywords


class Upscaler:
    """A model and a codec of one family with sampling options; it upscales latents and images.

    codec: it may be None for latents whose guides are made of latents, as by a model with a fast guide.
    upscale_model: enlarges images in pixel-space upsampling, such as Real-ESRGAN; None: bilinear interpolation does.
    Options that are not resolved yet are resolved here, against the model's specification. Raises `ConfigError` for
    options that do not fit the model, `LatentError` for a codec of another family.
    """

    def __init__(
        self,
        model: Model,
        codec: Codec | None,
        options: SamplingOptions | ResolvedOptions | None = None,
        hooks: Hooks | None = None,
        upscale_model: UpscaleModel | None = None,
    ) -> None:
        check_pair(model, codec)
        self.model, self.codec, self.hooks, self.upscale_model = model, codec, hooks or Hooks(), upscale_model
        self.options = (options or SamplingOptions()).resolve(model.spec, behind=flow_behind(upscale_model))
        self.unit = FAMILIES[model.spec.family].downscale_factor
        if self.options.upsample == "psu":
            require_codec(codec, "The guide method psu", "give a codec, or a model with a fast guide")

    def latent(self, latent: Tensor, target: Target, noise: Noise, image: Tensor | None = None) -> Tensor:
        """The large latent (B,C,H,W) of the small one (B,C,h,w), both scaled, in the small one's type.

        noise: a callable that takes a shape and returns standard normal noise of that shape, called once a stage.
        image: the decoded small latent (B,3,8h,8w) in [-1,1], to save decoding it again.
        """
        sizes = self._bare_sizes(latent, target, image)
        return self._cascade(sizes, noise).latent(latent.float(), image, target.distorts).to(latent)

    def image_of_latent(
        self, latent: Tensor, target: Target, noise: Noise, image: Tensor | None = None, restore: bool = True
    ) -> Tensor:
        """The image alone that `latent_and_image` makes, for the least work. The arguments are the same."""
        require_codec(self.codec, "An image", "give a codec")
        cascade = self._cascade(self._latent_sizes(latent, target, image), noise)
        self.hooks.check_cancelled()
        return cascade.image_of_latent(latent.float(), image, target.distorts, restore)

    def latent_and_image(
        self, latent: Tensor, target: Target, noise: Noise, image: Tensor | None = None, restore: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The large latent as `latent` makes it, and its image (B,3,8H,8W) in [-1,1].

        restore: whether the image gets the small image's content back (`restore.back_projected`), or behind an upscale
        model is the enlarged one, with the flow's texture (`restore.retouched`) or without (`options.Behind`).
        The other arguments are those of `latent`.
        """
        require_codec(self.codec, "An image", "give a codec")
        cascade = self._cascade(self._bare_sizes(latent, target, image), noise)
        large, shown = cascade.latent_and_image(latent.float(), image, target.distorts, restore)
        return large.to(latent), shown

    def _bare_sizes(self, latent: Tensor, target: Target, image: Tensor | None) -> list[tuple[int, int]]:
        """`_latent_sizes` where the latent itself is put out: with a warning where it will be blurred."""
        sizes = self._latent_sizes(latent, target, image)
        if self.options.upsample == "fast":
            check_bare_scale(self.model, (latent.shape[-2] * self.unit, latent.shape[-1] * self.unit), sizes)
        return sizes

    def _latent_sizes(self, latent: Tensor, target: Target, image: Tensor | None) -> list[tuple[int, int]]:
        """The (height, width) in pixels after each stage, from a small latent. The inputs are checked."""
        check_latent(latent, self.model)
        unit = self.unit
        if image is not None:
            check_decoded(image, latent, unit)
        start = (latent.shape[-2] * unit, latent.shape[-1] * unit)
        end = target.pixels(start, self.model.spec.scale, unit)
        check_crop(start, end, target.distorts, self.options.tileable)
        return [_to_unit(size, unit) for size in self._stage_sizes(start, end)]

    def _stage_sizes(self, start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
        """The (height, width) in pixels after each stage of the flow; an upscale model comes to any size in one."""
        sizes = stage_sizes(start, end, self.model.spec.scale)
        return sizes if self.upscale_model is None else sizes[-1:]

    def image(self, image: Tensor, target: Target, noise: Noise, restore: bool = True) -> Tensor:
        """The large image (B,3,H,W) of exactly the target's size, from the small one (B,3,h,w), both in [-1,1].

        A fourth channel is alpha, -1 where it is transparent: it is interpolated, and hidden colours do not count.
        noise: see `latent`. restore: whether the small image's content is put back (`restore.back_projected`).
        """
        check_image(image)
        require_codec(self.codec, "An image", "give a codec")
        start = (image.shape[-2], image.shape[-1])
        end = target.pixels(start, self.model.spec.scale)
        check_crop(start, end, target.distorts, self.options.tileable)
        colours, alpha = image[:, :3].float(), image[:, 3:].float()
        if alpha.numel():
            colours = fill_hidden(colours, (alpha + 1) / 2)
            fit = resize if target.distorts else cover
            alpha = fit(alpha, end, tileable=self.options.tileable).clamp(-1, 1)
        cascade = self._cascade(self._stage_sizes(start, end), noise)
        self.hooks.check_cancelled()
        large = cascade.image(colours, target.distorts, restore)
        return (torch.cat([large, alpha], dim=1) if alpha.numel() else large).to(image)

    def _cascade(self, sizes: Sequence[tuple[int, int]], noise: Noise) -> Cascade:
        latents = [latent_size(size, self.unit) for size in sizes]
        o, network = self.options, self.model.spec.network
        tilings = [choose_tiling(network, *size, o.tile, o.overlap, o.tileable) for size in latents]
        tiles = sum(tiling.count(*size) for tiling, size in zip(tilings, latents, strict=True))
        flow = Flow(self.model, o, self.hooks, tiles)

        def sample(index: int, guide: Tensor, kind: str) -> Tensor:
            self.hooks.check_cancelled()
            check_finite(guide, "The guide (the upsampled input)")
            return self._sample(flow, guide, kind, noise, tilings[index], (index, sizes))

        codec = None if self.codec is None else periodic(self.codec, o.tileable)
        upsampling = None
        if o.upsample != "psu":
            largest, least = max(map(max, latents)), min(tiling.tile for tiling in tilings)
            tile = least if least < largest else None
            upsampling = LatentUpsampling(o.upsample, self.unit, self.model.guide, tile, o.tileable)
        return Cascade(codec, sizes, sample, self.unit, upsampling, o.tileable, self.upscale_model, o.takes_flow)

    def _sample(
        self, flow: Flow, guide: Tensor, kind: str, noise: Noise, tiling: Tiling,
        stage: tuple[int, Sequence[tuple[int, int]]],
    ) -> Tensor:  # fmt: skip
        """One stage: the start from the guide, and the flow from there."""
        start = guide
        if self.options.alpha_bar != 1:
            start = noise_augment(guide, self.options.alpha_bar, noise(tuple(guide.shape)))
        end, evaluations = flow(start, guide, kind, tiling)
        check_finite(end, "The upscaled latent")
        if self.hooks.on_stage is not None:
            index, sizes = stage
            tiles = tiling.count(guide.shape[-2], guide.shape[-1])
            self.hooks.on_stage(Stage(index + 1, len(sizes), sizes[index], tiles, evaluations))
        return end


def boost(
    latent: Tensor,
    model: Model,
    codec: Codec | None,
    *,
    seed: Seed = 0,
    noise: Noise | None = None,
    image: Tensor | None = None,
    upscale_model: UpscaleModel | None = None,
    **keywords: Unpack[Keywords],
) -> Tensor:
    """Upscale a small scaled latent.

    latent: (B,C,h,w) floats of the model's family, any h, w >= 1. Returns (B,C,H,W) of the same type and device.
    codec: see `Upscaler`; a model with a fast guide needs none.
    seed: item i draws its noise from a generator seeded with seed + i, or with the i-th of a list; the stages draw in
        order. It may be a `torch.Generator`, see `seeded_noise`. noise: instead, a callable that takes a shape and
        returns standard normal noise of that shape.
    image: the decoded small latent (B,3,8h,8w) in [-1,1], to save decoding it again.
    upscale_model: see `Upscaler`.
    keywords: the fields of `Target` (scale, size, megapixels, stretch), `SamplingOptions` (nfe, solver, tolerance,
        noise_step, strength, upsample, tile, overlap, tileable) and `Hooks` (progress, cancelled, on_state, on_stage).
        The target is at least as large as the latent's image and rounds to multiples of 8 pixels; by default it is the
        model's scale.

    Raises ConfigError, LatentError, NonFiniteError, Cancelled.
    """
    target, options, hooks = grouped(keywords, Target, SamplingOptions, Hooks)
    upscaler = Upscaler(model, codec, options, hooks, upscale_model)
    return upscaler.latent(latent, target, noise or seeded_noise(seed, _batch(latent)), image)


def upscale_image(
    image: Tensor,
    model: Model,
    codec: Codec,
    *,
    seed: Seed = 0,
    noise: Noise | None = None,
    restore: bool = True,
    upscale_model: UpscaleModel | None = None,
    **keywords: Unpack[Keywords],
) -> Tensor:
    """Upscale an image (B,3 or 4,H,W) in [-1,1], any H, W >= 1, to exactly the target's size; returns it in [-1,1].

    A fourth channel is alpha, -1 where it is transparent.

    The first guide is encoded from the image itself. restore: whether the result, reduced again, is to be the small
    image, so that colours, text and faces stay and the flow only adds to them. Behind an upscale model that image's
    texture comes first (`restore.retouched`); behind a bundled one the flow takes no part, unless a strength is given.
    The other arguments are those of `boost`.
    """
    target, options, hooks = grouped(keywords, Target, SamplingOptions, Hooks)
    upscaler = Upscaler(model, codec, options, hooks, upscale_model)
    return upscaler.image(image, target, noise or seeded_noise(seed, _batch(image)), restore)


def flow(
    start: Tensor,
    guide: Tensor,
    model: Model,
    *,
    kind: str = "latent",
    alpha_bar: float | None = None,
    **keywords: Unpack[FlowKeywords],
) -> Tensor:
    """Carry a start from t=0 to t=1 under its guide: the flow of one stage alone.

    start, guide: (B,C,h,w) scaled latents of the model's family, of one shape; the start is what `noise_augment` makes
    of the guide. kind: what the guide was encoded from, one of `GUIDE_KINDS`. alpha_bar: the signal kept in the start;
    None: that of the keyword noise_step, or the model's own. keywords: nfe, solver, tolerance, noise_step, strength,
    tile, overlap and tileable of `SamplingOptions`; progress, cancelled and on_state of `Hooks`.
    """
    options, hooks = grouped(keywords, SamplingOptions, Hooks)
    check_objective(model)
    for latent in (start, guide):
        check_latent(latent, model)
    if start.shape != guide.shape:
        raise LatentError(
            f"The start is {tuple(start.shape)} and the guide {tuple(guide.shape)}; make both of one size."
        )
    height, width = start.shape[-2:]
    resolved = options.resolve(model.spec, alpha_bar, behind=BEHIND_OTHERS if kind == "enlarged" else None)
    tiling = choose_tiling(model.spec.network, height, width, options.tile, options.overlap, resolved.tileable)
    run = Flow(model, resolved, hooks, tiling.count(height, width))
    with torch.no_grad():
        end, _ = run(start.float(), guide.float(), kind, tiling)
    check_finite(end, "The upscaled latent")
    return end.to(start)


def _batch(x: Tensor) -> int:
    """The number of items; 1 for what is no batch, which `Upscaler` then refuses in its own words."""
    return x.shape[0] if isinstance(x, Tensor) and x.ndim == 4 else 1


def _to_unit(size: tuple[int, int], unit: int) -> tuple[int, int]:
    return max(unit, round(size[0] / unit) * unit), max(unit, round(size[1] / unit) * unit)
