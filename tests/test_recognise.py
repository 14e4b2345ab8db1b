"""Latents of families with as many channels, SD1.5 and SDXL, SD3 and FLUX.1, told apart by their statistics."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fmboost_core.codecs.load import load_codec
from fmboost_core.families import FAMILIES
from fmboost_core.recognition import recognise, recognise_codec
from fmboost_core.sampling.guide import pixel_upsample

CODEC = cache(load_codec)


def raw(scaled: torch.Tensor, family: str) -> torch.Tensor:
    return FAMILIES[family].to_raw(scaled)


def pictures(folder: Path, count: int) -> Iterator[torch.Tensor]:
    """Squares of 256 pixels from photographs and generated images, (1,3,256,256) in [-1,1]."""
    paths = sorted(folder.glob("*.jpg"))
    for path in paths[:: max(1, len(paths) // count)][:count]:
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        pixels = np.array(image.crop((0, 0, side, side)).resize((256, 256), Image.Resampling.LANCZOS))
        yield torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1


PREFIXES = {"sd15": "taesd", "sdxl": "taesdxl", "sd3": "taesd3", "flux1": "taef1"}


@pytest.mark.parametrize(("family", "prefix"), PREFIXES.items())
def test_images_and_their_guides_are_told_apart(shared: Path, family: str, prefix: str) -> None:
    """Of images that it was not fitted to: none is taken for the other family's, and nearly all are known."""
    codec, verdicts = CODEC(shared / "taesd" / prefix), []
    for image in [*pictures(shared / "photos/val", 2), *pictures(shared / "photos/val-large", 1)]:
        verdicts.append(recognise(raw(codec.encode(image), family)))
    small = codec.encode(F.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True))
    verdicts.append(recognise(raw(pixel_upsample(small, codec, (256, 256), False), family)))
    assert set(verdicts) <= {None, family} and verdicts.count(family) >= 3


def test_the_bundled_codec_is_of_sd15(codec_image: torch.Tensor) -> None:
    """Its latents are near SD1.5's, though it is another network than the one that the weights were fitted to."""
    assert recognise(raw(CODEC("builtin").encode(codec_image), "sd15")) == "sd15"


def test_a_codec_is_known_by_its_latent_of_a_test_image(shared: Path) -> None:
    places = {shared / "taesd" / prefix: family for family, prefix in PREFIXES.items()}
    for place, family in places.items():
        assert recognise_codec(CODEC(place).encode) == family


def test_the_bundled_codec_is_known_by_a_test_image() -> None:
    assert recognise_codec(CODEC("builtin").encode) == "sd15"


@pytest.fixture
def codec_image() -> torch.Tensor:
    """Grey clouds, (1,3,256,256) in [-1,1]."""
    generator = torch.Generator().manual_seed(1)
    layers = [torch.randn(1, 1, side, side, generator=generator) for side in (4, 16, 64)]
    clouds = [F.interpolate(layer, (256, 256), mode="bilinear") / 2**place for place, layer in enumerate(layers)]
    return (torch.stack(clouds).sum(0) * 0.4).clamp(-1, 1).expand(-1, 3, -1, -1)


@pytest.mark.parametrize(
    "latent",
    [
        torch.zeros(1, 4, 32, 32),
        torch.randn(1, 12, 32, 32) * 5,
        torch.randn(1, 4, 31, 32) * 20,
        torch.full((1, 4, 32, 32), float("nan")),
        torch.zeros(1, 4, 0, 32),
    ],
    ids=["flat", "other channels", "small", "nan", "empty"],
)
def test_what_says_nothing_is_none(latent: torch.Tensor) -> None:
    assert recognise(latent) is None


@pytest.mark.parametrize("channels", [4, 16])
def test_noise_is_of_no_family(channels: int) -> None:
    """At any scale: a KSampler that was stopped early, an empty latent with noise."""
    generator, sides = torch.Generator().manual_seed(0), [32] * 60 + [64] * 20
    verdicts = [recognise(torch.randn(1, channels, side, side, generator=generator) * 7) for side in sides]
    assert verdicts == [None] * 80


def test_a_batch_must_agree_and_the_scale_does_not_count() -> None:
    sd15, sdxl = (mixed(deviations, correlations) for deviations, correlations in (SD15, SDXL))
    assert (recognise(sd15), recognise(sdxl), recognise(sdxl * 0.13)) == ("sd15", "sdxl", "sdxl")
    assert recognise(torch.cat([sd15, sd15 * 2])) == "sd15"
    assert recognise(torch.cat([sd15, sdxl])) is None


def test_larger_latents_need_less_of_a_score() -> None:
    """Noise alone gives small latents a score; a large latent with as much is no noise."""
    blurred = mixed(*SD15) + 0.75 * torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * 4
    assert recognise(blurred) is None and recognise(blurred.repeat(1, 1, 3, 3)) == "sd15"


# Standard deviations of the differences between neighbours, and their correlations: means over photographs.
SD15 = ((4.7, 4.4, 3.8, 3.7), (0.15, 0.06, 0.50, -0.25, 0.07, 0.35))
SDXL = ((5.4, 6.6, 8.0, 6.0), (0.45, 0.06, 0.34, -0.16, 0.25, 0.17))


def mixed(deviations: tuple[float, ...], correlations: tuple[float, ...]) -> torch.Tensor:
    """Smooth noise (1,4,32,32) whose channels change together as a family's do."""
    matrix, pairs = torch.eye(4), torch.triu_indices(4, 4, offset=1)
    matrix[pairs[0], pairs[1]] = matrix[pairs[1], pairs[0]] = torch.tensor(correlations)
    clouds = F.avg_pool2d(torch.randn(1, 4, 34, 34, generator=torch.Generator().manual_seed(0)), 3, stride=1)
    together = torch.einsum("ij,bjhw->bihw", torch.linalg.cholesky(matrix), clouds)
    return together * torch.tensor(deviations).reshape(1, 4, 1, 1)
