"""Pictures of the ComfyUI templates, before | after: PYTHONPATH=. python tools/template_pictures.py FOLDER [names].

The folder has the pairs of files taesd, taesdxl, taesd3 and taef1. Run it again when the bundled weights change. The
photographs come with scikit-image and are in the public domain or under CC0. They stand for what a diffusion model
makes: each is encoded and enlarged by the template's model and upscale model. The picture before is the
small latent, decoded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import Tensor

from fmboost_core import Model, Target, Upscaler, boost, load_codec, load_model, load_upscale_model, upscale_image
from fmboost_core.codecs.protocol import Codec
from fmboost_core.files.locate import latent_upscale_model
from fmboost_core.sampling.restore import restored
from fmboost_core.sampling.schedule import seeded_noise

WIDTH, HEIGHT, STRIP, FONT = 960, 640, 64, 34
PAPER, INK = (24, 24, 24), (245, 245, 245)


class Shot(NamedTuple):
    """What is on a picture.

    model: its name. codec: its codec's files; "": the built-in one. scale: upscale factor.
    subject: a photograph of scikit-image. left, top, side: of its square that is enlarged, in pixels.
    zoom: times that the shown part fits into the square. x, y: the part's centre, as shares of the square.
    """

    model: str
    codec: str
    scale: int
    subject: str
    left: int
    top: int
    side: int
    zoom: float
    x: float = 0.5
    y: float = 0.5


FACE = ("astronaut", 0, 0, 512, 3.0, 0.44, 0.25)
CUP = ("coffee", 100, 0, 400, 1.8, 0.45, 0.55)
CAT = ("chelsea", 80, 6, 288, 1.6)
ROCKET = ("rocket", 180, 20, 400, 1.4)
SHOTS = {
    "image_upscale": Shot("flux1-x2", "", 2, *FACE),
    "sd15_1k": Shot("sd15-x2", "taesd", 2, *CUP),
    "sd15_1k_fast": Shot("sd15-x2-direct", "taesd", 2, *CAT),
    "lcm_1k": Shot("sd15-x2", "taesd", 2, *ROCKET),
    "hires_fix_replacement": Shot("sd15-x2", "taesd", 2, *CAT),
    "sd15_256_to_1k": Shot("sd15-x2", "taesd", 4, "coffee", 180, 100, 256, 1.0),
    "cascade_2k": Shot("sd15-x2", "taesd", 8, "astronaut", 10, 150, 128, 1.0),
    "sdxl_2k": Shot("sdxl-x2", "taesdxl", 2, *ROCKET),
    "flux_2k": Shot("flux1-x2", "taef1", 2, *FACE),
    "zimage_2k": Shot("flux1-x2", "taef1", 2, *CAT),
    "sd35_2k": Shot("sd3-x2", "taesd3", 2, *CUP),
    "trajectory": Shot("sd15-x2", "taesd", 2, *CUP),
}


def photo(shot: Shot) -> Tensor:
    """The square of the photograph, (1,3,side,side) in [-1,1]."""
    square = getattr(data, shot.subject)()[shot.top : shot.top + shot.side, shot.left : shot.left + shot.side]
    pixels = torch.from_numpy(square.copy())
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def column(picture: Tensor, width: int, shot: Shot) -> Image.Image:
    """The shown part of a picture at the height of the canvas."""
    values = ((picture[0].clamp(-1, 1).movedim(0, -1) + 1) * 127.5).round().to(torch.uint8)
    image = Image.fromarray(values.numpy())
    high = image.height / shot.zoom
    wide = high * width / (HEIGHT - STRIP)
    left, top = image.width * shot.x - wide / 2, image.height * shot.y - high / 2
    part = (left, top, left + wide, top + high)
    return image.resize((width, HEIGHT - STRIP), Image.Resampling.BICUBIC, part)


def canvas(panels: list[tuple[str, Tensor]], shot: Shot) -> Image.Image:
    """The panels side by side, each above its words."""
    picture, width = Image.new("RGB", (WIDTH, HEIGHT), PAPER), WIDTH // len(panels)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    for place, (words, pixels) in enumerate(panels):
        picture.paste(column(pixels, width - 4, shot), (place * width + 2, 0))
        draw.text((place * width + width // 2, HEIGHT - STRIP // 2), words, INK, font, anchor="mm")
    return picture


def flowed(latent: Tensor, model: Model, codec: Codec) -> list[tuple[float, Tensor]]:
    """The times and states of a flow of four evaluations, as in the template, but for the start."""
    states: list[tuple[float, Tensor]] = []
    boost(latent, model, codec, nfe=4, seed=0, on_state=lambda t, state: states.append((t, state)))
    return [(t, state) for t, state in states if t > 0]


@torch.no_grad()
def picture(name: str, shot: Shot, folder: Path) -> Image.Image:
    model = load_model(shot.model)
    family = model.spec.family
    codec: Codec = load_codec(str(folder / shot.codec)) if shot.codec else load_codec("builtin", family)
    small = photo(shot)
    if name == "image_upscale":
        after = upscale_image(small, model, codec, seed=0, upscale_model=load_upscale_model("builtin"))
        return canvas([("before", small), (f"after: {shot.scale}x", after)], shot)
    latent = codec.encode(small)
    if name == "trajectory":
        return canvas([(f"t = {t:g}", codec.decode(x)) for t, x in flowed(latent, model, codec)], shot)
    before = codec.decode(latent).clamp(-1, 1)
    upscale_model = load_upscale_model(latent_upscale_model(model.spec.family)) if model.spec.guide == "psu" else None
    upscaler = Upscaler(model, codec, upscale_model=upscale_model)
    large, after = upscaler.latent_and_image(latent, Target(scale=shot.scale), seeded_noise(0, 1), before)
    if name == "sd15_1k":  # the only one with VAE Decode and FMBoost Restore
        after = restored(codec.decode(large), before, look=False)
    return canvas([("before", before), (f"after: {shot.scale}x, {shot.model}", after)], shot)


def main() -> None:
    out = Path(__file__).parents[1] / "workflows"
    for name in sys.argv[2:] or SHOTS:
        shot = SHOTS[name]
        picture(name, shot, Path(sys.argv[1])).save(out / f"{name}.jpg", quality=80)
        print(name)


if __name__ == "__main__":
    main()
