"""Options: the accordion's widgets, their values for the core, the line under the dropdown, infotext. Knows no host."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fmboost_core import SamplingOptions, Target
from fmboost_core.errors import ConfigError
from fmboost_core.files.locate import (
    IMAGE_UPSCALE_MODEL,
    LATENT_UPSCALE_MODEL,
    MEAN_UPSCALE_MODEL,
    latent_upscale_model,
)
from fmboost_core.sampling.guide import UPSAMPLERS
from fmboost_core.sampling.options import BEHIND_BUNDLED, BEHIND_OTHERS
from fmboost_core.sampling.schedule import NOISE_STEPS, trained_steps
from fmboost_core.sampling.solvers import ADAPTIVE, SOLVERS
from fmboost_core.sampling.target import stage_sizes
from fmboost_core.sampling.tiling import parse_tile
from fmboost_core.sampling.widgets import OWN_METHOD, OWN_NFE, OWN_NOISE_STEP, OWN_STRENGTH, or_none
from fmboost_core.spec import ModelSpec, require_strength

from .models import AUTOMATIC, ModelFile

MAX_NOISE_STEP = NOISE_STEPS - 1
GUIDE_METHODS = (OWN_METHOD, *UPSAMPLERS)  # of the dropdown
NO_UPSCALE_MODEL = "None"  # as the host's own lists name it
# The bundled upscale models by their names in the dropdown, and as the core knows them.
BUNDLED_NAMES = {
    "FMBoost latent 2x": LATENT_UPSCALE_MODEL, "FMBoost mean 2x": MEAN_UPSCALE_MODEL,
    "FMBoost image 2x": IMAGE_UPSCALE_MODEL,
}  # fmt: skip

# The accordion's widgets with their first values, in the order of the API's `args`.
WIDGETS: dict[str, Any] = {
    "model": AUTOMATIC, "noise_step": OWN_NOISE_STEP, "solver": "euler", "upsample": OWN_METHOD, "tile": "auto",
    "refine": False, "strength": OWN_STRENGTH, "upscale_model": AUTOMATIC,
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The accordion's values.

    model: a model's name or `AUTOMATIC`. noise_step (0 to 999), upsample, strength: None is the model's own.
    tile: see `SamplingOptions`. refine: whether the host's second pass follows.
    upscale_model: name of what enlarges images in the place of interpolation, of `BUNDLED_NAMES` or of the host's
    upscalers; None: interpolation does; `AUTOMATIC`: see `enlarger`.
    Raises `ConfigError` that names the value.
    """

    model: str
    noise_step: int | None
    solver: str
    upsample: str | None
    tile: int | str | None
    refine: bool
    strength: float | None
    upscale_model: str | None = None

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, SOLVERS)
        if self.upsample is not None:
            _one_of("guide method", self.upsample, UPSAMPLERS)
        if self.noise_step is not None and not 0 <= self.noise_step <= MAX_NOISE_STEP:
            raise ConfigError(
                f"The noise step is 0 to {MAX_NOISE_STEP}, or {OWN_NOISE_STEP} for the model's own, but it is "
                f"{self.noise_step}."
            )
        if self.strength is not None:
            require_strength(self.strength)

    @classmethod
    def of(cls, args: Sequence[Any], overrides: Mapping[str, Any] | None = None) -> Options:
        """From the page's or the API's args, the last of which may be missing, and the values of an X/Y/Z plot."""
        if len(args) > len(WIDGETS):
            raise ConfigError(f"FMBoost takes {len(WIDGETS)} arguments ({', '.join(WIDGETS)}), but got {len(args)}.")
        given = WIDGETS | dict(zip(WIDGETS, args, strict=False)) | dict(overrides or {})
        values = {name: _as_type(name, value) for name, value in given.items()}
        values["noise_step"] = or_none(values["noise_step"], OWN_NOISE_STEP)
        values["upsample"] = or_none(values["upsample"], OWN_METHOD)
        values["strength"] = or_none(values["strength"], OWN_STRENGTH)
        values["upscale_model"] = or_none(values["upscale_model"], NO_UPSCALE_MODEL)
        values["tile"] = parse_tile(values["tile"])
        return cls(**values)

    def enlarger(self, spec: ModelSpec, of_images: bool = False) -> str | None:
        """The upscale model's name for a model: automatic is a bundled one where guides are made of images.

        of_images: whether finished images are enlarged, and not latents.
        """
        if self.upscale_model != AUTOMATIC:
            return self.upscale_model
        if (self.upsample or spec.guide) != "psu":
            return None
        wanted = IMAGE_UPSCALE_MODEL if of_images else latent_upscale_model(spec.family)
        return next(shown for shown, name in BUNDLED_NAMES.items() if name == wanted)

    def sampling(self, steps: int) -> SamplingOptions:
        """The core's options. steps: the hires steps, which are the sampler's where the result is refined."""
        return SamplingOptions(
            nfe=None if self.refine else or_none(steps, OWN_NFE), solver=self.solver, noise_step=self.noise_step,
            upsample=self.upsample, tile=self.tile, strength=self.strength,
        )  # fmt: skip


