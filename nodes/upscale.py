"""The whole method in one node, for latents and for images."""

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
from ..fmboost_core.errors import ConfigError, ImageError
from ..fmboost_core.families import require_same_family, titles
from ..fmboost_core.files.locate import IMAGE_UPSCALE_MODEL, latent_upscale_model
from ..fmboost_core.imaging.resample import resize
from ..fmboost_core.sampling.checks import require_codec
from ..fmboost_core.sampling.options import flow_behind
from ..fmboost_core.sampling.schedule import seeded_noise
from ..fmboost_core.sampling.widgets import OWN_STRENGTH
from . import host, inputs
from .latents import Latent, checked, item_seeds, refuse_start, scaled, with_samples
from .newer import UPSCALER_WORDS, schema
from .upscale_model import upscale_model_for
from .vae import HostVAE

NOT_DECODED = "FMBoost Upscale gives a large image only where its input decode is on; switch it on."
NOT_CONNECTED = "FMBoost Upscale made no large latent, as nothing was connected to it; run the workflow again."
LARGE_LATENT = 0  # the place of an output


def _flow_inputs(unit: int) -> list[io.Input]:
    """unit: pixels to which the width and the height are typed."""
    return [
        *inputs.size_inputs(unit),
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
        return schema(
            node_id="FMBoostUpscale",
            display_name="FMBoost Upscale",
            description="Upscales a small latent: FMBoost PSU Upsample, FMBoost Noise Augment and FMBoost CFM Sample "
            "in one node. Any upscale factor is possible.",
            words=UPSCALER_WORDS,
            inputs=[
                io.Latent.Input("latent", tooltip="The small latent, from KSampler."),
                inputs.optional_vae_input(),
                inputs.CFM.Input("cfm"),
                *_flow_inputs(unit=8),
                io.Boolean.Input(
                    "decode",
                    default=False,
                    optional=True,
                    tooltip="Also makes the large picture, the output large image: the upscale model's, or the decoded "
                    "latent with the small picture's colours and shapes.",
                ),
                inputs.tileable_input(),
                inputs.maker_input(),
                inputs.strength_input(),
                inputs.upscale_model_input(),
            ],
            outputs=[io.Latent.Output(display_name="large latent"), io.Image.Output(display_name="large image")],
        )

    @classmethod
    def fingerprint_inputs(cls, decode: bool | None = False, **_: Any) -> bool:
        """Whether the large latent is made: the host keeps a result while this and the inputs stay the same.

        decode: None where a link decides it.
        """
        return decode is False or host.is_connected(LARGE_LATENT)

    @classmethod
    def execute(
        cls, latent: Latent, cfm: host.HostModel, seed: int, tiled_vae: bool, nfe: int, solver: str, noise_step: int,
        method: str, tile: str, vae: Any = None, decode: bool = False, tileable: str = "off",
        strength: float = OWN_STRENGTH, model: Any = None, upscale_model: Any = None, **size: Any,
    ) -> io.NodeOutput:  # fmt: skip
        family, target = cfm.spec.family, inputs.target_of(**size)
        codec, progress = None if vae is None else HostVAE(vae, family, tiled_vae), host.Progress(cfm)
        hooks = Hooks(progress=progress.on_progress, on_state=progress.on_state)

        def run(tile: int | str | None) -> tuple[Tensor | None, Tensor | None]:
            noise = seeded_noise(item_seeds(latent, seed), small.shape[0])
            upscaler = Upscaler(cfm, codec, replace(options, tile=tile), hooks, enlarger)
            if not decode:
                return upscaler.latent(small, target, noise), None
            if not host.is_connected(LARGE_LATENT):  # it costs an encoding
                return None, upscaler.image_of_latent(small, target, noise)
            return upscaler.latent_and_image(small, target, noise)

        with host.noted() as notes:
            refuse_start(latent, "latent", "the small latent, from KSampler", model)
            asked = inputs.options_of(nfe, solver, noise_step, method, tile, tileable, strength)
            bundled = latent_upscale_model(family)
            enlarger = upscale_model_for(upscale_model, method, cfm.spec.guide, bundled)
            options = asked.resolve(cfm.spec, behind=flow_behind(enlarger))
            if options.upsample == "psu":
                require_codec(codec, "The method psu", inputs.VAE_ADVICE)
            if decode:
                require_codec(codec, "The input decode", "connect one, or switch decode off")
            vae_party = None if codec is None else codec.examined() if options.upsample == "psu" else codec.party
            small = scaled(checked(latent, cfm.party, vae_party, model), family)
            large, image = host.with_smaller_tiles(run, options.tile, progress)
        made = host.blocked(NOT_CONNECTED) if large is None else with_samples(latent, large, family)
        picture = host.blocked(NOT_DECODED) if image is None else host.intermediate(image.movedim(1, -1) / 2 + 0.5)
        return io.NodeOutput(made, picture, ui=host.shown(notes))


class UpscaleImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FMBoostUpscaleImage",
            display_name="FMBoost Upscale Image",
            description="Upscales any picture through the model's latent space: encode, upscale, decode.",
            words=(*UPSCALER_WORDS, "image upscale", "upscale image"),
            inputs=[
                io.Image.Input("image"),
                inputs.CFM.Input("cfm"),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE of the model's family. Without one the node uses a built-in tiny codec.",
                ),
                *_flow_inputs(unit=1),
                io.Boolean.Input(
                    "restore",
                    default=True,
                    tooltip="Puts back what the VAE loses of the picture: text, faces and fine lines stay as they "
                    "were.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The picture's transparency, as Load Image gives it: colours below it do not count.",
                ),
                inputs.tileable_input(),
                inputs.strength_input(),
                inputs.upscale_model_input(),
            ],
            outputs=[io.Image.Output(display_name="large image"), io.Mask.Output(display_name="large mask")],
        )

    @classmethod
    def execute(
        cls, image: Tensor, cfm: host.HostModel, seed: int, tiled_vae: bool, nfe: int, solver: str, noise_step: int,
        method: str, tile: str, restore: bool, vae: Any = None, mask: Tensor | None = None, tileable: str = "off",
        strength: float = OWN_STRENGTH, upscale_model: Any = None, **size: Any,
    ) -> io.NodeOutput:  # fmt: skip
        target = inputs.target_of(**size)
        codec = _builtin_codec(cfm) if vae is None else HostVAE(vae, cfm.spec.family, tiled_vae, "model")
        progress = host.Progress(cfm, runs=image.shape[0])
        hooks = Hooks(progress=progress.on_progress, on_state=progress.on_state)

        def upscaled(item: int, pixels: Tensor) -> Tensor:
            def run(tile: int | str | None) -> Tensor:
                upscaler = Upscaler(cfm, codec, replace(options, tile=tile), hooks, enlarger)
                return upscaler.image(pixels, target, seeded_noise(seed + item, 1), restore)

            return host.with_smaller_tiles(run, options.tile, progress)

        large = []
        with host.noted() as notes:
            asked = inputs.options_of(nfe, solver, noise_step, method, tile, tileable, strength)
            enlarger = upscale_model_for(upscale_model, method, cfm.spec.guide, IMAGE_UPSCALE_MODEL)
            options = asked.resolve(cfm.spec, behind=flow_behind(enlarger))
            if isinstance(codec, HostVAE):
                require_same_family(cfm.party, codec.examined())
            # One by one: a batch may be a film, whose large images together are more than the memory.
            for item, single in enumerate(_with_alpha(image, mask).split(1)):
                large.append(upscaled(item, single.movedim(-1, 1) * 2 - 1).movedim(1, -1) / 2 + 0.5)
                if not options.takes_flow(restore):  # the flow, which counts its evaluations, took no part
                    progress.on_progress(1, 1)
                progress.next_run()
        return io.NodeOutput(*_picture_and_mask(torch.cat(large), image.shape[-1]), ui=host.shown(notes))


