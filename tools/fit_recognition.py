"""Fit fmboost_core/recognition.py: `python tools/fit_recognition.py PHOTOS... --codecs sd15=taesd sdxl=taesdxl`.

PHOTOS are folders of images. Each image is encoded by the codecs of two families of as many channels, as it is, as the
guide of an image of half the size, and upscaled by the family's bundled model where there is one. The weights are
printed, and how many latents they tell right, wrong and not at all. Use `--check` with weights that were fitted to
other images: nothing is fitted then.
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
from fmboost_core.files.locate import bundled_models
from fmboost_core.recognition import features, recognise
from fmboost_core.sampling.guide import pixel_upsample

FEATURES = {4: 16, 16: 136}  # that count, by the number of channels: of 16, the values' own correlations do not


def latents(image: Tensor, codec: Codec, model: Model | None) -> Iterator[Tensor]:
    """The latents (1,C,h,w) of one image (1,3,H,W) in [-1,1]: encoded, guided and, with a model, upscaled."""
    yield codec.encode(image)
    small = codec.encode(F.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True))
    yield pixel_upsample(small, codec, (image.shape[-2], image.shape[-1]), False)
    if model is not None:
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


def fit(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """The weights (D,) of a logistic regression without a constant: x (N,D), y (N,) 0 or 1; by Newton's method."""
    deviations = x.std(0)
    z, weights = x / deviations, torch.zeros(x.shape[1]).to(x)
    for _ in range(80):
        p = torch.sigmoid(z @ weights)
        gradient = z.T @ (p - y) / len(y) + ridge * weights
        curvature = (z.T * (p * (1 - p))) @ z / len(y) + ridge * torch.eye(len(weights)).to(x)
        weights = weights - torch.linalg.solve(curvature, gradient)
    return weights / deviations


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", nargs="+", type=Path)
    help = "two, as FAMILY=CODEC: the family below 0 first, its codec as `load_codec` takes it"
    parser.add_argument("--codecs", nargs=2, required=True, metavar="FAMILY=CODEC", help=help)
    parser.add_argument("--ridge", type=float, default=1e-3)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--limit", type=int, default=60, help="images of a folder")
    parser.add_argument("--plain", action="store_true", help="no upscaled latents")
    parser.add_argument("--check", action="store_true", help="fit nothing")
    args = parser.parse_args()
    paths = [path for folder in args.photos for path in sorted(folder.iterdir())[: args.limit]]
    families = [pair.partition("=")[0] for pair in args.codecs]
    found: list[tuple[Tensor, int, str | None]] = []
    for label, family in enumerate(families):
        codec = load_codec(args.codecs[label].partition("=")[2], family)
        model = None if args.plain or f"{family}-x2" not in bundled_models() else load_model(f"{family}-x2")
        for path in paths:
            made = latents(square(path, args.side), codec, model)
            found += [(features(latent[0]), label, recognise(latent)) for latent in made]
    told = [(None if seems is None else seems == families[label]) for _, label, seems in found]
    print(f"the present weights: {told.count(True)} right, {told.count(False)} wrong, {told.count(None)} undecided")
    if not args.check:
        count = FEATURES[codec.channels]
        x, y = torch.stack([row[:count] for row, _, _ in found]), torch.tensor([label for _, label, _ in found])
        print("weights:", [round(weight, 2) for weight in fit(x, y.to(x), args.ridge).tolist()])


if __name__ == "__main__":
    main()
