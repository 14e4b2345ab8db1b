"""Extras: two upscalers for any image, which encode it, upscale its latent and decode that."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import gradio as gr
import torch
from modules import devices, scripts, shared, upscaler
from PIL import Image
from torch import Tensor

from fmboost_core import SamplingOptions, Target, Upscaler
from fmboost_core.codecs.protocol import codec_party
from fmboost_core.errors import Cancelled
from fmboost_core.sampling.options import flow_behind
from fmboost_core.sampling.schedule import seeded_noise

from . import checkpoint, hires, host, upscale_model
from .models import AUTOMATIC, bundled_entry, choose_model
from .options import Options

# Other names than in hires-fix: the hosts look for a name among the latent modes first.
BUILTIN, CHECKPOINT = "FMBoost picture", "FMBoost picture (checkpoint's VAE)"
SCALE = 2
SETTING = "fmboost_extras_upscale_model"  # the name of a setting of the host


class UpscalerFMBoost(upscaler.Upscaler):
    """The host's list of FMBoost's upscalers, and their work."""

    name = "FMBoost"

    def __init__(self, dirname: str | None = None) -> None:
        super().__init__(False)
        self.scalers = [upscaler.UpscalerData(name, name, self, SCALE) for name in (BUILTIN, CHECKPOINT)]

    def upscale(self, img: Image.Image, scale: float, selected_model: str | None = None) -> Image.Image:
        """At once to the size that the host wants; the host's own method doubles repeatedly and reduces."""
        if scale <= 1:
            return super().upscale(img, scale, selected_model)
        width, height = (int(side * scale // host.UNIT * host.UNIT) for side in img.size)
        return _enlarged(img, (width, height), selected_model)

    def do_upscale(self, img: Image.Image, selected_model: str | None = None) -> Image.Image:
        """By the upscale factor that the host knows."""
        return _enlarged(img, (img.width * SCALE, img.height * SCALE), selected_model)

    def load_model(self, path: str) -> None:
        """The host calls it at its start; models are loaded when they are used."""


def add_setting() -> None:
    """Add the setting of the upscale model to the host's page of upscaling."""
    choice = shared.OptionInfo(
        AUTOMATIC, "FMBoost in Extras: upscale model", gr.Dropdown,
        lambda: {"choices": upscale_model.choices()}, onchange=_forget_results, section=("upscaling", "Upscaling"),
    )  # fmt: skip
    shared.opts.add_option(SETTING, choice)


def _forget_results() -> None:
    """The host keeps what Extras has made of the last images, and does not know that this setting changes it."""
    scripts.scripts_postproc.image_changed()


def register(*_: Any) -> None:
    """Add our upscalers to the host's list, where the host has listed only its own (reForge, Forge Neo)."""
    listed = {scaler.name for scaler in shared.sd_upscalers}
    shared.sd_upscalers.extend(scaler for scaler in UpscalerFMBoost().scalers if scaler.name not in listed)


def _enlarged(img: Image.Image, size: tuple[int, int], name: str | None) -> Image.Image:
    """An image of any mode at size (width, height); the image itself where the user interrupts."""
    if size[0] <= img.width or size[1] <= img.height:
        return img.resize(size, Image.Resampling.LANCZOS)
    try:
        pixels = host.to_tensor(img, alpha=True).to(devices.device)
        return host.to_image(_upscaled(pixels, size, name == CHECKPOINT))
    except Cancelled:
        return img


@torch.no_grad()
def _upscaled(image: Tensor, size: tuple[int, int], by_checkpoint: bool) -> Tensor:
    """An image (1,3 or 4,h,w) in [-1,1] at size (width, height), by the checkpoint's VAE or the built-in codec."""
    loaded = checkpoint.loaded_checkpoint() if by_checkpoint else None
    party = checkpoint.party_of(loaded) if by_checkpoint else codec_party(host.builtin_codec())
    model = host.load_network(choose_model(hires.MODELS, bundled_entry(SCALE), AUTOMATIC, party).source)
    progress, chosen = host.Progress(), Options.of([], {"upscale_model": getattr(shared.opts, SETTING, AUTOMATIC)})
    enlarger = upscale_model.named(chosen.enlarger(model.spec, of_images=True))
    options = SamplingOptions().resolve(model.spec, behind=flow_behind(enlarger))
    hooks, flows = progress.hooks(preview=False), options.takes_flow()
    if not flows:
        enlarger = progress.watching(enlarger)
    on_device = nullcontext(checkpoint.host_vae(loaded)) if by_checkpoint else host.builtin_on_device()

    def run(tile: int | str | None) -> Tensor:
        tiled = Upscaler(model, codec, replace(options, tile=tile), hooks, enlarger)
        return tiled.image(image, Target(size=size, stretch=True), seeded_noise(0, 1))

    with on_device as codec, host.on_device(model, size) if flows else host.room_for_image(size):
        return host.with_smaller_tiles(run, options.tile)
