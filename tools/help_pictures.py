"""Images of the ComfyUI help pages in web/docs: PYTHONPATH=. python tools/help_pictures.py path/to/taesd.

Run it again when the bundled weights change. The photographs come with scikit-image and are in the public domain. TAESD
decodes everything; its pair of files is given by the common beginning of their names.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from torch import Tensor

from fmboost_core import (
    Target,
    Upscaler,
    alpha_bar,
    attention_scale,
    boost,
    load_codec,
    load_model,
    load_upscale_model,
    noise_augment,
    upscale_image,
)
from fmboost_core.files.locate import IMAGE_UPSCALE_MODEL, LATENT_UPSCALE_MODEL
from fmboost_core.imaging.resample import resize
from fmboost_core.sampling.guide import pixel_upsample
from fmboost_core.sampling.restore import restored
from fmboost_core.sampling.schedule import seeded_noise

COLUMNS, SIDE, GAP, LABEL, FONT = 2, 230, 8, 32, 20  # large words: the help panel is 250 pixels wide
PAPER, INK, LINE = (40, 40, 40), (235, 235, 235), (255, 176, 32)
Panel = tuple[str, Tensor]


def photo(name: str, left: int, top: int, side: int) -> Tensor:
    """A square of a photograph, (1,3,side,side) in [-1,1]."""
    pixels = torch.from_numpy(getattr(data, name)()[top : top + side, left : left + side].copy())
    if pixels.ndim == 2:
        pixels = pixels[..., None].expand(-1, -1, 3)
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def grid(panels: Sequence[Panel], left: int, top: int) -> Image.Image:
    """The same square of each image, at its own resolution, below its label."""
    rows = -(-len(panels) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + LABEL) + GAP), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT)
    for i, (words, picture) in enumerate(panels):
        cut = picture[0, :, top : top + SIDE, left : left + SIDE].clamp(-1, 1).movedim(0, -1)
        square = Image.fromarray(((cut + 1) * 127.5).round().to(torch.uint8).numpy())
        x, y = GAP + i % COLUMNS * (SIDE + GAP), i // COLUMNS * (SIDE + LABEL)
        canvas.paste(square, (x, y + LABEL))
        draw.text((x, y + 5), words, INK, font)
    return canvas


def attention_plot() -> Image.Image:
    """The scale of the attention scores by the side of the image, for a model trained at 512 pixels."""
    width, height, margin = COLUMNS * (SIDE + GAP) + GAP, 300, 60
    canvas = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT)

    def factor(side: float) -> float:
        now, trained = max(1, int(side / 8) ** 2), 64**2
        return attention_scale(now, trained, 1) / attention_scale(trained, trained, 1)

    def place(side: float, value: float) -> tuple[float, float]:
        x = margin + (width - 2 * margin) * math.log2(side / 128) / 3
        return x, height - margin - (height - 2 * margin) * (value - 0.8) / 0.4

    draw.line([place(128, 1), place(1024, 1)], (90, 90, 90))
    draw.line([place(s, factor(s)) for s in range(128, 1025, 8)], LINE, 3)
    for side in (128, 256, 512, 1024):
        x, y = place(side, factor(side))
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), LINE)
        draw.text((x, y - 24), f"{factor(side):.3f}", INK, font, anchor="mm")
        draw.text((x, height - 20), f"{side} px", INK, font, anchor="mm")
    draw.text((GAP, GAP), "factor on the finest layer's scores, trained at 512 px", INK, font)
    return canvas


@torch.no_grad()
def pictures(taesd: str) -> dict[str, Image.Image]:
    """The image of each help page, by node id."""
    codec, model, direct, four_x = load_codec(taesd), *map(load_model, ("sd15-x2", "sd15-x2-direct", "sd15-x4"))
    large = photo("coffee", 0, 8, 384)
    half, size = (192, 192), (384, 384)
    small, quarter = codec.encode(resize(large, half)), codec.encode(resize(large, (96, 96)))
    for_latents, for_images = map(load_upscale_model, (LATENT_UPSCALE_MODEL, IMAGE_UPSCALE_MODEL))
    guide, auto = (pixel_upsample(small, codec, size, upscale_model=by) for by in (None, for_latents))
    noise = seeded_noise(0, 1)(tuple(guide.shape))

    def boosted(nfe: int) -> Panel:
        words = f"{nfe} evaluation{'s' if nfe > 1 else ''}"
        return words, codec.decode(boost(quarter, four_x, codec, nfe=nfe, seed=0))

    def ended(step: int) -> Panel:
        return f"from step {step}", codec.decode(boost(small, model, codec, noise_step=step, seed=0))

    start = "the start, step 400", codec.decode(noise_augment(guide, alpha_bar(400), noise))

    guides = [(m, codec.decode(resize(small, (48, 48), m))) for m in ("nearest", "bilinear")]
    cup = (4, 10)
    text = photo("page", 150, 20, 128)
    low = codec.decode(small)
    upscaler = Upscaler(model, codec, upscale_model=for_latents)
    large_latent, behind = upscaler.latent_and_image(small, Target(scale=2), seeded_noise(0, 1), low.clamp(-1, 1))
    _, twice = upscaler.latent_and_image(small, Target(scale=4), seeded_noise(0, 1), low.clamp(-1, 1))
    upscaled, quick = codec.decode(large_latent), codec.decode(boost(small, direct, codec, seed=0))
    return {
        "FMBoostLoadCFM": grid(
            [("interpolated", resize(resize(large, half), size, "bicubic")),
             ("sd15-x2-direct", restored(quick, low, look=False)), ("sd15-x2, by auto", behind),
             ("the true picture", large)], *cup,
        ),
        "FMBoostPSUUpsample": grid([*guides, ("psu", codec.decode(guide)), ("auto", codec.decode(auto))], *cup),
        "FMBoostNoiseAugment": grid([start, *map(ended, (100, 400, 600))], *cup),
        "FMBoostCFMSample": grid([boosted(nfe) for nfe in (1, 2, 4, 8)], *cup),
        "FMBoostUpscale": grid(
            [("interpolated 4x", resize(resize(large, half), (768, 768), "bicubic")),
             ("FMBoost, 4x", twice)], 2 * cup[0], 2 * cup[1],
        ),
        "FMBoostUpscaleImage": grid(
            [("the small picture", resize(text, (256, 256), "nearest")),
             ("interpolated", resize(text, (256, 256), "bicubic")),
             ("restore off", upscale_image(text, model, codec, restore=False, upscale_model=for_images)),
             ("restore on", upscale_image(text, model, codec, upscale_model=for_images))], 20, 20,
        ),
        "FMBoostRestore": grid(
            [("the small picture", resize(low, size, "nearest")), ("upscaled", upscaled),
             ("restored", restored(upscaled, low, look=False)), ("the true picture", large)], *cup,
        ),
        "FMBoostAttentionScale": attention_plot(),
    }  # fmt: skip


def main() -> None:
    out = Path(__file__).parents[1] / "web" / "docs"
    for node, picture in pictures(sys.argv[1]).items():
        picture.save(out / f"{node}.jpg", quality=88, subsampling=0)


if __name__ == "__main__":
    main()
