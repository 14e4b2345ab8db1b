"""The method in three nodes: PSU Upsample makes the guide, Noise Augment the start, CFM Sample follows the flow."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..fmboost_core import FAMILIES, alpha_bar, flow, noise_augment
from ..fmboost_core.codecs.periodic import periodic
from ..fmboost_core.errors import ConfigError, FMBoostWarning, LatentError
from ..fmboost_core.families import Party
from ..fmboost_core.files.locate import latent_upscale_model
from ..fmboost_core.sampling.checks import check_bare_scale, check_crop, require_codec
from ..fmboost_core.sampling.guide import LatentUpsampling, latent_size, pixel_upsample
from ..fmboost_core.sampling.options import require_pixel_space
from ..fmboost_core.sampling.schedule import seeded_noise, start_alpha_bar
from ..fmboost_core.sampling.tiling import auto_tile
from ..fmboost_core.sampling.widgets import OWN_METHOD, OWN_STRENGTH, or_none
from ..fmboost_core.tiles import Tileable, parse_tileable
from . import host, inputs
from .latents import (
    KIND,
    START,
    STRENGTH,
    Latent,
    Start,
    checked,
    item_seeds,
    marks,
    refuse_start,
    scaled,
    start_of,
    with_raw,
    with_samples,
)
from .newer import UPSCALER_WORDS, folded, schema
from .upscale_model import is_enlarged, upscale_model_for
from .vae import HostVAE

PAPER_NOISE_STEP = 400  # where no model tells its own


class PSUUpsample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FMBoostPSUUpsample",
            display_name="FMBoost PSU Upsample",
            description="Pixel-space upsampling: decodes a latent, upscales the picture and encodes it again. "
            "The result is the guide of the flow, which has the target's size.",
            words=UPSCALER_WORDS,
            inputs=[
                io.Latent.Input("latent", tooltip="The small latent, from KSampler."),
                inputs.optional_vae_input(),
                *inputs.size_inputs(),
                inputs.method_input(),
                inputs.vae_tiling_input(),
                inputs.tileable_input(),
                inputs.maker_input(),
                inputs.CFM.Input(
                    "cfm",
                    optional=True,
                    tooltip="The model. The method fast needs its guide network.",
                ),
                inputs.upscale_model_input(),
            ],
            outputs=[io.Latent.Output(display_name="guide")],
        )

    @classmethod
    def execute(
        cls, latent: Latent, method: str, tiled_vae: bool, vae: Any = None, tileable: str = "off", model: Any = None,
        cfm: host.HostModel | None = None, upscale_model: Any = None, **size: Any,
    ) -> io.NodeOutput:  # fmt: skip
        own, axes = "psu" if cfm is None else cfm.spec.guide, parse_tileable(tileable)
        asked_method, enlarges = method, is_enlarged(upscale_model, method, own)
        method = _method(method, own, enlarges)
        # The VAE's raw latents: a family's scaling would cancel out.
        codec, encodes = None if vae is None else HostVAE(vae, None, tiled_vae), method == "psu"
        with host.noted() as notes:
            refuse_start(latent, "latent", "the small latent, from KSampler", model)
            if encodes:
                require_codec(codec, "The method psu", inputs.VAE_ADVICE)
            party = None if codec is None else codec.examined() if encodes else codec.party
            samples = checked(latent, None if cfm is None else cfm.party, party, model)
            # What the VAE has encoded is of its family.
            family = (codec.family if codec and encodes else None) or _family_of(model, cfm)
            likely_family = family or (None if party is None else party.seems)
            enlarger = upscale_model_for(upscale_model, asked_method, own, latent_upscale_model(likely_family))
            target, unit = inputs.target_of(**size), codec.downscale_factor if codec else inputs.UNIT
            start = (samples.shape[-2] * unit, samples.shape[-1] * unit)
            end = target.pixels(start, inputs.DEFAULT_SCALE, unit)
            check_crop(start, end, target.distorts, axes)
            kind = "latent" if enlarger is None else "enlarged"
            if codec and encodes:
                guide = pixel_upsample(samples, periodic(codec, axes), end, target.distorts, axes, enlarger)
            elif method == "fast":
                guide = _fast_guide(samples, cfm, unit, end, target.distorts, axes)
            else:
                interpolation = LatentUpsampling(method, unit, tileable=axes)
                guide, kind = interpolation(samples, start, end, target.distorts), interpolation.kind
        told = {KIND: kind} if enlarger is None else {KIND: kind, STRENGTH: enlarger.behind.strength}
        return io.NodeOutput(with_raw(latent, guide, family) | told, ui=host.shown(notes))


def _method(method: str, own: str, enlarged: bool) -> str:
    """The guide method of its widget, resolved.

    own: FMBoost's model's, or the paper's without a model. enlarged: whether an upscale model enlarges the picture,
    which works in pixel space alone.
    """
    chosen = or_none(method, OWN_METHOD) or ("psu" if enlarged else own)
    if enlarged:
        require_pixel_space(chosen)
    return chosen


def _family_of(model: Any, cfm: host.HostModel | None) -> str | None:
    """The family that the diffusion model or FMBoost's model tells; None where neither does."""
    told = None if model is None else host.model_party(model).family
    return told or (None if cfm is None else cfm.spec.family)


