"""Recognition of a latent's family by its statistics, where nothing tells it: SD1.5's and SDXL's have four channels.

What an image shows changes the statistics of its latent's values. How the channels change together from one position to
the next is nearly the same in all images, and differs between families. So the features of a latent (4,h,w) are the
logarithms of the standard deviations of the differences between neighbours, less their mean (4), the correlations of
these differences between channels (6, pairs 01 02 03 12 13 23), and those of the values themselves (6). They do not
depend on the latent's scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 4  # of the families that are told apart

# A logistic regression; above 0 is SDXL. It has no constant, so that noise, whose features are 0, is of no family.
# tools/fit_recognition.py fits it to photographs, drawings and generated images, their guides and their upscaled
# latents, by TAESD and TAESDXL.
_WEIGHTS = (
    -7.86, -10.83, 12.19, -1.0,
    9.08, 3.07, -7.31, 0.22, 7.05, -2.08,
    -2.9, -1.23, 0.61, 1.65, 1.69, -2.26,
)  # fmt: skip
_CLEAR = 1.0  # a score that is nearer to 0 decides nothing
_NOISE = 20.5  # the standard deviation of white noise's score, times the root of the number of positions
_DEVIATIONS = 4  # of noise's score; what is nearer to 0 may be noise
_CLEAR_OF_CODEC = 4.0  # the test image is no noise, but small; TAESD has -7.1, TAESDXL 9.8
_FEWEST = 1024  # positions; the statistics of fewer say little


def recognise(raw: Tensor) -> str | None:
    """ "sd15" or "sdxl" for a raw or scaled latent (B,4,h,w); None where the statistics are not clear.

    Flat and tiny latents and noise give None, and so does a batch whose items differ.
    """
    positions = raw.shape[-2] * raw.shape[-1]
    if raw.shape[1] != CHANNELS or positions < _FEWEST:
        return None
    return _agreed(raw, max(_CLEAR, _DEVIATIONS * _NOISE / math.sqrt(positions)))


def recognise_codec(encode: Callable[[Tensor], Tensor]) -> str | None:
    """The family of an encoder, from images (1,3,H,W) in [-1,1] to latents (1,4,h,w), by that of a test image."""
    return _agreed(encode(_test_image()), _CLEAR_OF_CODEC)


def features(item: Tensor) -> Tensor:
    """The features (16,) of one latent (4,h,w); NaN where a channel is flat."""
    values = item.double()
    steps = torch.cat([values.diff(dim=1).flatten(1), values.diff(dim=2).flatten(1)], 1)
    deviations = steps.square().mean(1).log() / 2
    pairs = torch.triu_indices(CHANNELS, CHANNELS, offset=1)
    correlations = [torch.corrcoef(x)[pairs[0], pairs[1]] for x in (steps, values.flatten(1))]
    return torch.cat([deviations - deviations.mean(), *correlations])


def _agreed(latents: Tensor, clear: float) -> str | None:
    """The family on which all items agree, with scores further from 0 than clear."""
    weights = torch.tensor(_WEIGHTS, dtype=torch.float64)
    found = {_family(float(features(item.float().cpu()) @ weights), clear) for item in latents}
    return found.pop() if len(found) == 1 else None


def _family(score: float, clear: float) -> str | None:
    """NaN is on neither side."""
    if abs(score) > clear:
        return "sdxl" if score > 0 else "sd15"
    return None


def _test_image() -> Tensor:
    """Clouds of little colour, as photographs have it, (1,3,64,64) in [-1,1]: the same always."""
    generator = torch.Generator().manual_seed(0)

    def clouds(channels: int) -> Tensor:
        layers = [torch.randn(1, channels, side, side, generator=generator) for side in (3, 8, 24, 64)]
        sizes = [F.interpolate(layer, (64, 64), mode="bilinear") * 0.6**i for i, layer in enumerate(layers)]
        return torch.stack(sizes).sum(0)

    image = clouds(1) + 0.15 * clouds(3)
    return (image / image.std() * 0.4).clamp(-1, 1)