def _as_type(name: str, value: Any) -> Any:
    """A widget's value in the widget's type: JSON and sliders give 400.0, X/Y/Z plots give text."""
    kind = type(WIDGETS[name])
    if kind is bool and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if kind is int and isinstance(value, (str, float)) and re.fullmatch(r"-?\d{1,6}(\.0*)?", str(value)):
        value = int(float(value))
    if kind is float and ((isinstance(value, int) and not isinstance(value, bool)) or _is_number(value)):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"FMBoost's {name} must be of type {kind.__name__}, but it is {value!r}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"-?\d{1,6}(\.\d*)?", value) is not None


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"There is no {what} {value!r}; choose one of {', '.join(known)}.")


# --- the line under the dropdown


def describe(model: ModelFile, size: tuple[int, int], target: tuple[int, int], options: Options, steps: int) -> str:
    """What the pass will do, as HTML. size, target: (width, height) in pixels. steps: the hires steps.

    Raises `ConfigError` where the solver cannot spend the steps, or the target is smaller than the size.
    """
    spec, enlarger = model.spec, options.enlarger(model.spec)
    behind = None if enlarger is None else BEHIND_BUNDLED if enlarger in BUNDLED_NAMES else BEHIND_OTHERS
    resolved, start = options.sampling(steps).resolve(spec, behind=behind), (size[1], size[0])
    sizes = stage_sizes(start, Target(size=target).pixels(start, spec.scale), spec.scale)
    if enlarger is not None and not resolved.takes_flow() and not options.refine:
        made = f"by {escape(enlarger)} alone"
    else:
        stages = len(sizes) if enlarger is None else 1
        after = "" if enlarger is None else f" behind {escape(enlarger)}"
        own = f" (default {spec.noise_step})" if len(spec.noise_steps) > 1 else ""
        work = f"{_plural(stages, 'stage')}, " if stages > 1 else ""
        work += _evaluations(options.solver, stages * resolved.nfe)
        made = f"with {escape(model.name)}{after}, {work}. Noise step: {trained_steps(spec)}{own}"
    if options.refine:
        then = "Then the sampler refines it, with hires steps, prompt and denoising strength."
    else:
        then = "Hires prompt, sampler, checkpoint and denoising strength are not used."
    return f"{size[0]}x{size[1]} &rarr; <b>{target[0]}x{target[1]}</b> {made}. {then}"


def _evaluations(solver: str, count: int) -> str:
    return "as many evaluations as needed" if solver in ADAPTIVE else _plural(count, "evaluation")


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


# --- infotext


_KEYS = {
    "model": "FMBoost model",
    "noise_step": "FMBoost noise step",
    "solver": "FMBoost solver",
    "upsample": "FMBoost guide",
    "refine": "FMBoost refine",
    "strength": "FMBoost strength",
    "upscale_model": "FMBoost upscale model",
}  # tiles change nothing that is seen
INFOTEXT_KEYS = tuple(_KEYS.values())
# What an infotext means that does not name an option. Older versions took no upscale model unasked.
_UNNAMED = WIDGETS | {"upscale_model": NO_UPSCALE_MODEL}


def to_infotext(options: Options, model: ModelFile) -> dict[str, Any]:
    """What makes the same image again: the model's name, and each option that is not the usual one."""
    usual = Options.of(list(_UNNAMED.values()))
    values = {name: getattr(options, name) for name in _KEYS}
    values |= {"model": model.name, "upscale_model": options.enlarger(model.spec)}
    return {_KEYS[name]: value for name, value in values.items() if value != getattr(usual, name)}


def from_infotext(name: str, params: Mapping[str, Any]) -> Any:
    """A widget's value from a pasted infotext; None, which changes nothing, where that is not FMBoost's."""
    if _KEYS["model"] not in params:
        return None
    return _as_type(name, params.get(_KEYS.get(name, ""), _UNNAMED[name]))
