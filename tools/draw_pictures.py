"""Draw pictures of shapes, lines and text for a training: draw_pictures.py FOLDER [--count 48]

Photographs hold few drawings and little text. Each picture is drawn three times as large and reduced, so that its edges
are clean. The same number gives the same picture. Needs matplotlib, whose fonts it takes.
"""

from __future__ import annotations

import argparse
import colorsys
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE, OVERSAMPLED = 768, 3
TEXT = (
    "the of light window river stone open market north garden paper 1987 42 quiet HOTEL CAFE Exit No.7 harbour music "
    "Sale 50% winter road blue Central Station line graph total sum data method result volume figure edition press"
)

Colour = tuple[int, int, int]
Point = tuple[float, float]


def palette(chance: random.Random) -> list[Colour]:
    """Six colours of neighbouring hues."""
    first = chance.random()
    colours = []
    for step in (0, 1, 1, 2, 3, 0.5):
        hue = (first + step * chance.uniform(0, 0.3)) % 1
        colour = colorsys.hsv_to_rgb(hue, chance.uniform(0.05, 0.9), chance.uniform(0.15, 1))
        colours.append((int(255 * colour[0]), int(255 * colour[1]), int(255 * colour[2])))
    return colours


def outline(chance: random.Random, centre: Point, radius: float) -> list[Point]:
    """A closed smooth curve around the centre: a Catmull-Rom spline through random corners."""
    count = chance.randrange(4, 10)
    corners = [
        tuple(
            c + radius * chance.uniform(0.4, 1) * f(2 * math.pi * i / count)
            for c, f in zip(centre, (math.cos, math.sin), strict=True)
        )
        for i in range(count)
    ]
    curve = []
    for i in range(count):
        before, here, after, beyond = (corners[(i + k - 1) % count] for k in range(4))
        for t in (k / 12 for k in range(12)):
            x, y = (
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                for a, b, c, d in zip(before, here, after, beyond, strict=True)
            )
            curve.append((x, y))
    return curve


def shapes(chance: random.Random) -> Image.Image:
    """Filled and outlined shapes under strokes and hatching."""
    colours, side = palette(chance), SIDE * OVERSAMPLED
    image = Image.new("RGB", (side, side), colours[0])
    draw = ImageDraw.Draw(image)
    ink = chance.choice([(20, 15, 20), (40, 25, 20), (250, 245, 240), colours[5]])
    for _ in range(chance.randrange(15, 60)):
        centre = chance.uniform(0, side), chance.uniform(0, side)
        curve = outline(chance, centre, chance.uniform(20, 260) * OVERSAMPLED)
        if chance.random() < 0.75:
            draw.polygon(curve, fill=chance.choice(colours))
        if chance.random() < 0.8:
            draw.line(curve + curve[:1], ink, int(chance.choice([1, 1.5, 2, 3, 5]) * OVERSAMPLED), joint="curve")
    for _ in range(chance.randrange(10, 50)):
        _stroke(chance, draw, ink)
    return image


def _stroke(chance: random.Random, draw: ImageDraw.ImageDraw, ink: Colour) -> None:
    """A bent line; beside some, a row of parallel ones."""
    side = SIDE * OVERSAMPLED
    x, y, angle, bend = (
        chance.uniform(0, side),
        chance.uniform(0, side),
        chance.uniform(0, 2 * math.pi),
        chance.uniform(-1, 1),
    )
    length, width = chance.uniform(20, 200) * OVERSAMPLED, int(chance.choice([1, 1, 1.5, 2, 4]) * OVERSAMPLED)
    places = [k / 20 for k in range(21)]
    line = [(x + length * t * math.cos(angle + bend * t), y + length * t * math.sin(angle + bend * t)) for t in places]
    draw.line(line, ink, width, joint="curve")
    if chance.random() < 0.3:
        for left in (x + 6 * OVERSAMPLED * k for k in range(12)):
            end = left + 40 * OVERSAMPLED * math.cos(angle), y + 40 * OVERSAMPLED * math.sin(angle)
            draw.line([(left, y), end], ink, OVERSAMPLED)


def text(chance: random.Random) -> Image.Image:
    """Lines of text in many sizes and fonts, and a few boxes."""
    colours, side = palette(chance), SIDE * OVERSAMPLED
    paper = chance.choice([(255, 255, 255), (250, 248, 240), colours[0], (20, 20, 25)])
    ink = (15, 15, 15) if sum(paper) > 380 else (240, 240, 240)
    image = Image.new("RGB", (side, side), paper)
    draw, fonts, words = ImageDraw.Draw(image), _fonts(), TEXT.split()
    y = chance.uniform(0, 20) * OVERSAMPLED
    while y < side:
        size = chance.choice([11, 13, 15, 18, 24, 32, 48, 80, 120]) * OVERSAMPLED
        font = ImageFont.truetype(chance.choice(fonts), size)
        line = " ".join(chance.choice(words) for _ in range(30))
        place = chance.uniform(-20, 40) * OVERSAMPLED, y
        draw.text(place, line, font=font, fill=chance.choice([ink, ink, colours[3], colours[4]]))
        y += size * chance.uniform(1.1, 1.6)
        if chance.random() < 0.15:
            left, right, height = (chance.uniform(*ends) * OVERSAMPLED for ends in ((0, 300), (400, 760), (20, 100)))
            draw.rectangle((left, y, right, y + height), colours[2], ink, 2 * OVERSAMPLED)
            y += height + 5 * OVERSAMPLED
    return image


def _fonts() -> list[str]:
    """Matplotlib's DejaVu fonts."""
    from matplotlib import get_data_path

    return sorted(map(str, Path(get_data_path(), "fonts/ttf").glob("DejaVu*.ttf")))


def picture(number: int) -> Image.Image:
    """The picture of this number, 768 pixels a side: each third is text; some are soft."""
    chance = random.Random(number)
    image = (text if number % 3 == 2 else shapes)(chance)
    if chance.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(chance.uniform(0.5, 1.5) * OVERSAMPLED))
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=48)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for number in range(args.count):
        picture(number).save(args.folder / f"drawing-{number:03d}.png")


if __name__ == "__main__":
    main()
