"""Tileable textures: what leaves at one end comes in at the other, in every step."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import make_model
from PIL import Image

from fmboost_core.cli import main
from fmboost_core.codecs.periodic import PeriodicCodec, periodic
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import ConfigError
from fmboost_core.imaging.resample import resize
from fmboost_core.model import Model
from fmboost_core.sampling.restore import restored
from fmboost_core.sampling.upscaler import boost, flow, upscale_image
from fmboost_core.tiles import NOT_TILEABLE, Tileable, parse_tileable, spans, window, with_margins, without_margins

BOTH = Tileable(x=True, y=True)


def texture(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Random (1,C,h,w) in [-1,1]; any tensor is a texture, if its ends are taken to meet."""
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(height)) * 2 - 1


def rolled(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    return torch.roll(x, (down, right), (-2, -1))


def rolled_noise(down: int, right: int) -> Callable[[tuple[int, ...]], torch.Tensor]:
    """The same noise at every call, rolled by so many latents."""
    return lambda shape: rolled(torch.randn(shape, generator=torch.Generator().manual_seed(1)), down, right)


def test_the_axes_have_names() -> None:
    assert parse_tileable("both") == BOTH
    assert parse_tileable("x") == Tileable(x=True) and parse_tileable("y") == Tileable(y=True)
    assert parse_tileable(None) == parse_tileable("off") == NOT_TILEABLE and not any(NOT_TILEABLE)
    with pytest.raises(ConfigError, match="tileable must be one of off, x, y, both, but it is 'z'"):
        parse_tileable("z")


def test_a_window_goes_over_the_ends_as_often_as_it_must() -> None:
    x = texture(3, 4)
    assert torch.equal(window(x, (-4, 8), (-9, 5)), x.repeat(1, 1, 5, 5)[..., 2:14, 3:17])
    assert torch.equal(without_margins(with_margins(x, (5, 0)), (5, 0)), x)
    (span,) = spans(6, 8, 4, tileable=True)
    assert (span.start, span.stop, span.first, span.last) == (-4, 10, 0, 6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(24, 10), (5, 21), (13, 7), (12, 5)])
def test_resizing_is_that_of_an_endless_texture(mode: str, size: tuple[int, int]) -> None:
    x = texture(12, 10)
    endless = resize(x.repeat(1, 1, 5, 5), (5 * size[0], 5 * size[1]), mode)
    expected = endless[..., 2 * size[0] : 3 * size[0], 2 * size[1] : 3 * size[1]]
    assert torch.allclose(resize(x, size, mode, BOTH), expected, atol=1e-5)
    one = resize(x.repeat(1, 1, 1, 5), (size[0], 5 * size[1]), mode)[..., 2 * size[1] : 3 * size[1]]
    assert torch.allclose(resize(x, size, mode, Tileable(x=True)), one, atol=1e-5)


def test_the_codec_has_no_edge(codec: TinyVAE) -> None:
    whole = PeriodicCodec(codec, BOTH)
    image, latent = texture(24, 40), texture(3, 5, 4)
    assert torch.allclose(whole.encode(rolled(image, 8, 16)), rolled(whole.encode(image), 1, 2), atol=1e-5)
    assert torch.allclose(whole.decode(rolled(latent, 1, 2)), rolled(whole.decode(latent), 8, 16), atol=1e-5)
    assert not torch.allclose(codec.decode(rolled(latent, 1, 2)), rolled(codec.decode(latent), 8, 16), atol=1e-3)
    assert periodic(codec, NOT_TILEABLE) is codec
    assert (whole.channels, whole.downscale_factor, whole.family) == (4, 8, codec.family)


def test_restoring_has_no_edge() -> None:
    large, small = texture(24, 32), texture(12, 16)
    moved = restored(rolled(large, 4, 6), rolled(small, 2, 3), tileable=BOTH)
    assert torch.allclose(moved, rolled(restored(large, small, tileable=BOTH), 4, 6), atol=1e-5)


@pytest.mark.parametrize("method", ["psu", "bilinear", "nearest"])
@pytest.mark.parametrize("options", [{}, {"tile": 4}, {"tile": None, "restore": False}, {"scale": 3}])
def test_a_rolled_image_gives_the_rolled_result(
    model: Model, codec: TinyVAE, method: str, options: dict[str, Any]
) -> None:
    """By whole strides of the network, after which its grid lies as before; scale 3 takes two stages."""
    scale = options.get("scale", 2)
    image, common = texture(64, 32), {"nfe": 2, "upsample": method, "tileable": "both", **options}
    plain = upscale_image(image, model, codec, noise=rolled_noise(0, 0), **common)
    if scale == 2:
        noise = rolled_noise(4, 2)
        moved = upscale_image(rolled(image, 16, 8), model, codec, noise=noise, **common)
        assert (moved - rolled(plain, 32, 16)).abs().max() < 1e-4
    assert plain.shape[-2:] == (64 * scale, 32 * scale)
    edged = upscale_image(image, model, codec, noise=rolled_noise(0, 0), **common | {"tileable": None})
    assert (edged - plain).abs().max() > 1e-2  # the ends do matter


