"""The README's comparisons: PYTHONPATH=. python tools/readme_pictures.py path/to/taesd path/to/RealESRGAN_x4plus.pth.

Run it again when the bundled weights change. The photographs come with scikit-image and are in the public domain or
under CC0. Each method doubles both sides; the image of Real-ESRGAN, which makes them four times as long, is
reduced by half afterwards.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from skimage import data
from torch import Tensor

from fmboost_core import Target, Upscaler, load_codec, load_model, load_upscale_model, upscale_image
from fmboost_core.files.locate import IMAGE_UPSCALE_MODEL, LATENT_UPSCALE_MODEL
from fmboost_core.imaging.compare import Panel, side_by_side
from fmboost_core.imaging.resample import resize
from fmboost_core.sampling.schedule import seeded_noise
from fmboost_core.sampling.upscale_model import UpscaleModel, enlarged


def photo(name: str) -> Tensor:
    """A photograph of scikit-image, (1,3,H,W) in [-1,1], of whole latents."""
    pixels = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None] / 127.5 - 1
    return pixels[..., : pixels.shape[-2] // 8 * 8, : pixels.shape[-1] // 8 * 8]


def panel(image: Tensor, title: str, caption: str) -> Panel:
    """image: (1,3,H,W) in [-1,1]."""
    values = ((image[0].clamp(-1, 1).movedim(0, -1) + 1) * 127.5).round().to(torch.uint8)
    return Panel(Image.fromarray(values.numpy()), title, caption)


def comparison(small: Tensor, esrgan: UpscaleModel, large: Tensor, caption: str) -> Image.Image:
    """The small image by bicubic interpolation and by Real-ESRGAN, and FMBoost's large one."""
    size = (large.shape[-2], large.shape[-1])
    sizes = f"{small.shape[-1]}x{small.shape[-2]} to {size[1]}x{size[0]}"
    return side_by_side(
        (
            panel(resize(small, size, "bicubic"), "Bicubic", sizes),
            panel(enlarged(small, size, esrgan), "Real-ESRGAN x4plus", "reduced to 2x"),
            panel(large, "FMBoost", caption),
        )
    )


@torch.no_grad()
def pictures(taesd: str, esrgan_file: str) -> dict[str, Image.Image]:
    """The images by their names."""
    esrgan = load_upscale_model(esrgan_file)
    image, model = photo("astronaut"), load_model("flux1-x2")
    bundled = load_upscale_model(IMAGE_UPSCALE_MODEL)
    large = upscale_image(image, model, load_codec("builtin", "flux1"), upscale_model=bundled)
    whole = comparison(image, esrgan, large, IMAGE_UPSCALE_MODEL)
    codec = load_codec(taesd)
    latent = codec.encode(photo("coffee"))
    seen = codec.decode(latent).clamp(-1, 1)
    upscaler = Upscaler(load_model("sd15-x2"), codec, upscale_model=load_upscale_model(LATENT_UPSCALE_MODEL))
    large = upscaler.image_of_latent(latent, Target(scale=2), seeded_noise(0, 1), seen)
    return {"compare": whole, "compare-latent": comparison(seen, esrgan, large, LATENT_UPSCALE_MODEL)}


def main() -> None:
    out = Path(__file__).parents[1] / "docs" / "images"
    for name, picture in pictures(*sys.argv[1:3]).items():
        picture.thumbnail((2000, 2000), Image.Resampling.LANCZOS)
        picture.save(out / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
