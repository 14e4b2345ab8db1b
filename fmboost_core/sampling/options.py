"""Sampling options, and their resolution against a model's specification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ConfigError
from ..spec import ModelSpec, require_strength
from ..tiles import Tileable, parse_tileable
from .guide import UPSAMPLERS
from .keywords import plain_fields
from .schedule import start_alpha_bar
from .solvers import check_solver


class Behind(NamedTuple):
    """What the flow does behind an upscale model, where no strength is asked for.

    strength: of the flow, in place of the model's own. textured: whether images get the flow's texture; otherwise they
    are the upscale model's, and the flow makes latents alone.
    """

    strength: float
    textured: bool


# Most upscale models draw edges and most of the detail, of every model's guides.
BEHIND_OTHERS = Behind(0.3, textured=True)
# The bundled ones draw texture, too: the flow's changed images by 0.5 of 255 or less, for six times the work.
BEHIND_BUNDLED = Behind(0.05, textured=False)


def flow_behind(upscale_model: object | None) -> Behind | None:
    """What the flow does behind an upscale model, which may name it in its attribute `behind`; None without one."""
    return None if upscale_model is None else getattr(upscale_model, "behind", BEHIND_OTHERS)


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample. None stands for the model's own value.

    nfe: number of function evaluations in each stage. solver: one of `solvers.SOLVERS`. tolerance: of the adaptive
    solvers, which ignore nfe.
    noise_step: of the start, 0 (no noise) to 999.
    strength: how much of what the flow changes is kept, above 0 to `MAX_STRENGTH`; 1 is the flow's own end, more is
        crisper, less is nearer to the guide. Behind an upscale model None stands for what `flow_behind` it tells.
    upsample: how guides are made, one of `guide.UPSAMPLERS`.
    tile: "auto", None (no tiles), or a side in latents. overlap: of the tiles, in latents (None: `DEFAULT_OVERLAP`).
    tileable: the axes along which the image is a seamless texture and stays one, "x", "y" or "both"; None: neither.
    """

    nfe: int | None = None
    solver: str = "euler"
    tolerance: float = 1e-3
    noise_step: int | None = None
    strength: float | None = None
    upsample: str | None = None
    tile: int | str | None = "auto"
    overlap: int | None = None
    tileable: str | None = None

    def __post_init__(self) -> None:
        plain_fields(self)

    def resolve(self, spec: ModelSpec, alpha_bar: float | None = None, behind: Behind | None = None) -> ResolvedOptions:
        """These options with the model's own values filled in.

        alpha_bar: of a start that exists already; noise_step is then not looked at. behind: of the upscale model that
        enlarges the images of guides, or None. Raises `ConfigError` for an unknown name, a strength
        out of range, an nfe that the solver's steps cannot spend, and an upscale model where guides are not made of
        images.
        """
        own = spec.strength if behind is None else behind.strength
        strength = own if self.strength is None else self.strength
        require_strength(strength)
        upsample = (spec.guide if behind is None else "psu") if self.upsample is None else self.upsample
        if upsample not in UPSAMPLERS:
            raise ConfigError(f"There is no upsampling {upsample!r}; choose one of {', '.join(UPSAMPLERS)}.")
        if behind is not None:
            require_pixel_space(upsample)
        if upsample == "fast" and spec.fast is None:
            raise ConfigError(f"{spec.name} has no guide network, which fast guides need; choose another guide method.")
        nfe = spec.nfe if self.nfe is None else self.nfe
        check_solver(self.solver, nfe, own=self.nfe is None)
        if alpha_bar is None:
            alpha_bar = start_alpha_bar(spec, spec.noise_step if self.noise_step is None else self.noise_step)
        axes = parse_tileable(self.tileable)
        return ResolvedOptions(
            nfe, self.solver, self.tolerance, alpha_bar, strength, upsample, self.tile, self.overlap, axes,
            textured=behind is None or behind.textured or self.strength is not None,
        )  # fmt: skip


@dataclass(frozen=True)
class ResolvedOptions:
    """`SamplingOptions` for one model, with nothing left to decide.

    alpha_bar: the signal kept in each start. textured: whether an image behind an upscale model gets the flow's
    texture.
    """

    nfe: int
    solver: str
    tolerance: float
    alpha_bar: float
    strength: float
    upsample: str
    tile: int | str | None
    overlap: int | None
    tileable: Tileable
    textured: bool

    def resolve(self, spec: ModelSpec, alpha_bar: float | None = None, behind: Behind | None = None) -> ResolvedOptions:
        """These options: they are resolved already. Raises `ConfigError` where an upscale model does not fit them."""
        if behind is not None:
            require_pixel_space(self.upsample)
        return self

    def takes_flow(self, restore: bool = True) -> bool:
        """Whether the flow takes part in an image; otherwise that is the upscale model's own. Latents always take it.

        restore: whether the image is restored. One that is not is a decoded latent.
        """
        return self.textured or not restore


def require_pixel_space(upsample: str) -> None:
    """Refuse an upscale model behind a guide method that works on latents: `ConfigError`."""
    if upsample != "psu":
        raise ConfigError(
            f"An upscale model enlarges images, but the guide method {upsample} works on latents; choose psu, or leave "
            "the upscale model out."
        )
