"""The crops of docs/models.md: PYTHONPATH=. python tools/model_pictures.py FOLDER path/to/RealESRGAN_x4plus.pth.

FOLDER holds the tiny VAEs' pairs by their usual names: taesd, taesdxl, taef1, taesd3. Run it again when the bundled
weights change. The photographs come with scikit-image and are in the public domain or under CC0. Each is encoded to a
latent, and enlarged from that as hosts do by default.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import Tensor

from fmboost_core import Target, Upscaler, load_codec, load_model, load_upscale_model
from fmboost_core.codecs.protocol import Codec
from fmboost_core.files.locate import latent_upscale_model
from fmboost_core.imaging.resample import resize
from fmboost_core.sampling.schedule import seeded_noise
from fmboost_core.sampling.upscale_model import enlarged

FAMILIES = {
    "flux1": ("FLUX.1", "taef1"),
    "sd3": ("SD3", "taesd3"),
    "sdxl": ("SDXL", "taesdxl"),
    "sd15": ("SD1.5", "taesd"),
}
# A photograph, and the middle (x, y) of what is shown of it.
PLACES = {"astronaut": (225, 128), "chelsea": (185, 130), "coffee": (365, 272), "rocket": (325, 299)}
SEEN, SHOWN = 256, 192  # pixels: the side of the square that is encoded, and of the enlarged image's middle
GAP, HEADER = 6, 24


def square(name: str) -> Tensor:
    """A part of a photograph of scikit-image, (1,3,SEEN,SEEN) in [-1,1]."""
    pixels = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None] / 127.5 - 1
    x, y = PLACES[name]
    left, top = x - SEEN // 2, y - SEEN // 2
    return pixels[..., top : top + SEEN, left : left + SEEN]


codec_of, model_of, upscale_model_of = cache(load_codec), cache(load_model), cache(load_upscale_model)


def by_default(latent: Tensor, codec: Codec, family: str, scale: int) -> Tensor:
    """What hosts make of a small latent."""
    upscale_model = upscale_model_of(latent_upscale_model(family))
    upscaler = Upscaler(model_of(f"{family}-x2"), codec, upscale_model=upscale_model)
    return upscaler.image_of_latent(latent, Target(scale=scale), seeded_noise(0, 1))


@torch.no_grad()
def row(name: str, scale: int, vaes: Path, esrgan_file: str) -> dict[str, Image.Image]:
    """The crops of one photograph by their titles."""
    crops = {}
    for family, (title, vae) in FAMILIES.items():
        codec = codec_of(vaes / vae)
        latent = codec.encode(square(name))
        if not crops:
            seen, size = codec.decode(latent).clamp(-1, 1), (scale * SEEN, scale * SEEN)
            crops["Bicubic (FLUX.1)"] = middle(resize(seen, size, "bicubic"))
            crops["Real-ESRGAN (FLUX.1)"] = middle(enlarged(seen, size, upscale_model_of(esrgan_file)))
        crops[f"FMBoost, {title}"] = middle(by_default(latent, codec, family, scale))
    return crops


def middle(image: Tensor) -> Image.Image:
    start = (image.shape[-1] - SHOWN) // 2
    crop = image[0, :, start : start + SHOWN, start : start + SHOWN].clamp(-1, 1)
    return Image.fromarray(((crop.movedim(0, -1) + 1) * 127.5).round().to(torch.uint8).numpy())


def sheet(rows: list[dict[str, Image.Image]]) -> Image.Image:
    """Rows of crops below one line of titles."""
    step, titles = SHOWN + GAP, list(rows[0])
    canvas = Image.new("RGB", (step * len(titles) - GAP, HEADER + step * len(rows) - GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        draw.text((step * column + 2, 4), title, "black", font=ImageFont.load_default(14))
        for index, crops in enumerate(rows):
            canvas.paste(crops[title], (step * column, HEADER + step * index))
    return canvas


def main() -> None:
    vaes, esrgan_file = Path(sys.argv[1]), sys.argv[2]
    out = Path(__file__).parents[1] / "docs" / "models"
    for scale in (2, 4):
        sheet([row(name, scale, vaes, esrgan_file) for name in PLACES]).save(out / f"crops-x{scale}.jpg", quality=90)


if __name__ == "__main__":
    main()