@pytest.mark.parametrize(("tileable", "roll", "other"), [("x", (0, 1), (1, 0)), ("y", (1, 0), (0, 1))])
def test_one_axis_alone(
    model: Model, codec: TinyVAE, tileable: str, roll: tuple[int, int], other: tuple[int, int]
) -> None:
    latent = texture(8, 6, 4)

    def difference(down: int, right: int) -> float:
        common = {"nfe": 1, "tileable": tileable}
        plain = boost(latent, model, codec, noise=rolled_noise(0, 0), **common)
        moved = boost(rolled(latent, down, right), model, codec, noise=rolled_noise(2 * down, 2 * right), **common)
        return float((moved - rolled(plain, 2 * down, 2 * right)).abs().max())

    assert difference(*roll) < 1e-4 and difference(*other) > 1e-3


def test_the_flow_alone(model: Model) -> None:
    start, guide = texture(8, 12, 4), texture(8, 12, 4).flip(-1)
    plain = flow(start, guide, model, nfe=2, tileable="both")
    moved = flow(rolled(start, 2, 4), rolled(guide, 2, 4), model, nfe=2, tileable="both")
    assert torch.allclose(moved, rolled(plain, 2, 4), atol=1e-5)


@pytest.mark.parametrize("size", [(50, 37), (9, 65), (1, 1)])
def test_any_size_is_exact_and_has_no_seam(model: Model, codec: TinyVAE, size: tuple[int, int]) -> None:
    """A period that is no multiple of 8 pixels is worked on at the next one."""
    large = upscale_image(texture(*size), model, codec, scale=2, nfe=1, tileable="both")
    assert large.shape[-2:] == (2 * size[0], 2 * size[1]) and torch.isfinite(large).all()


def test_a_target_that_would_cut_the_texture_is_refused(codec: TinyVAE) -> None:
    model, image = make_model(), texture(32, 32)
    with pytest.raises(ConfigError, match=r"cannot be cropped, but 80x64 has another aspect than 32x32; give a scale"):
        upscale_image(image, model, codec, size=(80, 64), tileable="y")
    assert upscale_image(image, model, codec, size=(80, 64), nfe=1, tileable="x").shape[-2:] == (64, 80)
    assert upscale_image(image, model, codec, size=(80, 64), nfe=1, tileable="y", stretch=True).shape[-1] == 80


def smooth_texture(side: int) -> Image.Image:
    """A periodic sum of waves, whose steps across the ends are those within."""
    place = np.arange(side) * 2 * math.pi / side
    waves = [np.sin(k * place[:, None] + m * place[None] + k * m) for k, m in ((3, 5), (7, -4), (-9, 2), (6, 11))]
    grey = np.stack([waves[0] + waves[1], waves[1] + waves[2], waves[2] + waves[3]], -1)
    return Image.fromarray((127.5 + 60 * grey).clip(0, 255).astype(np.uint8))


def steps(path: Path) -> list[tuple[float, float]]:
    """For x and y: the mean step across the seam, and that at the other places where two latents meet."""
    pixels = np.asarray(Image.open(path), dtype=np.float64)
    found = []
    for axis in (1, 0):
        step = np.abs(pixels - np.roll(pixels, 1, axis)).mean(axis=(1 - axis, 2))
        found.append((float(step[0]), float(step[8::8].mean())))
    return found


def test_the_program_keeps_a_texture_seamless(tmp_path: Path) -> None:
    smooth_texture(96).save(tmp_path / "in.png")
    common = ["upscale", "--upscale-model", "none", str(tmp_path / "in.png")]
    assert main([*common, str(tmp_path / "edged.png")]) == 0
    assert main([*common, str(tmp_path / "out.png"), "--tileable", "both"]) == 0
    assert main([*common, str(tmp_path / "behind.png"), "--tileable", "both", "--upscale-model", "builtin"]) == 0
    assert all(seam > 1.2 * within for seam, within in steps(tmp_path / "edged.png"))
    for name in ("out", "behind"):
        assert all(seam < 1.1 * within for seam, within in steps(tmp_path / f"{name}.png")), name


def test_transparency_has_no_seam_either(tmp_path: Path, places: list[str]) -> None:
    alpha = smooth_texture(32).getchannel("G")
    image = smooth_texture(32)
    image.putalpha(alpha)
    image.save(tmp_path / "in.png")
    args = ["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--model", places[0], "--codec", places[4]]
    assert main([*args, "--tileable", "both"]) == 0
    found = np.asarray(Image.open(tmp_path / "out.png").getchannel("A"), dtype=np.float64)
    given = torch.from_numpy(np.asarray(alpha, dtype=np.float32))[None, None]
    expected = resize(given, (64, 64), tileable=BOTH)[0, 0].numpy()
    assert np.abs(found - expected).max() <= 1
