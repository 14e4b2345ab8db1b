"""Fit fmboost_core/recognition.py: `python tools/fit_recognition.py PHOTOS... --sd15 taesd --sdxl taesdxl`.

PHOTOS are folders of images. Each image is encoded by both codecs, as it is, as the guide of an image of half the size,
and upscaled by the bundled model. The weights are printed, and how many latents they tell right, wrong and not at all.
Use `--check` with weights that were fitted to other images: nothing is fitted then.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fmboost_core import Codec, Model, boost, load_codec, load_model
from fmboost_core.recognition import features, recognise
from fmboost_core.sampling.guide import pixel_upsample

FAMILIES = ("sd15", "sdxl")  # below and above 0
RIDGE = 1e-3


def latents(image: Tensor, codec: Codec, model: Model | None) -> Iterator[Tensor]:
    """The latents (1,4,h,w) of one image (1,3,H,W) in [-1,1]: encoded, guided and upscaled."""
    yield codec.encode(image)
    if model is not None:
        small = codec.encode(F.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True))
        yield pixel_upsample(small, codec, (image.shape[-2], image.shape[-1]), False)
        yield boost(small, model, codec, scale=2)


def square(path: Path, side: int) -> Tensor:
    """The largest square at the centre of an image, reduced to side pixels, (1,3,side,side) in [-1,1]."""
    with Image.open(path) as image:
        width, height = image.size
        cut = min(width, height)
        left, top = (width - cut) // 2, (height - cut) // 2
        box = (left, top, left + cut, top + cut)
        pixels = np.array(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS, box))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1


def fit(x: Tensor, y: Tensor) -> Tensor:
    """The weights (D,) of a logistic regression without a constant: x (N,D), y (N,) 0 or 1; by Newton's method."""
    deviations = x.std(0)
    z, weights = x / deviations, torch.zeros(x.shape[1]).to(x)
    for _ in range(80):
        p = torch.sigmoid(z @ weights)
        gradient = z.T @ (p - y) / len(y) + RIDGE * weights
        curvature = (z.T * (p * (1 - p))) @ z / len(y) + RIDGE * torch.eye(len(weights)).to(x)
        weights = weights - torch.linalg.solve(curvature, gradient)
    return weights / deviations


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", nargs="+", type=Path)
    for family in FAMILIES:
        parser.add_argument(f"--{family}", type=Path, required=True, help="its codec, as `load_codec` takes it")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--limit", type=int, default=60, help="images of a folder")
    parser.add_argument("--plain", action="store_true", help="no guides and no upscaled latents")
    parser.add_argument("--check", action="store_true", help="fit nothing")
    args = parser.parse_args()
    paths = [path for folder in args.photos for path in sorted(folder.iterdir())[: args.limit]]
    found: list[tuple[Tensor, int, str | None]] = []
    for label, family in enumerate(FAMILIES):
        codec = load_codec(vars(args)[family], family)
        model = None if args.plain else load_model(f"{family}-x2")
        for path in paths:
            made = latents(square(path, args.side), codec, model)
            found += [(features(latent[0]), label, recognise(latent)) for latent in made]
    told = [(None if seems is None else seems == FAMILIES[label]) for _, label, seems in found]
    print(f"the present weights: {told.count(True)} right, {told.count(False)} wrong, {told.count(None)} undecided")
    if not args.check:
        x, y = torch.stack([row for row, _, _ in found]), torch.tensor([label for _, label, _ in found])
        print("weights:", [round(weight, 2) for weight in fit(x, y.to(x)).tolist()])


if __name__ == "__main__":
    main()
