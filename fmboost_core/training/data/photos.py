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
    """A photograph, mirrored (flip) or not, with its sides divided by reduce, at least 1."""

    path: str
    flip: bool = False
    reduce: float = 1.0


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
        raise ConfigError(f"No photographs ({', '.join(READ_SUFFIXES)}) in {', '.join(map(str, places))}.")
    return found


def plan_views(
    paths: Sequence[Path], *, seed: int = 0, mirror: bool = True, reduce: Sequence[float] = (1.0,)
) -> list[View]:
    """All views in passes over the shuffled photographs: one pass for each reduction, then the same mirrored.

    An encoding that is stopped early has so seen every photograph. Raises `ConfigError` for an impossible seed or
    reduction.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"The seed must be at least 0 and below 2**32, but it is {seed}.")
    if not all(1 <= by <= 64 for by in reduce):
        raise ConfigError(f"Photographs are reduced by factors from 1 to 64, not by {list(reduce)}.")
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    flips = (False, True) if mirror else (False,)
    return [View(str(paths[k]), flip, float(by)) for flip in flips for by in reduce for k in order]


def load_view(view: View, unit: int) -> Tensor:
    """The view's pixels (1,3,H,W) in [-1,1], cropped at the centre to sides that are multiples of unit.

    Raises `ImageError` for a file that cannot be read, and for one that is smaller than unit.
    """
    pixels = read_picture(view.path).rgb
    if view.reduce != 1:
        size = (max(1, round(pixels.shape[-2] / view.reduce)), max(1, round(pixels.shape[-1] / view.reduce)))
        pixels = resize(pixels, size)
    height, width = (side // unit * unit for side in pixels.shape[-2:])
    if not height or not width:
        raise ImageError(f"{view.path} is smaller than {unit} pixels a side, so it cannot be encoded.")
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    pixels = pixels[..., top : top + height, left : left + width]
    return pixels.flip(-1) if view.flip else pixels