def _fast_guide(
    samples: Tensor, cfm: host.HostModel | None, unit: int, end: tuple[int, int], distort: bool, tileable: Tileable
) -> Tensor:
    """The raw fast guide of raw samples, for an image of end (height, width) in pixels; unit: pixels per latent.

    Raises `ConfigError` where no model with a guide network is connected.
    """
    if cfm is None or cfm.guide is None:
        raise ConfigError(
            "The method fast needs a model with a guide network, as those have whose names end in -direct; connect its "
            "FMBoost Load CFM to the input cfm."
        )
    start = (samples.shape[-2] * unit, samples.shape[-1] * unit)
    check_bare_scale(cfm, start, [end])
    family = FAMILIES[cfm.spec.family]
    fast = LatentUpsampling("fast", unit, cfm.guide, auto_tile(*latent_size(end, unit)), tileable)
    return family.to_raw(fast(scaled(samples, family.name), start, end, distort))


class NoiseAugment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FMBoostNoiseAugment",
            display_name="FMBoost Noise Augment",
            description="Mixes noise into the guide. The result is the start of the flow, from which detail grows.",
            words=("add noise to latent", "noise augmentation"),
            inputs=[
                io.Latent.Input("latent", tooltip="The guide, from FMBoost PSU Upsample."),
                inputs.CFM.Input("cfm", optional=True, tooltip="The model. It tells the noise step and the family."),
                inputs.noise_step_input(),
                inputs.seed_input(),
                folded(
                    io.Combo,
                    "family",
                    options=list(FAMILIES),
                    default=next(iter(FAMILIES)),
                    tooltip="The latent's family. The node uses it only where no CFM is connected.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="start")],
        )

    @classmethod
    def execute(
        cls, latent: Latent, noise_step: int, seed: int, family: str, cfm: host.HostModel | None = None
    ) -> io.NodeOutput:
        with host.noted() as notes:
            refuse_start(latent, "latent", "the guide, from FMBoost PSU Upsample")
            step, signal = _noise_of(inputs.noise_step_of(noise_step), cfm)
            chosen = Party("the widget family", family, instead="choose the latent's family there")
            family = family if cfm is None else cfm.spec.family
            guide = scaled(checked(latent, chosen if cfm is None else cfm.party), family)
            noise = seeded_noise(item_seeds(latent, seed), guide.shape[0])(tuple(guide.shape))
            noisy = FAMILIES[family].to_raw(noise_augment(guide, signal, noise))
        start = Start(step, signal, family, None if cfm is None else cfm.spec.name, marks(noisy))
        # The widget's family is a choice of a scale, no knowledge: it stands at its first value in a new node.
        made = with_raw(latent, noisy, None if cfm is None else family)
        return io.NodeOutput(made | {START: start}, ui=host.shown(notes))


def _noise_of(noise_step: int | None, cfm: host.HostModel | None) -> tuple[int, float]:
    """The noise step, resolved, and the signal kept. None: the model's own step, or the paper's without a model."""
    if cfm is None:
        step = PAPER_NOISE_STEP if noise_step is None else noise_step
        return step, alpha_bar(step)
    step = cfm.spec.noise_step if noise_step is None else noise_step
    return step, start_alpha_bar(cfm.spec, step)


class CFMSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FMBoostCFMSample",
            display_name="FMBoost CFM Sample",
            description="Follows the learned flow from the noisy start to the large latent, in few steps.",
            words=("latent upscale", "flow matching", "flow sampler"),
            inputs=[
                inputs.CFM.Input("cfm"),
                io.Latent.Input("start", tooltip="The start, from FMBoost Noise Augment."),
                io.Latent.Input("guide", tooltip="The guide, from FMBoost PSU Upsample, of the start's size."),
                inputs.nfe_input(),
                inputs.solver_input(),
                inputs.tile_input(),
                folded(
                    io.Int,
                    "trajectory_length",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip="How many latents along the trajectory to put out, of the first item: the start, the end "
                    "and those between. 0: the end alone.",
                ),
                inputs.tileable_input(),
                inputs.strength_input(),
            ],
            outputs=[io.Latent.Output(display_name="latent"), io.Latent.Output(display_name="trajectory")],
        )

    @classmethod
    def execute(
        cls,
        cfm: host.HostModel,
        start: Latent,
        guide: Latent,
        nfe: int,
        solver: str,
        tile: str,
        trajectory_length: int = 0,
        tileable: str = "off",
        strength: float = OWN_STRENGTH,
    ) -> io.NodeOutput:
        family, kind, progress = cfm.spec.family, guide.get(KIND, "latent"), host.Progress(cfm)
        options = inputs.options_of(nfe, solver, tile=tile, tileable=tileable, strength=strength)
        own_strength = guide.get(STRENGTH) if options.strength is None else options.strength
        states: list[Tensor] = []

        def on_state(t: float, state: Tensor) -> None:
            progress.on_state(t, state)
            states.append(state[:1])

        def run(tile: int | str | None) -> Tensor:
            states[:] = [x[:1]]
            return flow(
                x, g, cfm, kind=kind, alpha_bar=signal, nfe=options.nfe, solver=options.solver, tile=tile,
                tileable=options.tileable, strength=own_strength, progress=progress.on_progress,
                on_state=on_state if trajectory_length > 1 else progress.on_state,
            )  # fmt: skip

        with host.noted() as notes:
            refuse_start(guide, "guide", "the guide, from FMBoost PSU Upsample")
            # The start is noise in part, so that its statistics tell no family.
            x, g = checked(start, cfm.party, look=False), checked(guide, cfm.party)
            _require_same_size(x, g, FAMILIES[family].downscale_factor)
            x, g = scaled(x, family), scaled(g, family)
            signal = _signal(start, cfm)
            end = host.with_smaller_tiles(run, options.tile, progress)
        # Adaptive solvers give no states on the way. A strength puts the end beyond the last state.
        path = evenly([*(states if len(states) > 1 else [x[:1], x[:1]])[:-1], end[:1]], trajectory_length)
        return io.NodeOutput(
            with_samples({k: v for k, v in start.items() if k != START}, end, family),
            with_samples({"samples": start["samples"][:1]}, torch.cat(path), family),
            ui=host.shown(notes),
        )


