"""The side-by-side picture: what it shows, and that it holds its sizes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont
from skimage import data

from fmboost_core.errors import ConfigError
from fmboost_core.imaging.compare import ROW_WIDTH, ZOOM, Panel, busiest_corner, side_by_side


def panels(width: int, height: int, colours=((200, 0, 0), (0, 200, 0), (0, 0, 200))) -> list[Panel]:
    return [Panel(Image.new("RGB", (width, height), c), f"Title {i}", "a caption") for i, c in enumerate(colours)]


@pytest.mark.parametrize("size", [(2600, 1900), (3000, 300), (300, 3000), (640, 480), (40, 30), (1, 1), (5, 700)])
def test_any_shape_gives_a_row_that_fits(size):
    assert side_by_side(panels(*size)).width <= ROW_WIDTH


def test_the_panels_stand_in_order_with_even_margins():
    array = np.asarray(side_by_side(panels(300, 200))).astype(int)
    background = array[0, 0]
    assert len(set(background)) == 1  # neutral
    seen = np.abs(array - background).max(axis=2) > 60
    rows, columns = np.flatnonzero(seen[150:].any(1)) + 150, np.flatnonzero(seen[150:].any(0))
    assert array.shape[0] - 1 - rows[-1] == pytest.approx(columns[0], abs=2)
    assert array.shape[1] - 1 - columns[-1] == pytest.approx(columns[0], abs=2)
    middle = array[200]
    assert [int(np.flatnonzero(middle[:, c] > 180)[0]) for c in range(3)] == sorted(
        int(np.flatnonzero(middle[:, c] > 180)[0]) for c in range(3)
    )


def test_the_detail_is_an_exact_enlargement():
    image = Image.fromarray(data.astronaut()[:300, :300])
    result = np.asarray(side_by_side([Panel(image, "a", "b"), Panel(image, "c", "d")]))
    left, top = busiest_corner(image, (100, 75))
    crop = np.asarray(image)[top : top + 75, left : left + 100].repeat(ZOOM, 0).repeat(ZOOM, 1)
    height = crop.shape[0]
    assert any(np.array_equal(result[y : y + height, 40:340], crop) for y in range(300, result.shape[0] - height))


def test_the_crop_is_where_the_detail_is():
    image = Image.new("L", (400, 300), 128)
    noise = np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)
    image.paste(Image.fromarray(noise), (300, 200))
    left, top = busiest_corner(image, (80, 60))
    assert 240 <= left <= 340 and 160 <= top <= 240


def test_different_sizes_are_refused():
    with pytest.raises(ConfigError, match="one size"):
        side_by_side([*panels(30, 20), *panels(40, 20)])


def test_old_pillow_without_a_scalable_default_font(monkeypatch):
    only = ImageFont.load_default()

    def of_pillow_9_5(*args):
        if args:
            raise TypeError("load_default() takes 0 positional arguments")
        return only

    def missing(*args, **kwargs):
        raise OSError("cannot open resource")

    monkeypatch.setattr(ImageFont, "load_default", of_pillow_9_5)
    monkeypatch.setattr(ImageFont, "truetype", missing)
    assert side_by_side(panels(300, 200)).width > 900
