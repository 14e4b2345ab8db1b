"""Pictures of the ComfyUI templates, before | after: PYTHONPATH=. python tools/template_pictures.py FOLDER [names].

The folder has the pairs of files taesd, taesdxl, taesd3 and taef1. Run it again when the bundled weights change. The
photograph, scikit-image's astronaut, is in the public domain. It stands for what a diffusion model makes: it is
encoded, enlarged by the template's model in the template's stages, decoded and restored.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import Tensor

from fmboost_core import boost, load_codec, load_model, upscale_image
from fmboost_core.codecs.protocol import Codec
from fmboost_core.sampling.restore import restored

WIDTH, HEIGHT, STRIP, FONT = 960, 640, 64, 34
PAPER, INK = (24, 24, 24), (245, 245, 245)


class Shot(NamedTuple):
    """What is on a picture: the model, its codec's files (none: the built-in one), the scale, and where it is cut.

    left, top, side: of the square of the photograph that is enlarged. zoom: of its middle on the picture.
    """

    model: str
    codec: str
    scale: int
    left: int
    top: int
    zoom: float
    side: int = 256


SHOTS = {
    "image_upscale": Shot("sd15-x2", "", 2, 100, 0, 1.6),
    "sd15_1k": Shot("sd15-x2", "taesd", 2, 100, 0, 1.6),
    "lcm_1k": Shot("sd15-x2", "taesd", 2, 100, 0, 1.1),
    "hires_fix_replacement": Shot("sd15-x2", "taesd", 2, 0, 200, 1.5),
    "sd15_256_to_1k": Shot("sd15-x2", "taesd", 4, 100, 0, 1.8),
    "cascade_2k": Shot("sd15-x2", "taesd", 8, 10, 150, 1.0, 128),
    "sdxl_2k": Shot("sdxl-x2", "taesdxl", 2, 100, 0, 1.6),
    "flux_2k": Shot("flux1-x2", "taef1", 2, 100, 0, 1.6),
    "zimage_2k": Shot("flux1-x2", "taef1", 2, 100, 0, 1.1),
    "sd35_2k": Shot("sd3-x2", "taesd3", 2, 100, 0, 1.6),
    "trajectory": Shot("sd15-x2", "taesd", 2, 100, 0, 1.2),
}


def photo(shot: Shot) -> Tensor:
    """The square of the photograph, (1,3,side,side) in [-1,1]."""
    square = data.astronaut()[shot.top : shot.top + shot.side, shot.left : shot.left + shot.side]
    pixels = torch.from_numpy(square.copy())
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def column(picture: Tensor, width: int, zoom: float) -> Image.Image:
    """The middle of a picture at the height of the canvas."""
    values = ((picture[0].clamp(-1, 1).movedim(0, -1) + 1) * 127.5).round().to(torch.uint8)
    image = Image.fromarray(values.numpy())
    high = image.height / zoom
    wide = high * width / (HEIGHT - STRIP)
    left, top = (image.width - wide) / 2, (image.height - high) / 2
    middle = (left, top, left + wide, top + high)
    return image.resize((width, HEIGHT - STRIP), Image.Resampling.BICUBIC, middle)


def canvas(panels: list[tuple[str, Tensor]], zoom: float) -> Image.Image:
    """The panels side by side, each above its words."""
    picture, width = Image.new("RGB", (WIDTH, HEIGHT), PAPER), WIDTH // len(panels)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    for place, (words, pixels) in enumerate(panels):
        picture.paste(column(pixels, width - 4, zoom), (place * width + 2, 0))
        draw.text((place * width + width // 2, HEIGHT - STRIP // 2), words, INK, font, anchor="mm")
    return picture


@torch.no_grad()
def picture(name: str, shot: Shot, folder: Path) -> Image.Image:
    model = load_model(shot.model)
    family = model.spec.family
    codec: Codec = load_codec(str(folder / shot.codec)) if shot.codec else load_codec("builtin", family)
    small = photo(shot)
    if name == "image_upscale":
        after = upscale_image(small, model, codec, seed=0)
        return canvas([("before", small), (f"after: {shot.scale}x", after)], shot.zoom)
    latent, states = codec.encode(small), []

    def on_state(t: float, state: Tensor) -> None:
        states.append((t, state))

    large = codec.decode(boost(latent, model, codec, scale=shot.scale, seed=0, on_state=on_state))
    if name == "trajectory":
        return canvas([(f"t = {t:g}", codec.decode(x)) for t, x in states if t in (0.25, 0.5, 0.75, 1.0)], shot.zoom)
    after = restored(large, codec.decode(latent).clamp(-1, 1), look=False)
    return canvas([("before", small), (f"after: {shot.scale}x, {shot.model}", after)], shot.zoom)


def main() -> None:
    out = Path(__file__).parents[1] / "workflows"
    for name in sys.argv[2:] or SHOTS:
        shot = SHOTS[name]
        picture(name, shot, Path(sys.argv[1])).save(out / f"{name}.jpg", quality=80)
        print(name)


if __name__ == "__main__":
    main()
