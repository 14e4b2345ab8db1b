"""Pictures in terminals: which terminals get them, and what their bytes say."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from fmboost_core.cli import app
from fmboost_core.cli.terminal import KITTY, LARGEST, SIXEL, as_kitty, as_sixels, graphics_of, show

pty = pytest.importorskip("pty", reason="only systems with pseudo-terminals")

PHOTO = Image.fromarray(data.astronaut())


def kitty_image(text: str) -> Image.Image:
    """The image that a kitty terminal would show of a text."""
    commands = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    keys = [dict(pair.split("=") for pair in keys.split(",")) for keys, _ in commands]
    assert keys[0] == {"a": "T", "f": "100", "q": "2", "m": keys[0]["m"]}
    assert [key["m"] for key in keys] == ["1"] * (len(keys) - 1) + ["0"]
    assert all(set(key) == {"m"} for key in keys[1:])
    assert all(len(chunk) <= 4096 for _, chunk in commands) and all(len(chunk) % 4 == 0 for _, chunk in commands[:-1])
    return Image.open(io.BytesIO(base64.b64decode("".join(chunk for _, chunk in commands), validate=True)))


def sixel_image(text: str) -> NDArray[np.float64]:
    """The pixels (H,W,3), 0 to 255, that a terminal would show of a sixel sequence; NaN where it draws nothing."""
    body = re.fullmatch(r'\x1bP[\d;]*q"(\d+;\d+;\d+;\d+)([^\x1b]*)\x1b\\', text)
    assert body is not None
    across, down, width, height = map(int, body[1].split(";"))
    assert (across, down) == (1, 1)
    pixels, palette = np.full((height + 6, width, 3), np.nan), {}
    x = top = colour = 0
    tokens = re.findall(r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)([?-~])|([?-~])|([$-])", body[2])
    for register, red, green, blue, count, run, single, move in tokens:
        if register:
            colour = int(register)
            if red:
                palette[colour] = np.array([int(red), int(green), int(blue)]) * 2.55
        elif move:
            x, top = 0, top + (6 if move == "-" else 0)
        else:
            bits, end = ord(run or single) - 63, x + int(count or 1)
            for row in range(6):
                if bits >> row & 1:
                    assert np.isnan(pixels[top + row, x:end]).all(), "a pixel is drawn twice"
                    pixels[top + row, x:end] = palette[colour]
            x = end
    assert np.isnan(pixels[height:]).all(), "it draws below its end"
    return pixels[:height]


# --- the protocols


def test_a_kitty_terminal_shows_the_very_pixels() -> None:
    image = PHOTO.resize((300, 200))
    shown = kitty_image(as_kitty(image))
    assert shown.mode == "RGB" and np.array_equal(np.asarray(shown), np.asarray(image))


def test_a_small_picture_is_one_chunk() -> None:
    text = as_kitty(Image.new("RGB", (2, 2), "red"))
    assert text.count("\x1b_G") == 1 and kitty_image(text).getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1), (7, 6), (5, 100)])
def test_sixels_show_the_picture(size: tuple[int, int]) -> None:
    """Every pixel is drawn once, in a colour near its own."""
    image = PHOTO.resize(size)
    shown = sixel_image(as_sixels(image))
    assert shown.shape == (size[1], size[0], 3) and np.isfinite(shown).all()
    assert np.abs(shown - np.asarray(image, float)).mean() < 12


def test_sixels_of_few_colours_are_exact_to_a_percent() -> None:
    values = np.zeros((13, 31, 3), np.uint8)
    values[3:, 4:20], values[:5, 20:], values[12, :] = (255, 0, 0), (0, 102, 255), (255, 255, 255)
    shown = sixel_image(as_sixels(Image.fromarray(values)))
    assert np.abs(shown - values).max() <= 2.6


def test_runs_make_sixels_short() -> None:
    assert len(as_sixels(Image.new("RGB", (400, 400), "red"))) < 1000


@pytest.mark.parametrize("graphics, size", [(KITTY, (800, 500)), (SIXEL, (800, 500)), (SIXEL, (200, 900))])
def test_a_large_picture_is_reduced_in_its_aspect(graphics: str, size: tuple[int, int]) -> None:
    stream = io.StringIO()
    image = PHOTO.resize(size)
    show(image, stream, graphics)
    text = stream.getvalue()
    assert text.endswith("\x1b\\\n") and image.size == size
    width, height = kitty_image(text[:-1]).size if graphics == KITTY else sixel_image(text[:-1]).shape[1::-1]
    assert max(width, height) == LARGEST and abs(width / height - size[0] / size[1]) < 0.02


# --- terminals


class Terminal:
    """A pseudo-terminal. stream: what a program in it writes to."""

    def __init__(self) -> None:
        self._reader, writer = pty.openpty()
        self.stream, self._got = os.fdopen(writer, "w"), b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()  # a terminal that nobody reads stops its program after a few kilobytes

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux's end of a terminal
            while chunk := os.read(self._reader, 65536):
                self._got += chunk

    def close(self) -> str:
        """What the terminal has got, now that its program has ended."""
        self.stream.close()
        self._thread.join(30)
        assert not self._thread.is_alive()
        os.close(self._reader)
        return self._got.decode().replace("\r\n", "\n")


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    terminal = Terminal()
    yield terminal.stream
    terminal.close()


@pytest.mark.parametrize(
    "environ, graphics",
    [
        ({"TERM": "xterm-kitty"}, KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, KITTY),
        ({"TERM": "xterm-ghostty"}, KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, KITTY),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "220401"}, KITTY),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "211203"}, None),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "new"}, None),
        ({"TERM": "foot"}, SIXEL),
        ({"TERM": "foot-extra"}, SIXEL),
        ({"TERM": "mlterm"}, SIXEL),
        ({"TERM": "contour-latest"}, SIXEL),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "mintty"}, SIXEL),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, SIXEL),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "linux"}, None),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "default,1,0"}, None),
        ({"TERM": "screen.xterm", "TERM_PROGRAM": "WezTerm"}, None),
        ({"TERM": "foot", "STY": "1.pts-0"}, None),
        ({}, None),
    ],
)
def test_terminals_are_known_by_their_names(terminal, environ, graphics) -> None:
    assert graphics_of(terminal, environ) == graphics
    assert graphics_of(terminal, environ, asked=True) == (graphics or SIXEL)
    assert graphics_of(terminal, environ, asked=False) is None
    assert graphics_of(io.StringIO(), environ) is graphics_of(io.StringIO(), environ, asked=True) is None
    assert graphics_of(None, environ, asked=True) is None


# --- the command


@pytest.fixture
def run(places: list[str], tmp_path: Path, monkeypatch):
    """Run `upscale` in a terminal of a kind, or with another stdout; returns what the terminal gets."""
    for name in ("TMUX", "STY", "KITTY_WINDOW_ID", "TERM_PROGRAM", "KONSOLE_VERSION"):
        monkeypatch.delenv(name, raising=False)

    def run(term: str, *words: str, source: str = "a.png", output: str = "large.png", to: object = None) -> str:
        monkeypatch.setenv("TERM", term)
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", to or terminal.stream)
            tools = ["--model", places[0], "--codec", places[-1], "--device", "cpu"]
            code = app.main(["upscale", str(tmp_path / "photos" / source), str(tmp_path / output), *tools, *words])
        got = terminal.close()
        assert code == 0
        return got

    return run


def test_a_kitty_terminal_gets_the_result(run, tmp_path) -> None:
    text = run("xterm-kitty")
    assert "large.png  128x160  " in text
    with Image.open(tmp_path / "large.png") as written:
        assert np.array_equal(np.asarray(kitty_image(text)), np.asarray(written))


def test_a_sixel_terminal_gets_the_result(run, tmp_path) -> None:
    (sequence,) = re.findall(r"\x1bP[^\x1b]*\x1b\\", run("foot"))
    with Image.open(tmp_path / "large.png") as written:
        assert np.abs(sixel_image(sequence) - np.asarray(written, float)).mean() < 25


def test_others_get_none(run) -> None:
    assert "\x1b" not in run("xterm-256color")
    assert "\x1b" not in run("xterm-kitty", "--no-preview")


def test_no_terminal_gets_none(run) -> None:
    pipe = io.StringIO()
    assert run("xterm-kitty", "--preview", to=pipe) == ""
    assert "large.png" in pipe.getvalue() and "\x1b" not in pipe.getvalue()


def test_a_terminal_without_a_name_gets_sixels_if_asked(run) -> None:
    assert len(re.findall(r"\x1bP[^\x1b]*\x1b\\", run("xterm-256color", "--preview"))) == 1


def test_pictures_of_a_folder_are_shown_if_asked(run) -> None:
    assert "\x1b" not in run("xterm-kitty", source="", output="large")
    assert run("xterm-kitty", "--preview", source="", output="again").count("a=T") == 3


def test_a_preview_changes_nothing_of_the_file_and_the_record(run, tmp_path) -> None:
    run("xterm-kitty", source="", output="large")
    text = run("xterm-kitty", "--preview", "--skip-existing", source="", output="large")
    assert "nothing to do, 3 already there" in text
