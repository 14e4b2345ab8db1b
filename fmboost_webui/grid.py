"""X/Y/Z plots: an axis for each option, which sets an attribute of the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import scripts

from fmboost_core.sampling.solvers import SOLVERS

from . import hires, upscale_model
from .models import AUTOMATIC
from .options import GUIDE_METHODS


def add_axes() -> None:
    """Add our axes to the host's X/Y/Z plot."""
    for data in scripts.scripts_data:
        if hasattr(data.module, "axis_options") and hasattr(data.module, "AxisOptionTxt2Img"):
            data.module.axis_options.extend(_axes(data.module.AxisOptionTxt2Img))


def _axes(axis: Callable[..., Any]) -> list[Any]:
    return [
        axis("[FMBoost] Evaluations", int, _sets("hr_second_pass_steps")),
        axis("[FMBoost] Model", str, _option("model"), choices=lambda: [AUTOMATIC, *(m.name for m in hires.MODELS)]),
        axis("[FMBoost] Noise step", int, _option("noise_step")),
        axis("[FMBoost] Strength", float, _option("strength")),
        axis("[FMBoost] Solver", str, _option("solver"), choices=lambda: list(SOLVERS)),
        axis("[FMBoost] Guide method", str, _option("upsample"), choices=lambda: list(GUIDE_METHODS)),
        axis("[FMBoost] Upscale model", str, _option("upscale_model"), choices=upscale_model.choices),
        axis("[FMBoost] Refine", str, _option("refine"), choices=lambda: ["False", "True"]),
    ]


def _option(name: str) -> Callable[[Any, Any, Any], None]:
    return _sets(hires.OVERRIDE + name)


def _sets(attribute: str) -> Callable[[Any, Any, Any], None]:
    return lambda p, value, values: setattr(p, attribute, value)
