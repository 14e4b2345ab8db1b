"""Arguments that several commands share: their types, defaults and help texts."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from ..families import IMAGE_FAMILY

DEFAULT_MODEL = f"{IMAGE_FAMILY}-x2"
AUTOMATIC, NO_UPSCALE_MODEL = "auto", "none"  # of --upscale-model
DTYPES = ("float32", "bfloat16", "float16")
SMALLEST_TILE = 16  # latents; smaller tiles are mostly overlap, so that they take ten times as long and more


# --- types: functions from the text to the value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _number(text, float)
    if not (math.isfinite(value) and value > 0):
        raise ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    value = int(_number(text, int))
    if value < 1:
        raise ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return value


def percent(text: str) -> int:
    """A whole number from 1 to 100."""
    value = int(_number(text, int))
    if not 1 <= value <= 100:
        raise ArgumentTypeError(f"must be a whole number from 1 to 100, not {text!r}")
    return value


def size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT in pixels -> (width, height)."""
    match = re.fullmatch(r"([1-9]\d{0,6})[xX]([1-9]\d{0,6})", text.strip())
    if match is None:
        raise ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, such as 1920x1080, not {text!r}")
    return int(match[1]), int(match[2])


def tile(text: str) -> int | str | None:
    """The side of a tile in latents, "auto", or None for "off"."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else None
    try:
        side = count(text)
    except ArgumentTypeError:
        side = 0
    if side < SMALLEST_TILE:
        raise ArgumentTypeError(
            f"must be auto, off or a whole number of latents, {SMALLEST_TILE} or more, not {text!r}: smaller tiles are "
            "mostly overlap and take many times as long"
        )
    return side


def _number(text: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "whole number" if kind is int else "number"
        raise ArgumentTypeError(f"must be a {what}, not {text!r}") from None


# --- options; `parser` is an ArgumentParser or one of its groups


def add_model(parser: Any) -> None:
    """--model and --codec."""
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        help=f"see `fmboost models` (default: {DEFAULT_MODEL}, or the 2x model of the codec's latent family)",
    )
    parser.add_argument(
        "--codec",
        default="builtin",
        metavar="NAME",
        help="encoder and decoder of the latents: builtin (default), a codec's file, or the common beginning of the "
        "files NAME_encoder.safetensors and NAME_decoder.safetensors; either may be hf://owner/repo/...",
    )


def add_tile(parser: Any) -> None:
    parser.add_argument(
        "--tile",
        type=tile,
        default="auto",
        metavar="N|auto|off",
        help="work in tiles of N latents (8 pixels each) to save memory; auto (default) does so for large pictures",
    )


def add_device(parser: Any) -> None:
    """--device alone."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="where to compute: auto (default, the fastest), or a device of PyTorch such as cpu, cuda:1, xpu or mps; "
        "a wrong name lists those that there are",
    )


def add_compute(parser: Any) -> None:
    """--device and --dtype."""
    add_device(parser)
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="number type (default float32)")
