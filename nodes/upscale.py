"""The whole chain in one node, in stages, for latents and for pictures."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..fmboost_core import boost, load_codec, upscale_image
from ..fmboost_core.codecs.tiny import TinyVAE
from ..fmboost_core.errors import ConfigError
from . import host, inputs


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


def _options(
    size_by: str, scale: float, width: int, height: int, megapixels: float,
    nfe: int, solver: str, noise_step: int, method: str,
) -> dict[str, Any]:  # fmt: skip
    """The widgets as arguments of `boost` and `upscale_image`."""
    return {
        **inputs.wanted_size(size_by, scale, width, height, megapixels),
        "nfe": inputs.wanted_nfe(nfe),
        "solver": solver,
        "noise_step": None if noise_step == inputs.OWN_NOISE_STEP else noise_step,
        "upsample": method,
    }


class Upscale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostUpscale",
            display_name="FMBoost Upscale",
            category=inputs.CATEGORY,
            description="Carries a small latent to a large one: PSU Upsample, Noise Augment and CFM Sample in one "
            "node. What is beyond the model's own scale is reached in stages.",
            inputs=[
                io.Latent.Input("latent", tooltip="The small latent, as KSampler gives it."),
                io.Vae.Input("vae", tooltip="The VAE of the latent's family."),
                inputs.CFM.Input("cfm"),
                *_flow_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="large latent")],
        )

    @classmethod
    def execute(
        cls, latent: host.Latent, vae: Any, cfm: host.HostModel, seed: int, tile: str, tiled_vae: bool, **widgets: Any
    ) -> io.NodeOutput:
        family, options = cfm.spec.family, _options(**widgets)
        codec = host.HostVAE(vae, family, tiled_vae)
        seeds, progress = host.item_seeds(latent, seed), host.Progress(cfm)

        def run(tile: int | str | None) -> Tensor:
            return boost(
                small, cfm, codec, seed=seeds, tile=tile, progress=progress.on_progress, on_state=progress.on_state,
                **options,
            )  # fmt: skip

        with host.told() as notes:
            small = host.scaled(latent, family)
            large = host.with_smaller_tiles(run, tile, progress)
        return io.NodeOutput(host.with_samples(latent, large, family), ui=host.shown(notes))


class UpscaleImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FMBoostUpscaleImage",
            display_name="FMBoost Upscale Image",
            category=inputs.CATEGORY,
            description="Enlarges any picture through the latent space of the model: encode, boost, decode.",
            inputs=[
                io.Image.Input("image"),
                inputs.CFM.Input("cfm"),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE of the model's family. Without one the bundled tiny codec (SD1.5) serves.",
                ),
                *_flow_inputs(),
                io.Boolean.Input(
                    "restore",
                    default=True,
                    tooltip="Put back what the VAE loses of the picture: text, faces and fine lines stay what they "
                    "were, and the flow adds to them. Only with the method psu.",
                ),
            ],
            outputs=[io.Image.Output(display_name="large image")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        cfm: host.HostModel,
        seed: int,
        tile: str,
        tiled_vae: bool,
        restore: bool,
        vae: Any = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        options, progress = _options(**widgets), host.Progress(cfm, runs=image.shape[0])
        codec = _builtin_codec(cfm) if vae is None else host.HostVAE(vae, cfm.spec.family, tiled_vae)
        # One by one: a batch may be a film, and its large pictures together more than the memory.
        large = []
        with host.told() as notes:
            for item, picture in enumerate(image.split(1)):
                pixels = picture[..., :3].movedim(-1, 1) * 2 - 1

                def run(tile: int | str | None, item: int = item, pixels: Tensor = pixels) -> Tensor:
                    return upscale_image(
                        pixels, cfm, codec, seed=seed + item, tile=tile, restore=restore, progress=progress.on_progress,
                        on_state=progress.on_state, **options,
                    )  # fmt: skip

                large.append(host.with_smaller_tiles(run, tile, progress).movedim(1, -1) / 2 + 0.5)
                progress.next_run()
        return io.NodeOutput(torch.cat(large), ui=host.shown(notes))


@lru_cache(maxsize=1)
def _codec_file() -> TinyVAE:
    return load_codec("builtin")


def _builtin_codec(cfm: host.HostModel) -> TinyVAE:
    if cfm.spec.family != "sd15":
        raise ConfigError(
            f"The bundled codec is for sd15, but {cfm.spec.name} is for {cfm.spec.family}; connect a VAE."
        )
    return _codec_file().to(cfm.device)
