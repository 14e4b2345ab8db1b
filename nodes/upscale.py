"""The whole method in one node, in stages, for latents and for images."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..fmboost_core import Hooks, Upscaler, load_codec
from ..fmboost_core.codecs.load import has_builtin_codec
from ..fmboost_core.codecs.tiny import TinyVAE
from ..fmboost_core.errors import ConfigError
from ..fmboost_core.families import require_same_family, titles
from ..fmboost_core.sampling.schedule import seeded_noise
from . import host, inputs
from .latents import Latent, checked, item_seeds, refuse_start, scaled, with_samples
from .vae import HostVAE


def _flow_inputs() -> list[io.Input]:
    return [
        *inputs.size_inputs(),
        inputs.nfe_input(),
        inputs.seed_input(),
        inputs.solver_input(),
        inputs.noise_step_input(),
        inputs.method_input(),
        inputs.tile_input(),
        inputs.vae_tiling_input(),
    ]


class Upscale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostUpscale",
            display_name="FMBoost Upscale",
            category=inputs.CATEGORY,
            description="Upscales a small latent: PSU Upsample, Noise Augment and CFM Sample in one node. "
            "Beyond the model's own upscale factor it works in stages.",
            inputs=[
                io.Latent.Input("latent", tooltip="The small latent, from KSampler."),
                io.Vae.Input("vae", tooltip="The VAE of the latent's family."),
                inputs.CFM.Input("cfm"),
                *_flow_inputs(),
                inputs.maker_input(),
            ],
            outputs=[io.Latent.Output(display_name="large latent")],
        )

    @classmethod
    def execute(
        cls, latent: Latent, vae: Any, cfm: host.HostModel, seed: int, tiled_vae: bool, nfe: int, solver: str,
        noise_step: int, method: str, tile: str, model: Any = None, **size: Any,
    ) -> io.NodeOutput:  # fmt: skip
        family, target = cfm.spec.family, inputs.target_of(**size)
        codec, progress = HostVAE(vae, family, tiled_vae), host.Progress(cfm)
        hooks = Hooks(progress=progress.on_progress, on_state=progress.on_state)

        def run(tile: int | str | None) -> Tensor:
            noise = seeded_noise(item_seeds(latent, seed), small.shape[0])
            return Upscaler(cfm, codec, replace(options, tile=tile), hooks).latent(small, target, noise)

        with host.noted() as notes:
            refuse_start(latent, "latent", "the small latent, from KSampler")
            options = inputs.options_of(nfe, solver, noise_step, method, tile).resolve(cfm.spec)
            vae_party = codec.examined() if options.upsample == "psu" else codec.party
            small = scaled(checked(latent, cfm.party, vae_party, model), family)
            large = host.with_smaller_tiles(run, options.tile, progress)
        return io.NodeOutput(with_samples(latent, large, family), ui=host.shown(notes))


class UpscaleImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostUpscaleImage",
            display_name="FMBoost Upscale Image",
            category=inputs.CATEGORY,
            description="Upscales any picture through the model's latent space: encode, upscale, decode.",
            inputs=[
                io.Image.Input("image"),
                inputs.CFM.Input("cfm"),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE of the model's family. Without one the node uses a built-in tiny codec.",
                ),
                *_flow_inputs(),
                io.Boolean.Input(
                    "restore",
                    default=True,
                    tooltip="Puts back what the VAE loses of the picture: text, faces and fine lines stay as they "
                    "were, and the flow adds detail. Only with the method psu.",
                ),
            ],
            outputs=[io.Image.Output(display_name="large image")],
        )

    @classmethod
    def execute(
        cls, image: Tensor, cfm: host.HostModel, seed: int, tiled_vae: bool, nfe: int, solver: str, noise_step: int,
        method: str, tile: str, restore: bool, vae: Any = None, **size: Any,
    ) -> io.NodeOutput:  # fmt: skip
        target = inputs.target_of(**size)
        codec = _builtin_codec(cfm) if vae is None else HostVAE(vae, cfm.spec.family, tiled_vae, "model")
        progress = host.Progress(cfm, runs=image.shape[0])
        hooks = Hooks(progress=progress.on_progress, on_state=progress.on_state)

        def upscaled(item: int, pixels: Tensor) -> Tensor:
            def run(tile: int | str | None) -> Tensor:
                upscaler = Upscaler(cfm, codec, replace(options, tile=tile), hooks)
                return upscaler.image(pixels, target, seeded_noise(seed + item, 1), restore)

            return host.with_smaller_tiles(run, options.tile, progress)

        large = []
        with host.noted() as notes:
            options = inputs.options_of(nfe, solver, noise_step, method, tile).resolve(cfm.spec)
            if isinstance(codec, HostVAE):
                require_same_family(cfm.party, codec.examined())
            # One by one: a batch may be a film, whose large images together are more than the memory.
            for item, single in enumerate(image.split(1)):
                large.append(upscaled(item, single[..., :3].movedim(-1, 1) * 2 - 1).movedim(1, -1) / 2 + 0.5)
                progress.next_run()
        return io.NodeOutput(torch.cat(large), ui=host.shown(notes))


@cache
def _codec_of(family: str) -> TinyVAE:
    return load_codec("builtin", family)


def _builtin_codec(cfm: host.HostModel) -> TinyVAE:
    """The built-in codec of the model's family, on its device. Raises `ConfigError` where there is none."""
    if not has_builtin_codec(cfm.spec.family):
        raise ConfigError(f"There is no built-in codec for {titles([cfm.spec.family])} latents; connect a VAE.")
    return _codec_of(cfm.spec.family).to(cfm.device)
