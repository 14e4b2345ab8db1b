"""Tiles: they cover everything once, and with the full overlap they change nothing."""

from itertools import product

import pytest
import torch
from networks import make_model, randomised

from fmboost_core.codecs.tiny import TinyVAE, taesd
from fmboost_core.errors import ConfigError
from fmboost_core.networks.config import PRESETS, UNetConfig
from fmboost_core.sampling.tiling import (
    SMALLEST_TILE,
    Tiling,
    choose_tiling,
    in_smaller_tiles,
    parse_tile,
    tiled_velocity,
)
from fmboost_core.sampling.upscaler import boost
from fmboost_core.tiles import map_tiles, parse_tileable, spans

LENGTHS = [*product((1, 7, 16, 33, 128, 512), (1, 4, 16, 100), (0, 4, 20, 64), (1, 4), (False, True))]
IN_USE = [(300, 256, 36, 8, False), (683, 512, 96, 8, False), (375, 192, 32, 4, False)]


def test_spans_keep_each_position_once_and_see_the_overlap() -> None:
    for length, tile, overlap, stride, tileable in LENGTHS + IN_USE:
        cut = spans(length, tile, overlap, stride=stride, tileable=tileable)
        least, most = (-overlap, length + overlap) if tileable else (0, length)
        assert [i for s in cut for i in range(s.first, s.last)] == list(range(length))
        assert all(s.first < s.last for s in cut)
        for s in cut:
            assert s.start % stride == 0 and s.stop - s.start <= max(tile, 2 * stride) + stride - 1 + 2 * overlap
            assert least <= s.start <= max(least, s.first - overlap) and min(most, s.last + overlap) <= s.stop <= most
        sides = [s.stop - s.start for s in cut]
        assert len(set(sides[:-1])) <= 1 and sides[0] - stride < sides[-1] <= sides[0]


def test_tiles_are_as_few_and_as_small_as_they_can_be() -> None:
    assert {s.stop - s.start for s in spans(512, 192, 32, stride=4)} == {216}  # cut from one end: 224, 256 and 160
    assert [len(spans(length, 512, 96, stride=8)) for length in (512, 704, 705, 1216, 1217)] == [1, 1, 2, 2, 3]
    assert len(spans(80, 8, 32, stride=4)) == 2 and len(spans(80, 16, 32, stride=4)) == 1
    assert len(spans(80, 8, 32, stride=8)) == 2, "three of them would be no smaller"


@pytest.mark.parametrize("tileable", ["off", "x", "both"])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 42)])
def test_as_many_tiles_are_evaluated_as_are_counted(size: tuple[int, int], tileable: str) -> None:
    tiling, told = Tiling(4, 4, 4, parse_tileable(tileable)), []
    x = torch.zeros(1, 1, *size)
    conditioning = make_model().conditioning(x)
    tiled_velocity(lambda x, t, conditioning: x, x, 0, conditioning, tiling, lambda: told.append(1))
    assert len(told) == tiling.count(*size) and (len(told) == 1) == (size == (1, 1))


def test_map_tiles_of_a_blur_with_its_radius_is_the_blur() -> None:
    kernel = torch.rand(1, 1, 5, 5)
    x = torch.rand(2, 1, 31, 18)

    def blur(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, kernel, padding=2)

    assert torch.allclose(map_tiles(blur, (x,), 8, 2), blur(x), atol=1e-6)
    assert not torch.allclose(map_tiles(blur, (x,), 8, 1), blur(x), atol=1e-3)


def test_tiled_velocity_with_the_full_overlap_equals_the_whole() -> None:
    """On a strip that is longer than two overlaps of lite's own depth, so that several tiles are real."""
    size = (9, 331)
    config = UNetConfig(
        base=8, multipliers=(1, 2, 4), res_blocks=2, norm="channel", attention_rates=(), middle_attention=False
    )
    assert config.is_exact_in_tiles
    model = make_model(config)
    overlap = config.receptive_radius
    assert 2 * overlap < size[1]
    latent = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(1))
    common = {"model": model, "codec": _Unused(), "scale": 1, "nfe": 2, "upsample": "nearest"}
    whole = boost(latent, tile=None, **common)
    tiled = boost(latent, tile=64, overlap=overlap, **common)
    assert (tiled - whole).abs().max() < 1e-4
    assert (boost(latent, tile=64, overlap=0, **common) - whole).abs().max() > 1e-3


