"""Upsampling to the guide."""

import warnings

import pytest
import torch

from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import FMBoostWarning, ImageError
from fmboost_core.imaging.resample import cover, pad_to, resize
from fmboost_core.sampling.guide import image_guide, latent_size, pixel_upsample
from fmboost_core.sampling.restore import restored


def test_resize_keeps_means_and_ramps() -> None:
    ramp = torch.linspace(-1, 1, 16).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    for size in ((32, 32), (8, 8), (16, 40)):
        out = resize(ramp, size)
        assert out.shape[-2:] == size and abs(out.mean()) < 1e-6
        assert (out.diff(dim=-1) >= -1e-6).all()
    assert resize(ramp, (16, 16)) is ramp


def test_reduction_is_antialiased() -> None:
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)[None, None]
    assert resize(checks, (11, 11)).abs().max() < 0.2


def test_cover_cuts_the_middle() -> None:
    x = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 4, 8)
    assert torch.equal(cover(x, (4, 4)), x[..., 2:6])
    assert torch.equal(cover(x, (4, 8)), x)
    assert cover(x, (9, 5)).shape[-2:] == (9, 5)


def test_padding_repeats_the_edge() -> None:
    x = torch.rand(1, 3, 5, 8)
    padded = pad_to(x, 8)
    assert padded.shape[-2:] == (8, 8) and torch.equal(padded[..., 7, :], x[..., 4, :])
    assert pad_to(padded, 8) is padded and latent_size((5, 9), 8) == (1, 2)


def test_psu_is_decode_resize_encode(codec: TinyVAE) -> None:
    latent = torch.randn(1, 4, 3, 4)
    image = codec.decode(latent).clamp(-1, 1)
    large = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear")
    assert torch.allclose(pixel_upsample(latent, codec, (48, 64)), codec.encode(large), atol=1e-5)
    assert image_guide(image, codec, (50, 61)).shape[-2:] == (7, 8)


@pytest.mark.parametrize("size", [(64, 96), (63, 97), (64, 64), (128, 96)])
def test_restoring_gives_the_small_picture_back_and_leaves_the_fine_detail(size: tuple[int, int]) -> None:
    """Also where the sides were rounded, and where the large picture is cut from a wider or higher one."""
    generator = torch.Generator().manual_seed(0)
    small = resize(torch.rand(2, 3, 4, 6, generator=generator) - 0.5, (32, 48))
    fine = 0.2 * (-1.0) ** (torch.arange(size[0])[:, None] + torch.arange(size[1]))
    truth = cover(small, size)
    large = resize(truth, size) + 0.3 + fine  # the colours are wrong
    found = restored(large, small)
    assert (found - truth - fine).abs().mean() < 0.02
    assert torch.equal(restored(large[1:], small[1:]), found[1:])
    one = restored(large, small[:1], look=False)  # one small picture for all
    assert torch.equal(one[1:], restored(large[1:], small[:1], look=False))


@pytest.mark.parametrize(
    ("small", "size"),
    [((152, 104), (200, 136)), ((96, 64), (104, 72)), ((56, 80), (76, 108)), ((41, 60), (80, 120))],
)
@pytest.mark.parametrize("crop", [False, True])
def test_rounded_sides_are_no_crop_and_a_narrow_crop_is_one(
    small: tuple[int, int], size: tuple[int, int], crop: bool
) -> None:
    """What is shown at the right border tells the two apart."""
    scene = resize(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(3)), (400, 400), "bicubic") - 0.5
    low = resize(scene, small)
    large = cover(resize(scene, (4 * small[0], 4 * small[1])), size) if crop else resize(scene, size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = restored(large, low)
    assert (found - large).abs().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_from_a_host_s_decoder_can_be_restored(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    large, small = (torch.rand(2, 3, side, side, generator=generator) * 2 - 1 for side in (32, 16))
    found = restored(large.to(dtype), small)
    assert found.dtype == dtype and (found.float() - restored(large, small)).abs().max() < 0.03
    assert restored(large[:0], small[:0]).shape == (0, 3, 32, 32)


def test_pictures_that_do_not_go_together_are_refused() -> None:
    large, small = torch.zeros(3, 3, 32, 32), torch.zeros(3, 3, 16, 16)
    with pytest.raises(ImageError, match="other way round"):
        restored(small, large)
    with pytest.raises(ImageError, match="3 large images and 2 small ones"):
        restored(large, small[:2])


def test_a_small_picture_of_something_else_is_warned_of() -> None:
    """Another one, another crop, another aspect; not where the large one was cropped at the centre."""
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(3, 3, n, n, generator=generator) * 2 / n for n in (5, 9, 17, 33)]
    large = torch.tanh(torch.stack([resize(layer, (128, 128), "bicubic") for layer in layers]).sum(0))
    small = resize(large, (64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restored(large * 0.8 + 0.1, small)
        restored(large[..., 16:112, :], small)
        restored(small * 0.5, small)
        restored(large, small[:1], look=False)
    with pytest.warns(FMBoostWarning, match="shows something else than the large one in 2 of 3 items"):
        restored(large, small[:1])
    with pytest.warns(FMBoostWarning, match="shows something else than the large one,"):
        restored(large[:1], small[:1].flip(-1))
    with pytest.warns(FMBoostWarning, match="is another crop than the large one,"):
        restored(large[:1, :, :-8, :-8], small[:1, :, 4:, 4:])
    with pytest.warns(FMBoostWarning):
        restored(large[:1], small[:1, :, :48])  # cut at the bottom, not at the centre
