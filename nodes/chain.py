"""The method in three nodes: PSU Upsample makes the guide, Noise Augment the start, CFM Sample follows the flow."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..fmboost_core import alpha_bar, flow, noise_augment
from ..fmboost_core.errors import LatentError
from ..fmboost_core.families import FAMILIES, families_with
from ..fmboost_core.sampling.guide import latent_size, latent_upsample, pixel_upsample
from ..fmboost_core.sampling.schedule import seeded_noise, start_alpha_bar
from ..fmboost_core.sampling.target import Target
from . import host, inputs

PAPER_NOISE_STEP = 400  # where no model tells its own
NOISE_STEP = "fmboost_noise_step"  # in the LATENT of a start: how much noise it has


class PSUUpsample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostPSUUpsample",
            display_name="PSU Upsample",
            category=inputs.CATEGORY,
            description="Pixel-space upsampling: decodes a latent, enlarges the picture and encodes it again. "
            "The result has the size but not the detail; it guides the flow.",
            inputs=[
                io.Latent.Input("latent", tooltip="The small latent, as KSampler gives it."),
                io.Vae.Input("vae", tooltip="The VAE of the latent's family."),
                *inputs.size_inputs(),
                inputs.method_input(),
                inputs.vae_tiling_input(),
            ],
            outputs=[io.Latent.Output(display_name="guide")],
        )

    @classmethod
    def execute(cls, latent: host.Latent, vae: Any, method: str, tiled_vae: bool, **size: Any) -> io.NodeOutput:
        # Decoding, enlarging and encoding are the same in every scale: no family is needed here.
        samples, codec = host.raw(latent), host.HostVAE(vae, None, tiled_vae)
        if codec.channels != samples.shape[1]:
            raise LatentError(
                f"The VAE is for latents of {codec.channels} channels, but this one has {samples.shape[1]}, which "
                f"looks like {families_with(samples.shape[1])}; connect the VAE of the latent's family."
            )
        start = (samples.shape[-2] * codec.downscale_factor, samples.shape[-1] * codec.downscale_factor)
        target = Target(**inputs.wanted_size(**size))
        end = target.pixels(start, inputs.DEFAULT_SCALE, codec.downscale_factor)
        if method == "psu":
            guide = pixel_upsample(samples, codec, end, target.distorts)
        else:
            guide = latent_upsample(samples, latent_size(end, codec.downscale_factor), method, target.distorts)
        return io.NodeOutput(host.with_raw(latent, guide))


class NoiseAugment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostNoiseAugment",
            display_name="Noise Augment",
            category=inputs.CATEGORY,
            description="Mixes noise into the guide: the start of the flow, from which new detail can grow.",
            inputs=[
                io.Latent.Input("latent", tooltip="The guide, from PSU Upsample."),
                inputs.CFM.Input("cfm", optional=True, tooltip="The model, which knows its noise step and its family."),
                inputs.noise_step_input(),
                inputs.seed_input(),
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    default="sd15",
                    tooltip="Which family the latent is of. Used only where no CFM is connected.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="start")],
        )

    @classmethod
    def execute(
        cls, latent: host.Latent, noise_step: int, seed: int, family: str, cfm: host.HostModel | None = None
    ) -> io.NodeOutput:
        if noise_step == inputs.OWN_NOISE_STEP:
            noise_step = PAPER_NOISE_STEP if cfm is None else cfm.spec.noise_step
        with host.told() as notes:
            if cfm is None:
                signal = alpha_bar(noise_step)
            else:
                family, signal = cfm.spec.family, start_alpha_bar(cfm.spec, noise_step)
            guide = host.scaled(latent, family)
            noise = seeded_noise(host.item_seeds(latent, seed), guide.shape[0])(tuple(guide.shape))
            start = noise_augment(guide, signal, noise)
        # A network that is told the noise needs to know it in CFM Sample.
        made = host.with_samples(latent, start, family) | {NOISE_STEP: noise_step}
        return io.NodeOutput(made, ui=host.shown(notes))


class CFMSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostCFMSample",
            display_name="CFM Sample",
            category=inputs.CATEGORY,
            description="Follows the learned flow from the noisy start to the large latent, in few evaluations.",
            inputs=[
                inputs.CFM.Input("cfm"),
                io.Latent.Input("start", tooltip="From Noise Augment."),
                io.Latent.Input("guide", tooltip="From PSU Upsample, of the start's size."),
                inputs.nfe_input(),
                inputs.solver_input(),
                inputs.tile_input(),
                io.Int.Input(
                    "trajectory_length",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip="How many latents along the way to put out (of the first item), the start and the end "
                    "among them; 0: the end alone.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent"), io.Latent.Output(display_name="trajectory")],
        )

    @classmethod
    def execute(
        cls,
        cfm: host.HostModel,
        start: host.Latent,
        guide: host.Latent,
        nfe: int,
        solver: str,
        tile: str,
        trajectory_length: int = 0,
    ) -> io.NodeOutput:
        family = cfm.spec.family
        progress = host.Progress(cfm)
        states: list[Tensor] = []

        def on_state(t: float, state: Tensor) -> None:
            progress.on_state(t, state)
            states.append(state[:1])

        def run(tile: int | str | None) -> Tensor:
            states[:] = [x[:1]]
            return flow(
                x, g, cfm, nfe=inputs.wanted_nfe(nfe), solver=solver, noise_step=start.get(NOISE_STEP), tile=tile,
                progress=progress.on_progress, on_state=on_state if trajectory_length > 1 else progress.on_state,
            )  # fmt: skip

        with host.told() as notes:
            # The start is noise in part and proves nothing.
            x, g = host.scaled(start, family, look=False), host.scaled(guide, family)
            end = host.with_smaller_tiles(run, tile, progress)
        # The adaptive solvers tell nothing of their way.
        path = evenly(states if len(states) > 1 else [x[:1], end[:1]], trajectory_length)
        return io.NodeOutput(
            host.with_samples({k: v for k, v in start.items() if k != NOISE_STEP}, end, family),
            host.with_samples({"samples": start["samples"][:1]}, torch.cat(path), family),
            ui=host.shown(notes),
        )


def evenly(states: list[Tensor], length: int) -> list[Tensor]:
    """At most `length` of the states, evenly chosen, the last one always and the first one where two are wanted."""
    length = min(max(1, length), len(states))
    if length == 1:
        return states[-1:]
    return [states[round(i * (len(states) - 1) / (length - 1))] for i in range(length)]