class _Unused:
    channels, downscale_factor = 4, 8

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise AssertionError("decoded")


def test_the_codec_in_tiles_equals_the_whole(codec: TinyVAE) -> None:
    latents, images = torch.randn(1, 4, 19, 33), torch.rand(1, 3, 152, 264) * 2 - 1
    whole = codec.encode(images), codec.decode(latents)
    codec.tile = 8
    for part, expected in zip((codec.encode(images), codec.decode(latents)), whole, strict=True):
        assert (part - expected).abs().max() < 1e-5
    codec.radius = 0
    assert (codec.decode(latents) - whole[1]).abs().max() > 1e-4


@torch.no_grad()
def test_the_public_tiny_vae_in_tiles_equals_the_whole() -> None:
    codec = randomised(taesd(channels=4, width=8), std=0.2)
    latents, images = torch.randn(1, 4, 24, 70), torch.rand(1, 3, 192, 560) * 2 - 1
    whole = codec.encode(images), codec.decode(latents)
    codec.tile = 24
    for part, expected in zip((codec.encode(images), codec.decode(latents)), whole, strict=True):
        assert (part - expected).abs().max() < 1e-4 * expected.abs().max()
    codec.radius = 0
    assert (codec.decode(latents) - whole[1]).abs().max() > 1e-3 * whole[1].abs().max()


def test_choices() -> None:
    lite = PRESETS["lite"]
    assert choose_tiling(lite, 128, 96, "auto") == Tiling(128, 0, 4)
    assert choose_tiling(lite, 130, 96, None) == Tiling(132, 0, 4)
    assert choose_tiling(lite, 4000, 96, "auto").tile < 300
    assert choose_tiling(lite, 512, 512, 30, 5) == Tiling(32, 8, 4)
    assert choose_tiling(lite, 512, 512, 64, 10_000).overlap == lite.receptive_radius
    for bad in (0, -8, 1.5, "big", True):
        with pytest.raises(ConfigError, match="tile must be"):
            choose_tiling(lite, 64, 64, bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="overlap"):
        choose_tiling(lite, 640, 640, 64, -1)


class Full(Exception):
    """A device without memory."""


def test_smaller_tiles_until_they_fit() -> None:
    tried: list[int | str | None] = []
    freed: list[int] = []

    def run(tile: int | str | None) -> str:
        tried.append(tile)
        if not isinstance(tile, int) or tile > 50:
            raise Full
        return "done"

    assert in_smaller_tiles(run, "auto", lambda e: isinstance(e, Full), freed.append) == "done"
    assert tried == ["auto", 64, 32] and freed == [64, 32]


def test_smaller_tiles_give_up_at_the_smallest_and_leave_other_errors_alone() -> None:
    tried: list[int | str | None] = []

    def full(tile: int | str | None) -> None:
        tried.append(tile)
        raise Full

    with pytest.raises(Full):
        in_smaller_tiles(full, None, lambda e: isinstance(e, Full), lambda tile: None)
    assert tried == [None, 64, SMALLEST_TILE]
    tried.clear()
    with pytest.raises(Full):
        in_smaller_tiles(full, None, lambda e: False, lambda tile: None)
    assert tried == [None]
    tried.clear()
    with pytest.raises(Full):
        in_smaller_tiles(full, 16, lambda e: isinstance(e, Full), lambda tile: None)
    assert tried == [16], "no larger tile is tried"


@pytest.mark.parametrize(("text", "tile"), [("auto", "auto"), ("off", None), ("96", 96)])
def test_tiles_as_people_write_them(text: str, tile: int | str | None) -> None:
    assert parse_tile(text) == tile


@pytest.mark.parametrize("text", ["", "0", "-3", "1.5", "Auto", "²", "9" * 5000])
def test_tiles_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="auto, off or a whole number"):
        parse_tile(text)
