"""Photographs in files and folders, and their views: mirrored, reduced, cropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ConfigError, ImageError
from ...files.walk import walk
from ...imaging.formats import READ_SUFFIXES
from ...imaging.read import read_picture
from ...imaging.resample import resize


@dataclass(frozen=True)
class View:
    """A photograph, mirrored (flip) or not, with its sides divided by reduce, at least 1.

    side: of the square that is cut out of it after the reduction, in pixels; 0: the whole of it. down, across: where,
    each from 0 (at the top, at the left) to 1.
    """

    path: str
    flip: bool = False
    reduce: float = 1.0
    side: int = 0
    down: float = 0.5
    across: float = 0.5


def find_photos(places: Sequence[Path]) -> list[Path]:
    """The photographs among files and, recursively, folders, sorted, without hidden files. Links are followed.

    Raises `ConfigError` for a path that does not exist, and where there are no photographs.
    """
    missing = [str(place) for place in places if not place.exists()]
    if missing:
        raise ConfigError(f"There is no file or folder {', '.join(missing)}; check the name.")
    found = [
        path
        for place in places
        for path in (sorted(walk(place)) if place.is_dir() else [place])
        if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise ConfigError(
            f"No photographs ({', '.join(READ_SUFFIXES)}) in {', '.join(map(str, places))}; name another folder."
        )
    return found


def plan_views(
    paths: Sequence[Path], *, seed: int = 0, mirror: bool = True, reduce: Sequence[float] = (1.0,), side: int = 0,
    cuts: int = 1,
) -> list[View]:  # fmt: skip
    """All views in passes over the shuffled photographs: one pass for each reduction, then the same mirrored.

    An encoding that is stopped early has so seen every photograph. side: of squares in pixels that are cut out at
    random, so that a few large photographs do not take most of the time; 0: whole photographs. cuts: passes with other
    squares. Raises `ConfigError` for an impossible seed, reduction or square.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"The seed must be at least 0 and below 2**32, but it is {seed}.")
    if not all(1 <= by <= 64 for by in reduce):
        raise ConfigError(f"Photographs are reduced by factors from 1 to 64, not by {list(reduce)}.")
    if side < 0 or cuts < 1 or (cuts > 1 and not side):
        raise ConfigError(f"Photographs are cut into squares of whole pixels, but not {cuts} times of side {side}.")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(paths), generator=generator).tolist()
    flips = (False, True) if mirror else (False,)
    views = []
    for _ in range(cuts):
        for flip in flips:
            for by in reduce:
                places = torch.rand(len(paths), 2, generator=generator).tolist() if side else [(0.5, 0.5)] * len(paths)
                views += [View(str(paths[k]), flip, float(by), side, *places[k]) for k in order]
    return views


def load_view(view: View, unit: int) -> Tensor:
    """The view's pixels (1,3,H,W) in [-1,1], cropped to its square and to sides that are multiples of unit.

    Raises `ImageError` for a file that cannot be read, and for one that is smaller than unit.
    """
    pixels = read_picture(view.path).rgb
    if view.reduce != 1:
        size = (max(1, round(pixels.shape[-2] / view.reduce)), max(1, round(pixels.shape[-1] / view.reduce)))
        pixels = resize(pixels, size)
    largest = view.side or max(pixels.shape[-2:])
    height, width = (min(side, largest) // unit * unit for side in pixels.shape[-2:])
    if not height or not width:
        raise ImageError(
            f"{view.path} is smaller than {unit} pixels a side, so it cannot be encoded; take a larger one."
        )
    top, left = int((pixels.shape[-2] - height) * view.down), int((pixels.shape[-1] - width) * view.across)
    pixels = pixels[..., top : top + height, left : left + width]
    return pixels.flip(-1) if view.flip else pixels
