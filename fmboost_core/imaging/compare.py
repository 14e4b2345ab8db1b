"""Comparison images: results side by side, each whole in a row, and below it the same detail enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..errors import ConfigError

ROW_WIDTH = 2400  # pixels, at most
ZOOM = 3

_MARGIN, _GAP, _LABEL_SPACE = 40, 24, 12
_TALLEST, _NARROWEST = 1200, 320  # of a panel
_TITLE_SIZE, _CAPTION_SIZE, _SMALLEST_TEXT = 26, 18, 11
_BACKGROUND, _TITLE_COLOUR, _CAPTION_COLOUR = (40, 40, 40), (240, 240, 240), (168, 168, 168)
_MARK = (255, 176, 32)


@dataclass(frozen=True)
class Panel:
    """One column: an RGB image, its title and its caption."""

    image: Image.Image
    title: str
    caption: str


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels of a panel, of the label above it and of the crop, and the crop's enlargement."""

    panel: tuple[int, int]
    label: int
    crop: tuple[int, int]
    zoom: int

    def left(self, column: int) -> int:
        return _MARGIN + column * (self.panel[0] + _GAP)

    @property
    def top(self) -> int:
        return _MARGIN + self.label

    @property
    def detail_top(self) -> int:
        return self.top + self.panel[1] + _GAP

    def whole(self, columns: int) -> tuple[int, int]:
        """(width, height) of the comparison."""
        return self.left(columns) - _GAP + _MARGIN, self.detail_top + self.crop[1] * self.zoom + _MARGIN


def side_by_side(panels: Sequence[Panel]) -> Image.Image:
    """The comparison as an RGB image, at most `ROW_WIDTH` wide. Raises `ConfigError` for images of several sizes."""
    sizes = {panel.image.size for panel in panels}
    if len(sizes) != 1:
        raise ConfigError(f"Only pictures of one size can be compared, but these are {sorted(sizes)}.")
    size = sizes.pop()
    layout = _lay_out(size, len(panels))
    corner = busiest_corner(panels[-1].image, layout.crop)
    result = Image.new("RGB", layout.whole(len(panels)), _BACKGROUND)
    draw = ImageDraw.Draw(result)
    _draw_labels(draw, panels, layout)
    box = (*corner, corner[0] + layout.crop[0], corner[1] + layout.crop[1])
    detail = (layout.crop[0] * layout.zoom, layout.crop[1] * layout.zoom)
    for column, panel in enumerate(panels):
        left = layout.left(column)
        result.paste(_fitted(panel.image, layout.panel), (left, layout.top))
        _draw_mark(draw, box, (left, layout.top), layout.panel[0] / size[0])
        indent = (layout.panel[0] - detail[0]) // 2
        crop = panel.image.crop(box).resize(detail, Image.Resampling.NEAREST)
        result.paste(crop, (left + indent, layout.detail_top))
    return result


def busiest_corner(image: Image.Image, crop: tuple[int, int]) -> tuple[int, int]:
    """(left, top) of the crop (width, height) with the most fine detail.

    Detail is the square root of the difference from a blurred copy: with the root, much texture outweighs one edge.
    """
    grey = torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32))[None, None]
    blurred = F.avg_pool2d(grey, 5, stride=1, padding=2, count_include_pad=False)
    detail = (grey - blurred).abs().sqrt()
    width, height = (max(1, side // 8) for side in crop)
    cells = F.avg_pool2d(
        detail, (height, width)
    )  # eighths of a crop first, because an image can have millions of pixels
    sums = F.avg_pool2d(cells, (min(8, crop[1]), min(8, crop[0])), stride=1)[0, 0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return column * width, row * height


def _lay_out(size: tuple[int, int], columns: int) -> _Layout:
    room = (ROW_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) // columns // ZOOM * ZOOM
    ratio = min(1.0, room / size[0], _TALLEST / size[1])
    enlarge = max(1, min(_NARROWEST // size[0], _TALLEST // size[1])) if ratio == 1 else 1
    panel = (max(1, round(size[0] * ratio * enlarge)), max(1, round(size[1] * ratio * enlarge)))
    zoom = ZOOM * enlarge
    crop = (max(1, panel[0] // zoom), max(1, min(size[1], round(panel[0] / zoom * 0.75))))
    label = _TITLE_SIZE + _CAPTION_SIZE + 2 * _LABEL_SPACE
    return _Layout(panel, label, crop, zoom)


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at a size: reduced by Lanczos, or enlarged by nearest neighbour, which shows the pixels."""
    enlarges = size[0] > image.width
    return image.resize(size, Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS)


def _draw_labels(draw: ImageDraw.ImageDraw, panels: Sequence[Panel], layout: _Layout) -> None:
    titles = font_for([panel.title for panel in panels], _TITLE_SIZE, layout.panel[0])
    captions = font_for([panel.caption for panel in panels], _CAPTION_SIZE, layout.panel[0])
    top = _MARGIN - 8  # letters begin a little below the position of their text
    for column, panel in enumerate(panels):
        left = layout.left(column)
        draw.text((left, top), panel.title, _TITLE_COLOUR, titles)
        draw.text((left, top + _TITLE_SIZE + _LABEL_SPACE), panel.caption, _CAPTION_COLOUR, captions)


def _draw_mark(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], origin: tuple[int, int], ratio: float
) -> None:
    """The outline of the crop on the whole image, dark around bright to be visible on any content."""
    x0, y0, x1, y1 = (round(side * ratio) + origin[i % 2] for i, side in enumerate(box))
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_MARK, width=2)
    draw.rectangle((x0 - 1, y0 - 1, x1, y1), outline=(0, 0, 0), width=1)


def font_for(texts: Sequence[str], size: int, width: int) -> Any:
    """The largest font up to `size` in which no text is wider than `width`, or the smallest legible one."""
    font = _font(size)
    while size > _SMALLEST_TEXT and max(font.getlength(text) for text in texts) > width:
        size -= 1
        font = _font(size)
    return font


def _font(size: int) -> Any:
    """The scalable font of Pillow (from 10.1, with FreeType), a common system font, or Pillow's small bitmap font."""
    with suppress(TypeError, ImportError, OSError):
        return ImageFont.load_default(size)
    for name in ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf"):
        with suppress(ImportError, OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default()
