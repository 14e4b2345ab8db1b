"""Pictures in a terminal, by kitty's graphics protocol or as sixels.

The terminal is never asked what it can: a question without an answer would block, or leave bytes for the shell. Its
name in the environment tells.

    https://sw.kovidgoyal.net/kitty/graphics-protocol/
    https://vt100.net/docs/vt3xx-gp/chapter14.html
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KITTY, SIXEL = "kitty", "sixel"
LARGEST = 400  # pixels a side
_CHUNK = 4096  # characters of base64 in one escape sequence of kitty's protocol
_COLOURS = 128  # well below the 256 registers that terminals have; fewer make shorter texts

# Values of TERM (its beginning) and TERM_PROGRAM.
_TERMS = {
    "xterm-kitty": KITTY, "xterm-ghostty": KITTY,
    "foot": SIXEL, "mlterm": SIXEL, "contour": SIXEL, "yaft": SIXEL,
}  # fmt: skip
_PROGRAMS = {"ghostty": KITTY, "WezTerm": KITTY, "mintty": SIXEL, "iTerm.app": SIXEL, "rio": SIXEL}


def graphics_of(stream: TextIO, environ: Mapping[str, str], asked: bool | None = None) -> str | None:
    """How pictures can be shown on a stream: `KITTY`, `SIXEL` or None.

    asked: True sends sixels to a terminal that is not known to show pictures; False shows none.
    """
    if asked is False or stream is None or not stream.isatty():
        return None
    known = _known(environ)
    return SIXEL if known is None and asked else known


def _known(environ: Mapping[str, str]) -> str | None:
    term = environ.get("TERM", "")
    # Multiplexers pass neither protocol on by themselves; inside of them the outer terminal's variables stay set.
    if environ.get("TMUX") or environ.get("STY") or term.startswith(("tmux", "screen", "dumb")):
        return None
    if environ.get("KITTY_WINDOW_ID"):
        return KITTY
    by_term = next((protocol for name, protocol in _TERMS.items() if term.startswith(name)), None)
    konsole = environ.get("KONSOLE_VERSION", "")
    if konsole.isdecimal() and int(konsole) >= 220400:  # 22.04, its first version with pictures
        return KITTY
    return by_term or _PROGRAMS.get(environ.get("TERM_PROGRAM", ""))


def show(image: Image.Image, stream: TextIO, graphics: str) -> None:
    """Write an RGB image to a terminal, reduced to at most `LARGEST` pixels a side, and a line break behind it."""
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST))
    stream.write((as_kitty(small) if graphics == KITTY else as_sixels(small)) + "\n")
    stream.flush()


def as_kitty(image: Image.Image) -> str:
    """An image as sequences of kitty's protocol: a PNG as base64, in chunks. q=2: the terminal does not answer."""
    file = io.BytesIO()
    image.save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    return "".join(
        f"\x1b_G{'a=T,f=100,q=2,' if number == 0 else ''}m={int(number < len(chunks) - 1)};{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    )


def as_sixels(image: Image.Image) -> str:
    """An RGB image as a sixel sequence, in at most `_COLOURS` colours. Colours are percentages there."""
    reduced = image.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    indices: NDArray[np.uint8] = np.asarray(reduced)
    palette = np.asarray(reduced.getpalette(), dtype=np.float64).reshape(-1, 3) * 100 / 255
    registers = "".join(
        f"#{colour};2;{';'.join(str(round(part)) for part in palette[colour])}" for colour in np.unique(indices)
    )
    height, width = indices.shape
    bands = "-".join("$".join(_band(indices[top : top + 6])) for top in range(0, height, 6))
    return f'\x1bP0;1q"1;1;{width};{height}{registers}{bands}\x1b\\'


def _band(rows: NDArray[np.uint8]) -> Iterator[str]:
    """A band of up to six rows: for each of its colours, the register and a character for each column.

    A character is 63 and a bit for each row in which the column has the colour; runs of one are shortened.
    """
    bits = 1 << np.arange(len(rows), dtype=np.uint8)[:, None]
    for colour in np.unique(rows):
        columns = (np.where(rows == colour, bits, 0).sum(axis=0) + 63).astype(np.uint8).tobytes().decode("ascii")
        yield f"#{colour}" + re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", columns.rstrip("?"))