def _with_alpha(image: Tensor, mask: Tensor | None) -> Tensor:
    """An IMAGE (B,H,W,3 or 4) with what a MASK hides (B or 1,h,w) in its alpha; without either it stays opaque.

    The mask may have another size: Load Image gives one of 64x64 zeros for an opaque picture. Raises `ImageError` for
    another number of masks.
    """
    image = image[..., :4]
    if mask is None or not mask.any():
        return image
    if mask.shape[0] not in (1, image.shape[0]):
        raise ImageError(
            f"There are {image.shape[0]} pictures and {mask.shape[0]} masks; connect one mask, or one for each picture."
        )
    shown = 1 - resize(mask[:, None].float(), (image.shape[1], image.shape[2])).movedim(1, -1).clamp(0, 1).to(image)
    shown = shown.expand(image.shape[0], -1, -1, -1)
    alpha = shown * image[..., 3:] if image.shape[-1] == 4 else shown
    return torch.cat([image[..., :3], alpha], dim=-1)


def _picture_and_mask(large: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """An IMAGE of as many channels as came in, and the MASK of what it hides, zeros for an opaque one."""
    mask = 1 - large[..., 3] if large.shape[-1] == 4 else torch.zeros_like(large[..., 0])
    return large[..., :channels], mask


@cache
def _codec_of(family: str) -> TinyVAE:
    return load_codec("builtin", family)


def _builtin_codec(cfm: host.HostModel) -> TinyVAE:
    """The built-in codec of the model's family, on its device. Raises `ConfigError` where there is none."""
    if not has_builtin_codec(cfm.spec.family):
        raise ConfigError(f"There is no built-in codec for {titles([cfm.spec.family])} latents; connect a VAE.")
    return _codec_of(cfm.spec.family).to(cfm.device)
