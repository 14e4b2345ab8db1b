"""The whole story: a small latent or picture becomes a large one.

    guide = E(UP(D(latent)))                                    upsample.py
    start = sqrt(alpha_bar) guide + sqrt(1 - alpha_bar) noise   schedule.py
    end   = start + integral of v(x, t, guide), t: 0 -> 1       solvers.py, unet.py, tiling.py

A target beyond the trained scale is reached in stages; the end of one is the small latent or picture of the next, a
picture with the content that came in (`upsample.restored`), so that neither colours nor shapes drift.
Sizes are (height, width) inside, and (width, height) in pixels where people give them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import Cancelled, ConfigError, FMBoostWarning, LatentError, NonFiniteError
from ..families import families_with
from ..model import Model
from .guide import UPSAMPLERS, image_guide, latent_size, latent_upsample
from .hooks import Hooks, Stage
from .restore import restored
from .schedule import Noise, noise_augment, seeded_noise, start_signal
from .solvers import ADAPTIVE, check_solver, solve
from .target import stage_sizes, target_size
from .tiling import Tiling, choose_tiling, tiled_velocity


def boost(
    latent: Tensor,
    model: Model,
    codec: Codec,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    megapixels: float | None = None,
    stretch: bool = False,
    upsample: str | None = None,
    nfe: int | None = None,
    solver: str = "euler",
    tolerance: float = 1e-3,
    noise_step: int | None = None,
    seed: int | Sequence[int] = 0,
    noise: Noise | None = None,
    image: Tensor | None = None,
    tile: int | str | None = "auto",
    halo: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_state: Callable[[float, Tensor], None] | None = None,
    on_stage: Callable[[Stage], None] | None = None,
) -> Tensor:
    """Carry a small scaled latent to a large one.

    latent: (B,C,h,w) floats of the model's family, any h, w >= 1. Returns (B,C,H,W) of the same type and device.
    scale (default: the model's), size (width, height) in pixels, or megapixels: the target, a multiple of 8
        pixels (others round to the nearest), at least the latent's. Another aspect in `size` covers and cuts at the
        centre, unless `stretch`.
    upsample: how guides are made, "psu" (default: the model's), "bilinear" or "nearest".
    nfe: evaluations of the network in each stage (default: the model's); solver: see `solvers.SOLVERS`; the
        adaptive ones hold `tolerance` instead and treat the items of a batch one by one.
    noise_step: 0 (none) to 999 (default: the model's); warns where the network was not trained at it.
    seed: item i draws from a generator seeded with seed + i, or from the i-th of a list; a cascade's stages draw
        in order. noise: instead, a callable that takes the shape and returns standard normal noise.
    image: the small picture (B,3,8h,8w) in [-1,1] where it is at hand, so that the first guide needs no decoding.
    tile: "auto", None or a side in latents; halo: what of its surroundings a tile sees (`tiling`).
    progress, cancelled, on_state, on_stage: see `Hooks`.

    Raises ConfigError, LatentError, NonFiniteError, Cancelled.
    """
    _check_latent(latent, model)
    _check_codec(model, codec)
    unit = codec.factor
    start = (latent.shape[-2] * unit, latent.shape[-1] * unit)
    end = target_size(start, scale=scale, target=size, megapixels=megapixels, default=model.spec.scale, unit=unit)
    sizes = [_to_unit(s, unit) for s in stage_sizes(start, end, model.spec.scale)]
    run = _Run(
        model,
        codec,
        sizes,
        _upsampler(upsample, model),
        _settings(model, nfe, solver, tolerance),
        start_signal(model.spec, noise_step),
        noise or seeded_noise(seed, latent.shape[0]),
        (tile, halo),
        Hooks(progress, cancelled, on_state, on_stage),
    )
    return run.latent(latent.float(), image, stretch or size is None).to(latent)


def flow(
    start: Tensor,
    guide: Tensor,
    model: Model,
    *,
    nfe: int | None = None,
    solver: str = "euler",
    tolerance: float = 1e-3,
    kind: str = "latent",
    noise_step: int | None = None,
    tile: int | str | None = "auto",
    halo: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_state: Callable[[float, Tensor], None] | None = None,
) -> Tensor:
    """The heart of a stage alone: carry a start from t=0 to t=1 under its guide.

    start, guide: (B,C,h,w) scaled latents of the model's family, of one shape; start is what `noise_augment` makes
    of the guide. kind: what the guide was made from, one of `GUIDE_KINDS`; noise_step: of the start (default: the
    model's). The other arguments are `boost`'s.
    """
    for latent in (start, guide):
        _check_latent(latent, model)
    if start.shape != guide.shape:
        raise LatentError(f"The start is {tuple(start.shape)} and the guide {tuple(guide.shape)}; they must be alike.")
    tiling = choose_tiling(model.spec.network, start.shape[-2], start.shape[-1], tile, halo)
    settings = _settings(model, nfe, solver, tolerance)
    hooks = Hooks(progress, cancelled, on_state)
    signal = start_signal(model.spec, noise_step)
    run = _Flow(model, settings, signal, hooks, tiling.count(start.shape[-2], start.shape[-1]))
    with torch.no_grad():
        end, _ = run(start.float(), guide.float(), kind, tiling)
    _check_finite(end, "The boosted latent")
    return end.to(start)


def upscale_image(
    image: Tensor,
    model: Model,
    codec: Codec,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    megapixels: float | None = None,
    stretch: bool = False,
    upsample: str | None = None,
    nfe: int | None = None,
    solver: str = "euler",
    tolerance: float = 1e-3,
    noise_step: int | None = None,
    seed: int | Sequence[int] = 0,
    noise: Noise | None = None,
    restore: bool = True,
    tile: int | str | None = "auto",
    halo: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_state: Callable[[float, Tensor], None] | None = None,
    on_stage: Callable[[Stage], None] | None = None,
) -> Tensor:
    """Carry a picture (B,3,H,W) in [-1,1], any H, W >= 1, to one of exactly the size asked for, in [-1,1].

    The arguments are `boost`'s. The first guide is made from the picture itself; the size is exact to the pixel.
    restore: whether the large picture, reduced again, is to be the small one: colours, text and faces stay what they
        were, and the flow adds to them (`upsample.restored`). Only where guides are made from pictures ("psu").
    """
    _check_image(image)
    _check_codec(model, codec)
    start = (image.shape[-2], image.shape[-1])
    end = target_size(start, scale=scale, target=size, megapixels=megapixels, default=model.spec.scale)
    run = _Run(
        model,
        codec,
        stage_sizes(start, end, model.spec.scale),
        _upsampler(upsample, model),
        _settings(model, nfe, solver, tolerance),
        start_signal(model.spec, noise_step),
        noise or seeded_noise(seed, image.shape[0]),
        (tile, halo),
        Hooks(progress, cancelled, on_state, on_stage),
        restore,
    )
    return run.picture(image.float(), stretch or size is None).to(image)


@dataclass(frozen=True)
class _Settings:
    """How a stage is solved."""

    nfe: int
    solver: str
    tolerance: float


def _settings(model: Model, nfe: int | None, solver: str, tolerance: float) -> _Settings:
    _check_flow(model)
    evaluations = model.spec.nfe if nfe is None else nfe
    check_solver(solver, evaluations, own=nfe is None)
    return _Settings(evaluations, solver, tolerance)


def _upsampler(upsample: str | None, model: Model) -> str:
    method = model.spec.guide if upsample is None else upsample
    if method not in UPSAMPLERS:
        raise ConfigError(f"There is no upsampling {method!r}; choose one of {', '.join(UPSAMPLERS)}.")
    return method


def _to_unit(size: tuple[int, int], unit: int) -> tuple[int, int]:
    return max(unit, round(size[0] / unit) * unit), max(unit, round(size[1] / unit) * unit)


class _Flow:
    """Solves the stages' equations: counts tile evaluations against their total, and stops when asked to."""

    def __init__(self, model: Model, settings: _Settings, alpha_bar: float, hooks: Hooks, tiles: int) -> None:
        """alpha_bar: of the starts; tiles: of all stages together."""
        self.model, self.settings, self.alpha_bar, self.hooks = model, settings, alpha_bar, hooks
        self.total = 0 if settings.solver in ADAPTIVE else tiles * settings.nfe
        self.done = 0

    def __call__(self, start: Tensor, guide: Tensor, kind: str, tiling: Tiling) -> tuple[Tensor, int]:
        """The end of the flow, and the evaluations spent on it."""
        if self.settings.solver not in ADAPTIVE:
            return self._solve(start, guide, kind, tiling)
        # The step size follows the error of everything solved together: items must not share it.
        ends = [self._solve(a, b, kind, tiling) for a, b in zip(start.split(1), guide.split(1), strict=True)]
        return torch.cat([end for end, _ in ends]), max(spent for _, spent in ends)

    def _solve(self, start: Tensor, guide: Tensor, kind: str, tiling: Tiling) -> tuple[Tensor, int]:
        def evaluate(x: Tensor, t: float, guide: Tensor) -> Tensor:
            return self.model.velocity(x, t, guide, kind, self.alpha_bar)

        def velocity(x: Tensor, t: float) -> Tensor:
            return tiled_velocity(evaluate, x, t, guide, tiling, self._advance)

        s = self.settings
        return solve(velocity, start, s.nfe, s.solver, tolerance=s.tolerance, on_step=self.hooks.on_state)

    def check_cancelled(self) -> None:
        if self.hooks.cancelled is not None and self.hooks.cancelled():
            raise Cancelled("Stopped on request.")

    def _advance(self) -> None:
        """After a tile's evaluation: count it, and stop if asked to."""
        self.done += 1
        if self.hooks.progress is not None:
            self.hooks.progress(self.done, self.total)
        self.check_cancelled()


class _Run:
    """One call of `boost` or `upscale_image`: all its stages."""

    def __init__(
        self,
        model: Model,
        codec: Codec,
        sizes: list[tuple[int, int]],
        upsample: str,
        settings: _Settings,
        alpha_bar: float,
        noise: Noise,
        tile: tuple[int | str | None, int | None],
        hooks: Hooks,
        restore: bool = False,
    ) -> None:
        self.codec, self.sizes, self.psu, self.upsample = codec, sizes, upsample == "psu", upsample
        self.noise, self.hooks, self.restore = noise, hooks, restore and self.psu
        latents = [latent_size(size, codec.factor) for size in sizes]
        self.tilings = [choose_tiling(model.spec.network, *size, *tile) for size in latents]
        tiles = sum(tiling.count(*size) for tiling, size in zip(self.tilings, latents, strict=True))
        self.flow = _Flow(model, settings, alpha_bar, hooks, tiles)

    @torch.no_grad()
    def latent(self, latent: Tensor, image: Tensor | None, stretch: bool) -> Tensor:
        """The last stage's latent, from the first stage's small latent and, where it is at hand, its picture."""
        if not self.psu:
            image = None
        elif image is None:
            image = self.codec.decode(latent).clamp(-1, 1)
        for index, size in enumerate(self.sizes):
            whole = stretch or index > 0
            latent = self._stage(index, self._guide(latent, image, size, whole), "latent")
            if image is not None and index + 1 < len(self.sizes):
                image = restored(self._decoded(latent, size), image, whole).clamp(-1, 1)
        return latent

    @torch.no_grad()
    def picture(self, image: Tensor, stretch: bool) -> Tensor:
        """The last stage's picture, from the first stage's small one."""
        latent = None
        for index, size in enumerate(self.sizes):
            whole = stretch or index > 0
            guide = self._guide(latent, image, size, whole)
            # A restored picture has all its detail, as the one that came in; another is a decoded latent.
            kind = "image" if self.psu and (index == 0 or self.restore) else "latent"
            latent = self._stage(index, guide, kind)
            if self.psu or index + 1 == len(self.sizes):
                picture = self._decoded(latent, size)
                image = restored(picture, image, whole).clamp(-1, 1) if self.restore else picture
        return image

    def _stage(self, index: int, guide: Tensor, kind: str) -> Tensor:
        """Follow the flow from a stage's guide."""
        self.flow.check_cancelled()
        _check_finite(guide, "The guide (the enlarged input)")
        before = self.flow.done
        latent, evaluations = self.flow(self._start(guide), guide, kind, self.tilings[index])
        _check_finite(latent, "The boosted latent")
        if self.hooks.on_stage is not None:
            tiles = (self.flow.done - before) // max(1, evaluations)
            self.hooks.on_stage(Stage(index + 1, len(self.sizes), self.sizes[index], tiles, evaluations))
        return latent

    def _decoded(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """The latent's picture, without the edge that fills up a latent."""
        picture = self.codec.decode(latent)[..., : size[0], : size[1]]
        _check_finite(picture, "The decoded picture")
        return picture.clamp(-1, 1)

    def _guide(self, latent: Tensor | None, image: Tensor | None, size: tuple[int, int], stretch: bool) -> Tensor:
        if self.psu:
            assert image is not None
            return image_guide(image, self.codec, size, stretch)
        if latent is None:
            assert image is not None
            latent = image_guide(image, self.codec, (image.shape[-2], image.shape[-1]))
        return latent_upsample(latent, latent_size(size, self.codec.factor), self.upsample, stretch)

    def _start(self, guide: Tensor) -> Tensor:
        if self.flow.alpha_bar == 1:
            return guide
        return noise_augment(guide, self.flow.alpha_bar, self.noise(tuple(guide.shape)))


def _check_latent(latent: Tensor, model: Model) -> None:
    spec = model.spec
    if not isinstance(latent, Tensor) or latent.ndim != 4 or not latent.is_floating_point():
        found = f"{tuple(latent.shape)} {latent.dtype}" if isinstance(latent, Tensor) else type(latent).__name__
        raise LatentError(f"A latent must be a float tensor (batch, channels, height, width), but it is {found}.")
    if latent.shape[1] != spec.network.channels:
        raise LatentError(
            f"{spec.name} takes {spec.family} latents with {spec.network.channels} channels, but this one has "
            f"{latent.shape[1]}, which looks like {families_with(latent.shape[1])}."
        )
    if not latent.numel():
        raise LatentError(f"The latent is empty: its shape is {tuple(latent.shape)}.")
    _check_finite(latent, "The latent")
    if latent.numel() > 64 and float(latent.float().std()) > 3:
        warnings.warn(
            "The latent's deviation is above 3: it looks like the VAE's raw scale, but FMBoost takes scaled latents.",
            FMBoostWarning,
            stacklevel=3,
        )


def check_pair(model: Model, codec: Codec) -> None:
    """Raise what `boost` would, before anything else is spent: `ConfigError` for a baseline, `LatentError`."""
    _check_flow(model)
    _check_codec(model, codec)


def _check_flow(model: Model) -> None:
    if model.spec.objective != "cfm":
        raise ConfigError(
            f"{model.spec.name} was trained as a baseline ({model.spec.objective}), which only the command "
            "python -m fmboost_core.evaluation samples; take a model trained by coupling flow matching (cfm)."
        )


def _check_codec(model: Model, codec: Codec) -> None:
    if codec.channels != model.spec.network.channels:
        raise LatentError(
            f"{model.spec.name} takes {model.spec.family} latents with {model.spec.network.channels} channels, but "
            f"the codec makes {codec.channels}, which looks like {families_with(codec.channels)}."
        )


def _check_image(image: Tensor) -> None:
    ok = isinstance(image, Tensor) and image.ndim == 4 and image.shape[1] == 3 and image.is_floating_point()
    if not ok or not image.numel():
        found = f"{tuple(image.shape)} {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
        raise LatentError(f"A picture must be a float tensor (batch, 3, height, width) in [-1,1], but it is {found}.")
    _check_finite(image, "The picture")


def _check_finite(x: Tensor, what: str) -> None:
    if not bool(torch.isfinite(x).all()):
        raise NonFiniteError(f"{what} holds NaN or infinity; check the input and the weights, or use dtype float32.")