def _require_same_size(start: Tensor, guide: Tensor, unit: int) -> None:
    """unit: pixels per latent along each side. Raises `LatentError`."""
    if start.shape != guide.shape:
        shapes = [f"{n} of {w * unit}x{h * unit} pixels" for n, _, h, w in (start.shape, guide.shape)]
        raise LatentError(
            f"The start is {shapes[0]} and the guide {shapes[1]}; connect the guide of one FMBoost PSU Upsample to "
            "both nodes, FMBoost Noise Augment and FMBoost CFM Sample."
        )


def _signal(latent: Latent, cfm: host.HostModel) -> float | None:
    """The signal kept in a start; None, the model's own, where the start does not tell.

    Raises `LatentError` for a start that was made for another model; warns where a latent is no start.
    """
    start = start_of(latent)
    if start is None and cfm.spec.alpha_bar == 1:
        return None  # its start is the guide itself
    if start is None:
        message = (
            f"The input start has no note of FMBoost Noise Augment; noise step {cfm.spec.noise_step} is assumed. "
            "Without noise in it the picture stays soft: put FMBoost Noise Augment between FMBoost PSU Upsample and "
            "FMBoost CFM Sample."
        )
        warnings.warn(message, FMBoostWarning, stacklevel=2)
        return None
    if start.family != cfm.spec.family or start.model not in (None, cfm.spec.name):
        made_for = start.model or f"{FAMILIES[start.family].title} latents"
        raise LatentError(
            f"FMBoost Noise Augment made the start for {made_for}, but FMBoost CFM Sample has the model "
            f"{cfm.spec.name}; connect one FMBoost Load CFM to both."
        )
    if start.model is not None:
        return start.alpha_bar
    return start_alpha_bar(cfm.spec, start.noise_step)  # it warns where this model does not know the step


def evenly(states: list[Tensor], length: int) -> list[Tensor]:
    """At most `length` of the states, evenly spaced: always the last one, and the first one where two are asked for."""
    length = min(max(1, length), len(states))
    if length == 1:
        return states[-1:]
    return [states[round(i * (len(states) - 1) / (length - 1))] for i in range(length)]
