"""Matching: pairs as codecs leave them are the same; displaced, mirrored, stretched and other images are not."""

from functools import cache

import pytest
import torch
from torch import Tensor

from fmboost_core.codecs.load import load_codec
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.imaging.match import match
from fmboost_core.imaging.resample import resize


def scene(seed: int = 0, side: int = 96) -> Tensor:
    """Blobs of many sizes, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(1, 3, n, n, generator=generator) * 2 / n for n in (4, 8, 16, 32)]
    return torch.tanh(torch.stack([resize(layer, (side, side), "bicubic") for layer in layers]).sum(0))


@cache
def builtin() -> TinyVAE:
    return load_codec("builtin")


def coded(image: Tensor) -> Tensor:
    codec = builtin()
    with torch.no_grad():
        return codec.decode(codec.encode(image)).clamp(-1, 1)


def test_what_a_codec_changes_is_the_same() -> None:
    """Colours, blur, contrast and grain are no other content, and neither is half a pixel."""
    image = scene()
    grain = 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    tint = torch.tensor([0.2, -0.1, 0.0]).view(1, 3, 1, 1)
    for other in (coded(image), image * 0.7 + tint, image + grain, resize(resize(image, (48, 48)), (96, 96))):
        assert match(image, other) == match(other, image) == "same"
    wide = resize(image, (96, 192))
    assert match(resize(wide[..., 1:], (96, 96)), resize(wide[..., :-1], (96, 96))) == "same"


@pytest.mark.parametrize(("down", "right"), [(0, 2), (2, 0), (-2, 2), (3, -3), (6, 0), (0, 10)])
def test_another_crop_is_displaced(down: int, right: int) -> None:
    image, size = scene(side=128), 96
    cut = [image[..., 16 + a : 16 + a + size, 16 + b : 16 + b + size] for a, b in ((0, 0), (down, right))]
    assert match(coded(cut[0]), cut[1]) == "displaced"


def test_other_images_are_other() -> None:
    image = scene()
    for other in (image.flip(-1), image.flip(-2), image.mT, scene(seed=5), torch.zeros_like(image)):
        assert match(coded(image), other) == "other"


def test_a_zoomed_and_a_stretched_image_are_not_the_same() -> None:
    image = scene()
    assert match(coded(image), resize(image[..., 6:90, 6:90], (96, 96))) != "same"
    assert match(coded(image), resize(image[..., 6:90, :], (96, 96))) != "same"


def test_flat_and_tiny_images_tell_nothing() -> None:
    flat = torch.full((1, 3, 64, 64), 0.3)
    assert match(flat, flat + 0.01 * torch.randn(flat.shape)) == "same"
    assert match(scene(side=16), scene(seed=5, side=16)) == "same"


def test_large_images_are_compared_reduced() -> None:
    image = scene(side=640)
    assert match(image, image * 0.8) == "same" and match(image[..., :-20], image[..., 20:]) == "displaced"
