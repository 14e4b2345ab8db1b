"""Training objectives by name (paper eq. 1-8, Table 2). Network, data and loop are the same for all.

cfm      coupling flow matching, from the noised guide to the high-resolution latent
fm       naive flow matching, from pure noise; the guide is conditioning alone
l1, l2   regression in one step from the guide
dm       diffusion model: noise prediction at 1000 steps, DDIM sampling
reflow   rectified trajectories of a trained flow
decoded  few steps of a trained flow, compared with the ground truth as decoded images
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...errors import ConfigError
from ...sampling.schedule import alpha_bar
from ...spec import ModelSpec
from ..sections import ObjectiveSection
from .decoded import Decode, Decoded, Perceive
from .diffusion import Diffusion
from .flow_matching import CouplingFlow, NaiveFlow
from .objective import Objective, Predict
from .reflow import Reflow
from .regression import Regression
from .weighted import WeightedDistance

# Weights of "decoded" for images and for latents, found by measurement (see the training log).
IMAGES = WeightedDistance(error=2.0, coarse=1.0, texture=6.0, lines=3.0, mean=250.0)
LATENTS = WeightedDistance(error=0.3, texture=0.5, mean=10.0)

Builder = Callable[[ObjectiveSection, Predict | None, Decode | None, Perceive | None], Objective]


def make_objective(
    section: ObjectiveSection, teacher: Predict | None = None, decode: Decode | None = None,
    perceive: Perceive | None = None,
) -> Objective:  # fmt: skip
    """The objective that a recipe's section names.

    teacher: the trained flow that "reflow" rectifies. decode: the decoder of "decoded"; perceive: its features and
    critics, if it has any. Raises `ConfigError` where the objective needs one that is None.
    """
    return BUILDERS[section.name](section, teacher, decode, perceive)


def objective_of(spec: ModelSpec) -> Objective:
    """The objective whose sampler belongs to a finished model."""
    if spec.objective == "cfm":
        return CouplingFlow(spec.alpha_bar)
    return make_objective(ObjectiveSection(spec.objective))


def image_distance(section: ObjectiveSection) -> WeightedDistance:
    """The distance of images that a recipe's section weighs."""
    return replace(
        IMAGES,
        error=section.error * IMAGES.error,
        coarse=section.coarse * IMAGES.coarse,
        texture=section.texture * IMAGES.texture,
        lines=section.texture * section.lines * IMAGES.lines,
        overshoot=section.overshoot,
        mean=section.mean * IMAGES.mean,
    )


# --- builders


def _flow(section: ObjectiveSection) -> CouplingFlow:
    return CouplingFlow(alpha_bar(section.noise_step), section.sigma_min, section.start_share)


def _reflow(section: ObjectiveSection, teacher: Predict | None, *_: object) -> Reflow:
    if teacher is None:
        raise ConfigError("The objective 'reflow' needs a teacher, the trained flow that it rectifies.")
    return Reflow(_flow(section), teacher, section.since, section.teacher_steps)


def _decoded(
    section: ObjectiveSection, teacher: Predict | None, decode: Decode | None, perceive: Perceive | None
) -> Decoded:
    if decode is None:
        raise ConfigError("The objective 'decoded' needs a decoder, which makes images of latents.")
    texture = section.latents * section.texture * LATENTS.texture + section.latents_texture
    latents = replace(LATENTS, texture=texture, mean=section.latents * LATENTS.mean)
    return Decoded(
        _flow(section), decode, image_distance(section), latents, section.since, section.window, section.octave,
        section.last_share, perceive, section.informed or section.small > 0, section.steps, photos=section.photos,
    )  # fmt: skip


BUILDERS: dict[str, Builder] = {
    "cfm": lambda section, *_: _flow(section),
    "fm": lambda section, *_: NaiveFlow(section.sigma_min, section.start_share),
    "l1": lambda section, *_: Regression(1),
    "l2": lambda section, *_: Regression(2),
    "dm": lambda section, *_: Diffusion(),
    "reflow": _reflow,
    "decoded": _decoded,
}
