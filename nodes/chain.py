"""The method in three nodes: PSU Upsample makes the guide, Noise Augment the start, CFM Sample follows the flow."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..fmboost_core import FAMILIES, alpha_bar, flow, noise_augment
from ..fmboost_core.codecs.periodic import periodic
from ..fmboost_core.codecs.protocol import codec_party
from ..fmboost_core.families import Party, require_same_family
from ..fmboost_core.sampling.checks import check_crop
from ..fmboost_core.sampling.guide import latent_size, latent_upsample, pixel_upsample
from ..fmboost_core.sampling.schedule import seeded_noise, start_alpha_bar
from ..fmboost_core.tiles import parse_tileable
from . import host, inputs
from .latents import START, Latent, Start, item_seeds, raw, scaled, with_raw, with_samples
from .vae import HostVAE

PAPER_NOISE_STEP = 400  # where no model tells its own


class PSUUpsample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostPSUUpsample",
            display_name="PSU Upsample",
            category=inputs.CATEGORY,
            description="Pixel-space upsampling: decodes a latent, upscales the picture and encodes it again. "
            "The result is the guide of the flow: it has the size but not the detail.",
            inputs=[
                io.Latent.Input("latent", tooltip="The small latent, from KSampler."),
                io.Vae.Input("vae", tooltip="The VAE of the latent's family."),
                *inputs.size_inputs(),
                inputs.method_input(),
                inputs.vae_tiling_input(),
                inputs.tileable_input(),
            ],
            outputs=[io.Latent.Output(display_name="guide")],
        )

    @classmethod
    def execute(
        cls, latent: Latent, vae: Any, method: str, tiled_vae: bool, tileable: str = "off", **size: Any
    ) -> io.NodeOutput:
        # The guide is made of the VAE's raw latents: a family's scaling would cancel out.
        samples, axes = raw(latent), parse_tileable(tileable)
        codec = periodic(HostVAE(vae, None, tiled_vae), axes)
        require_same_family(Party("the latent", None, samples.shape[1]), codec_party(codec))
        unit, target = codec.downscale_factor, inputs.target_of(**size)
        start = (samples.shape[-2] * unit, samples.shape[-1] * unit)
        end = target.pixels(start, inputs.DEFAULT_SCALE, unit)
        check_crop(start, end, target.distorts, axes)
        if method == "psu":
            guide = pixel_upsample(samples, codec, end, target.distorts, axes)
        else:
            guide = latent_upsample(samples, latent_size(end, unit), method, target.distorts, axes)
        return io.NodeOutput(with_raw(latent, guide))


class NoiseAugment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostNoiseAugment",
            display_name="Noise Augment",
            category=inputs.CATEGORY,
            description="Mixes noise into the guide. The result is the start of the flow, from which detail grows.",
            inputs=[
                io.Latent.Input("latent", tooltip="The guide, from PSU Upsample."),
                inputs.CFM.Input("cfm", optional=True, tooltip="The model. It tells the noise step and the family."),
                inputs.noise_step_input(),
                inputs.seed_input(),
                io.Combo.Input(
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
            start = _start(inputs.noise_step_of(noise_step), cfm)
            chosen = Party("the widget family", family, instead="choose the latent's family there")
            guide = scaled(latent, chosen if cfm is None else cfm.party)
            noise = seeded_noise(item_seeds(latent, seed), guide.shape[0])(tuple(guide.shape))
            noisy = noise_augment(guide, start.alpha_bar, noise)
        made = with_samples(latent, noisy, family if cfm is None else cfm.spec.family)
        return io.NodeOutput(made | {START: start}, ui=host.shown(notes))


def _start(noise_step: int | None, cfm: host.HostModel | None) -> Start:
    """The noise step of a start, resolved. None: the model's own step, or the paper's without a model."""
    if cfm is None:
        step = PAPER_NOISE_STEP if noise_step is None else noise_step
        return Start(step, alpha_bar(step), None)
    step = cfm.spec.noise_step if noise_step is None else noise_step
    return Start(step, start_alpha_bar(cfm.spec, step), cfm.spec.name)


class CFMSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostCFMSample",
            display_name="CFM Sample",
            category=inputs.CATEGORY,
            description="Follows the learned flow from the noisy start to the large latent, in few steps.",
            inputs=[
                inputs.CFM.Input("cfm"),
                io.Latent.Input("start", tooltip="The start, from Noise Augment."),
                io.Latent.Input("guide", tooltip="The guide, from PSU Upsample, of the start's size."),
                inputs.nfe_input(),
                inputs.solver_input(),
                inputs.tile_input(),
                io.Int.Input(
                    "trajectory_length",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip="How many latents along the trajectory to put out, of the first item: the start, the end "
                    "and those between. 0: the end alone.",
                ),
                inputs.tileable_input(),
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
    ) -> io.NodeOutput:
        family, progress = cfm.spec.family, host.Progress(cfm)
        options = inputs.options_of(nfe, solver, tile=tile, tileable=tileable)
        states: list[Tensor] = []

        def on_state(t: float, state: Tensor) -> None:
            progress.on_state(t, state)
            states.append(state[:1])

        def run(tile: int | str | None) -> Tensor:
            states[:] = [x[:1]]
            return flow(
                x, g, cfm, alpha_bar=signal, nfe=options.nfe, solver=options.solver, tile=tile,
                tileable=options.tileable, progress=progress.on_progress,
                on_state=on_state if trajectory_length > 1 else progress.on_state,
            )  # fmt: skip

        with host.noted() as notes:
            signal = _signal(start.get(START), cfm)
            # The start is noise in part, so that its statistics tell no family.
            x, g = scaled(start, cfm.party, look=False), scaled(guide, cfm.party)
            end = host.with_smaller_tiles(run, options.tile, progress)
        # Adaptive solvers give no states on the way.
        path = evenly(states if len(states) > 1 else [x[:1], end[:1]], trajectory_length)
        return io.NodeOutput(
            with_samples({k: v for k, v in start.items() if k != START}, end, family),
            with_samples({"samples": start["samples"][:1]}, torch.cat(path), family),
            ui=host.shown(notes),
        )


def _signal(start: Start | None, cfm: host.HostModel) -> float | None:
    """The signal kept in a start; None, the model's own, where the start does not tell."""
    if start is None:
        return None
    if start.model == cfm.spec.name:
        return start.alpha_bar
    return start_alpha_bar(cfm.spec, start.noise_step)  # it warns where this model does not know the step


def evenly(states: list[Tensor], length: int) -> list[Tensor]:
    """At most `length` of the states, evenly spaced: always the last one, and the first one where two are asked for."""
    length = min(max(1, length), len(states))
    if length == 1:
        return states[-1:]
    return [states[round(i * (len(states) - 1) / (length - 1))] for i in range(length)]
