"""FMBoost for any picture, as an upscaler in Extras: encode, boost, decode, in stages and tiles."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from modules import devices, shared
from modules.upscaler import Upscaler, UpscalerData
from PIL import Image
from torch import Tensor

from fmboost_core import upscale_image
from fmboost_core.errors import Cancelled

from . import hires, host
from .options import AUTOMATIC, choose_model

# Not the names of the dropdown in hires-fix: there a latent mode comes first.
BUNDLED, CHECKPOINT = "FMBoost picture", "FMBoost picture (checkpoint's VAE)"
SCALE = 2


class UpscalerFMBoost(Upscaler):
    name = "FMBoost"

    def __init__(self, dirname: str | None = None) -> None:
        super().__init__(False)
        self.scalers = [UpscalerData(name, name, self, SCALE) for name in (BUNDLED, CHECKPOINT)]

    def upscale(self, img: Image.Image, scale: float, selected_model: str | None = None) -> Image.Image:
        """At once to the size that the host wants, not by repeated doubling and reducing."""
        if scale <= 1:
            return super().upscale(img, scale, selected_model)
        unit = host.FACTOR
        return _enlarged(
            img, (int(img.width * scale // unit * unit), int(img.height * scale // unit * unit)), selected_model
        )

    def do_upscale(self, img: Image.Image, selected_model: str | None = None) -> Image.Image:
        return _enlarged(img, (img.width * SCALE, img.height * SCALE), selected_model)

    def load_model(self, path: str) -> None:
        """The host asks for it; models are loaded when they are used."""


def _enlarged(img: Image.Image, size: tuple[int, int], name: str | None) -> Image.Image:
    """A picture of any mode at size (width, height); interrupted, the picture as it was."""
    if size[0] <= img.width or size[1] <= img.height:
        return img.resize(size, Image.Resampling.LANCZOS)
    try:
        large = _boosted(host.pixels_of(img).to(devices.device), size, name == CHECKPOINT)
    except Cancelled:
        return img
    result = Image.fromarray(
        ((large[0].movedim(0, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    )
    if "A" in img.getbands():
        result.putalpha(img.getchannel("A").resize(size, Image.Resampling.LANCZOS))
    return result


@torch.no_grad()
def _boosted(pixels: Tensor, size: tuple[int, int], by_checkpoint: bool) -> Tensor:
    family = host.family_of(shared.sd_model) if by_checkpoint else "sd15"
    model = host.load_network(choose_model(hires.MODELS, f"FMBoost {SCALE}x", AUTOMATIC, family).source)
    progress = host.Progress(1, 0)

    def run(tile: int | str | None) -> Tensor:
        return upscale_image(
            pixels, model, codec, size=size, stretch=True, tile=tile, progress=progress.on_progress,
            cancelled=host.interrupted,
        )  # fmt: skip

    whose = nullcontext(host.host_vae(shared.sd_model)) if by_checkpoint else host.bundled_codec()
    with whose as codec, host.on_device(model, size):
        return host.with_smaller_tiles(run, "auto")
