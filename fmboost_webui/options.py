"""What a person sets: the dropdown's entries, the accordion's values, and both as infotext. Knows no host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from fmboost_core.errors import CheckpointError, ConfigError
from fmboost_core.files.checkpoint import read_spec
from fmboost_core.files.locate import bundled_models
from fmboost_core.sampling.guide import UPSAMPLERS
from fmboost_core.sampling.solvers import ADAPTIVE, SOLVERS, check_solver
from fmboost_core.sampling.target import Target, stage_sizes
from fmboost_core.sampling.tiling import parse_tile
from fmboost_core.spec import ModelSpec

AUTOMATIC = "Automatic"
OWN_NOISE_STEP = -1  # the model's own
SUFFIX = ".safetensors"


# --- models and their entries in the dropdown


@dataclass(frozen=True)
class Found:
    """A model that can be chosen: its name in the page, where it is, and what it is for."""

    name: str
    source: str
    spec: ModelSpec
    bundled: bool


def find_models(folder: Path) -> tuple[list[Found], list[str]]:
    """The bundled models and those of a folder and its subfolders; and a sentence for each file that is none."""
    own = {path.relative_to(folder).as_posix().removesuffix(SUFFIX): path for path in folder.rglob(f"*{SUFFIX}")}
    found = [_found(name, name, True) for name in bundled_models()]
    found += [_found(name, str(path), False) for name, path in sorted(own.items())]
    return [m for m in found if isinstance(m, Found)], [m for m in found if isinstance(m, str)]


def _found(name: str, source: str, bundled: bool) -> Found | str:
    try:
        return Found(name, source, read_spec(source), bundled)
    except CheckpointError as error:
        return str(error)


def entries(models: Iterable[Found]) -> dict[str, str]:
    """Names in the dropdown, and the model each stands for: `AUTOMATIC` is the bundled one of the family."""
    named = {f"FMBoost {_times(m)}": AUTOMATIC for m in models if m.bundled}
    return named | {f"FMBoost {_times(m)} ({m.name})": m.name for m in models if not m.bundled}


def choose_model(models: Sequence[Found], entry: str, wish: str, family: str | None) -> Found:
    """The model of an entry, or of the accordion's wish. Raises `ConfigError` when none fits the family.

    family: the checkpoint's; None, that it is not known yet, fits all.
    """
    name = wish if wish != AUTOMATIC else entries(models).get(entry, AUTOMATIC)
    if name == AUTOMATIC:
        bundled = [m for m in models if m.bundled and f"FMBoost {_times(m)}" == entry]
        fitting = [m for m in bundled if family in (None, m.spec.family)]
        if not fitting:
            known = sorted({m.spec.family for m in bundled})
            raise ConfigError(
                f"{entry} has no weights for {family} checkpoints, only for {', '.join(known) or 'none'}; choose "
                "another upscaler, or a checkpoint of these."
            )
        return fitting[0]
    model = next((m for m in models if m.name == name), None)
    if model is None:
        raise ConfigError(f"There is no model {name!r}; choose one of {', '.join(m.name for m in models)}.")
    if family not in (None, model.spec.family):
        raise ConfigError(f"The model {name} is for {model.spec.family} checkpoints, but this one is {family}.")
    return model


def _times(model: Found) -> str:
    return f"{model.spec.scale:g}x"


def describe(
    model: Found, size: tuple[int, int], target: tuple[int, int], steps: int, solver: str, refine: bool
) -> str:
    """What the pass will do, as HTML: sizes are (width, height) in pixels, steps the hires steps.

    Raises `ConfigError` where the solver cannot spend the steps, or the target is smaller than the size.
    """
    own = refine or not steps
    nfe = model.spec.nfe if own else steps
    check_solver(solver, nfe, own)
    end = Target(size=target).pixels((size[1], size[0]), model.spec.scale)
    stages = len(stage_sizes((size[1], size[0]), end, model.spec.scale))
    evaluations = "as many evaluations as needed" if solver in ADAPTIVE else _plural(nfe * stages, "evaluation")
    line = (
        f"{size[0]}x{size[1]} &rarr; <b>{target[0]}x{target[1]}</b> with {escape(model.name)}, "
        f"{_plural(stages, 'stage') + ', ' if stages > 1 else ''}{evaluations}. "
    )
    if refine:
        return line + "Then the sampler refines it, with hires steps, prompt and denoising strength."
    return line + "Hires prompt, sampler, checkpoint and denoising strength are not used."


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


# --- the accordion


@dataclass(frozen=True)
class Options:
    """The accordion's values, in its order, which is also that of the API's `args`."""

    model: str = AUTOMATIC
    noise_step: int = OWN_NOISE_STEP
    solver: str = "euler"
    guide: str = "psu"
    tile: str = "auto"
    refine: bool = False

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, tuple(SOLVERS))
        _one_of("guide method", self.guide, UPSAMPLERS)
        parse_tile(str(self.tile))
        if not OWN_NOISE_STEP <= self.noise_step < 1000:
            raise ConfigError(f"The noise step is 0 to 999, or -1 for the model's own, but it is {self.noise_step}.")

    @classmethod
    def of(cls, args: Sequence[Any], overrides: Mapping[str, Any]) -> Options:
        """From the page's or the API's args, of which the last may be missing, and what an X/Y/Z plot overrides."""
        names = [field.name for field in fields(cls)]
        if len(args) > len(names):
            raise ConfigError(f"FMBoost takes {len(names)} arguments ({', '.join(names)}), but got {len(args)}.")
        values = dict(zip(names, args, strict=False)) | dict(overrides)
        return cls(**{name: _as_type(cls, name, value) for name, value in values.items()})

    @property
    def own_noise_step(self) -> int | None:
        """The core's `noise_step`: None is the model's own."""
        return None if self.noise_step == OWN_NOISE_STEP else self.noise_step


def _as_type(options: type[Options], name: str, value: Any) -> Any:
    """JSON and sliders give 400.0, X/Y/Z plots give text."""
    kind = type(getattr(options, name))
    if kind is bool and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if kind is int and isinstance(value, (str, float)) and re.fullmatch(r"-?\d{1,6}(\.0*)?", str(value)):
        value = int(float(value))
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"FMBoost's {name} must be of type {kind.__name__}, but it is {value!r}.")
    return value


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"There is no {what} {value!r}; choose one of {', '.join(known)}.")


# --- infotext


_KEYS = {
    "model": "FMBoost model",
    "noise_step": "FMBoost noise step",
    "solver": "FMBoost solver",
    "guide": "FMBoost guide",
    "refine": "FMBoost refine",
}  # tiles change nothing that is seen
INFOTEXT_KEYS = tuple(_KEYS.values())


def to_infotext(options: Options, model: str) -> dict[str, Any]:
    """What the infotext has to hold to make the same picture again: the model, and whatever is not the default."""
    values = {name: getattr(options, name) for name in _KEYS} | {"model": model}
    return {_KEYS[name]: value for name, value in values.items() if value != getattr(Options, name)}


def from_infotext(name: str, params: Mapping[str, Any]) -> Any:
    """The accordion's value of a pasted infotext; None, which changes nothing, where that is not FMBoost's."""
    if _KEYS["model"] not in params:
        return None
    value = params.get(_KEYS.get(name, ""), getattr(Options, name))
    return _as_type(Options, name, value)
