"""Recognition of a latent's family by its statistics, where nothing tells it: families share their number of channels.

What an image shows changes the statistics of its latent's values. How the channels change together from one position to
the next is nearly the same in all images, and differs between families. So the features of a latent (C,h,w) are the
logarithms of the standard deviations of the differences between neighbours, less their mean (C), the correlations of
these differences between channels (each pair: 01 02 03 ... 12 13 ...), and those of the values themselves. They do not
depend on the latent's scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Logistic regressions; above 0 is the second family. They have no constant, so that noise, whose features are 0, is of
# no family. tools/fit_recognition.py fits them to images and their guides by the families' public tiny VAEs: those of 4
# channels to photographs, drawings, generated images and upscaled latents, those of 16 to 44 photographs and generated
# images. The weights end where the features do not count any more.
_WEIGHTS_4 = (
    -7.86, -10.83, 12.19, -1.0,
    9.08, 3.07, -7.31, 0.22, 7.05, -2.08,
    -2.9, -1.23, 0.61, 1.65, 1.69, -2.26,
)  # fmt: skip
_WEIGHTS_16 = (
    1.1, 1.1, 1.1, -0.6, 1, -0.9, -0.5, -1.2, -0.4, -1, -1.2, 0.4, 1.9, -1.7, -1.2, -1.1,
    -0.6, 0.6, -0.9, 0.7, 0.1, 1.1, 0.4, -0.5, 0, -1, -0.4, 0.5, 1, -1.6, 0.2,
    -0.2, -1.1, 1.1, 0, 0.6, -0.7, -1.7, 0.4, -0.1, 0.1, 0.4, -0.6, -0.4, -0.9,
    -0.5, -0.5, -0.8, -0.9, 0.4, -0.7, -1.2, -0.4, 0.2, -0.3, 0.1, 0, 0.7,
    1.2, -0.8, -1.2, -0.6, 0.9, -1.5, -0.6, -0.1, -0.9, 0.1, 1.2, 0.9,
    0.1, 0.1, -0.5, -0.1, 1.2, 0.8, -0.4, 1.2, 0.2, -0.8, 0.4,
    -0.4, -0.8, 1.2, -1.8, -0.2, 0.1, -1, 0.2, -1, 0.6,
    -0.5, 0.5, 0.8, -0.8, 0.9, 0.6, -0.6, 0, 0.4,
    1, 1, -0.7, 0, -0.5, 0.5, 0.6, 0.6,
    -0.3, 0.8, 0.7, -0.1, -0.2, -0.8, -0.7,
    0.1, 0.4, 0.1, -0.5, 0.1, -0.7,
    -0.2, -0.3, -0.6, 1.1, 0.6,
    0.7, -0.7, -0.7, -1,
    -0.4, -0.2, 1,
    0.5, 0.1,
    -1.1,
)  # fmt: skip


@dataclass(frozen=True)
class _Judge:
    """Tells two families of as many channels apart. families: below and above 0. weights: of the features.

    noise: the standard deviation of white noise's score, times the root of the number of positions.
    clear_of_codec: what the score of the test image's latent must exceed, which is no noise, but small.
    """

    families: tuple[str, str]
    weights: tuple[float, ...]
    noise: float
    clear_of_codec: float

    def clear(self, positions: int) -> float:
        """What the score of a latent of so many positions must exceed."""
        return max(_CLEAR, _DEVIATIONS * self.noise / math.sqrt(positions))

    def family(self, item: Tensor, clear: float) -> str | None:
        """The family of one latent (C,h,w); None for a score that is nearer to 0 than clear, and for NaN."""
        score = float(features(item)[: len(self.weights)] @ torch.tensor(self.weights, dtype=torch.float64))
        if abs(score) > clear:
            return self.families[score > 0]
        return None


_CLEAR = 1.0  # a score that is nearer to 0 decides nothing
_DEVIATIONS = 4  # of noise's score; what is nearer to 0 may be noise
_FEWEST = 1024  # positions; the statistics of fewer say little
# Scores of the test image's latent: TAESD -7.1, TAESDXL 9.8, TAESD3 -10.5, TAEF1 7.9.
_JUDGES = {4: _Judge(("sd15", "sdxl"), _WEIGHTS_4, 20.5, 4.0), 16: _Judge(("sd3", "flux1"), _WEIGHTS_16, 10.0, 4.0)}


def is_recognisable(channels: int) -> bool:
    """Whether latents of so many channels can be told apart."""
    return channels in _JUDGES


def recognise(raw: Tensor) -> str | None:
    """The family of a raw or scaled latent (B,C,h,w), a key of `FAMILIES`; None where the statistics are not clear.

    Flat and tiny latents and noise give None, and so does a batch whose items differ, or a latent of other channels.
    """
    judge, positions = _JUDGES.get(raw.shape[1]), raw.shape[-2] * raw.shape[-1]
    if judge is None or positions < _FEWEST:
        return None
    return _agreed(judge, raw, judge.clear(positions))


def recognise_codec(encode: Callable[[Tensor], Tensor]) -> str | None:
    """The family of an encoder, from images (1,3,H,W) in [-1,1] to latents (1,C,h,w), by that of a test image."""
    latent = encode(_test_image())
    judge = _JUDGES.get(latent.shape[1])
    return None if judge is None else _agreed(judge, latent, judge.clear_of_codec)


def features(item: Tensor) -> Tensor:
    """The features (C*C,) of one latent (C,h,w); NaN where a channel is flat."""
    values = item.double()
    steps = torch.cat([values.diff(dim=1).flatten(1), values.diff(dim=2).flatten(1)], 1)
    deviations = steps.square().mean(1).log() / 2
    pairs = torch.triu_indices(len(values), len(values), offset=1)
    correlations = [torch.corrcoef(x)[pairs[0], pairs[1]] for x in (steps, values.flatten(1))]
    return torch.cat([deviations - deviations.mean(), *correlations])


def _agreed(judge: _Judge, latents: Tensor, clear: float) -> str | None:
    """The family on which all items agree."""
    found = {judge.family(item.float().cpu(), clear) for item in latents}
    return found.pop() if len(found) == 1 else None


def _test_image() -> Tensor:
    """Clouds of little colour, as photographs have it, (1,3,64,64) in [-1,1]: the same always."""
    generator = torch.Generator().manual_seed(0)

    def clouds(channels: int) -> Tensor:
        layers = [torch.randn(1, channels, side, side, generator=generator) for side in (3, 8, 24, 64)]
        sizes = [F.interpolate(layer, (64, 64), mode="bilinear") * 0.6**i for i, layer in enumerate(layers)]
        return torch.stack(sizes).sum(0)

    image = clouds(1) + 0.15 * clouds(3)
    return (image / image.std() * 0.4).clamp(-1, 1)
