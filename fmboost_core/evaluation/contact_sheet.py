"""Contact sheets: crops side by side, pixel for pixel, under their titles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..errors import ConfigError
from ..imaging.compare import Panel, font_for
from ..imaging.write import save_image

_GAP, _TEXT = 8, 14  # pixels


def contact_sheet(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    """Write rows of images, each below its title and caption where it has them.

    Rows may have different lengths. A row without titles leaves no room for them.
    """
    if not any(rows):
        raise ConfigError("A contact sheet needs at least one image.")
    columns = max(map(len, rows))
    widths = [max(row[c].image.width for row in rows if c < len(row)) for c in range(columns)]
    labels = [max(_label_height(panel) for panel in row) if row else 0 for row in rows]
    heights = [label + max((p.image.height for p in row), default=0) for row, label in zip(rows, labels, strict=True)]
    sheet = Image.new("RGB", (sum(widths) + _GAP * (columns + 1), sum(heights) + _GAP * (len(rows) + 1)), "white")
    draw, top = ImageDraw.Draw(sheet), _GAP
    for row, label, height in zip(rows, labels, heights, strict=True):
        left = _GAP
        for panel, width in zip(row, widths, strict=False):
            _draw_label(draw, panel, (left, top), width)
            sheet.paste(panel.image, (left, top + label))
            left += width + _GAP
        top += height + _GAP
    save_image(path, sheet, quality=92)  # for JPEG; PNG has none


def _label_height(panel: Panel) -> int:
    return sum(_TEXT + 6 for text in (panel.title, panel.caption) if text)


def _draw_label(draw: ImageDraw.ImageDraw, panel: Panel, place: tuple[int, int], width: int) -> None:
    left, top = place
    for text, colour in ((panel.title, "black"), (panel.caption, "#555555")):
        if text:
            font = font_for([text], _TEXT, width)
            while font.getlength(text) > width and len(text) > 4:
                text = text.rstrip(".")[:-1] + "..."
            draw.text((left, top), text, colour, font)
            top += _TEXT + 6
