"""Comparisons: which methods make an image of which photographs, and the reference image of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import ConfigError, ImageError
from ..imaging.read import read_picture
from ..metrics.fidelity import latent_mse
from ..sampling.restore import restored
from ..training.data.photos import find_photos
from .artifacts import REFERENCE
from .methods import BASELINES, LatentMethod, bicubic, psu_guide
from .photographs import EvaluationConfig, PreparedPhoto, decoded, every_nth, prepare


class MethodImage(NamedTuple):
    """An image (1,3,H,W) in [-1,1] that a method made, and figures that the image does not show."""

    image: Tensor
    figures: dict[str, float]


MakeImage = Callable[[], MethodImage]


@dataclass(frozen=True)
class Comparison:
    """Photographs by name, the methods' names, and `open`.

    open(path) returns the reference image (1,3,H,W) in [-1,1] and, by method, a function that makes its image.
    """

    photos: Mapping[str, Path]
    methods: Sequence[str]
    open: Callable[[Path], tuple[Tensor, Mapping[str, MakeImage]]]


def model_comparison(
    photos: Mapping[str, Path],
    methods: Mapping[str, LatentMethod],
    codec: Codec,
    config: EvaluationConfig,
    device: torch.device | str = "cpu",
    restored: Mapping[str, LatentMethod] | None = None,
) -> Comparison:
    """Enlarge reduced photographs by the named methods and by the baselines.

    restored: more methods, whose images get the decoded low latent's content back (`sampling.restore`).
    """
    restored = restored or {}

    def open_photo(path: Path) -> tuple[Tensor, Mapping[str, MakeImage]]:
        photo = prepare(path, codec, config, device)
        latent_methods = {"guide": psu_guide(codec), **methods}
        images: dict[str, MakeImage] = {"bicubic": lambda: MethodImage(bicubic(photo), {})}
        images |= {name: partial(_latent_image, method, photo, codec) for name, method in latent_methods.items()}
        images |= {name: partial(_restored_image, method, photo, codec) for name, method in restored.items()}
        return photo.reference, images

    return Comparison(photos, [*BASELINES, *methods, *restored], open_photo)


def decoded_image(latent: Tensor, photo: PreparedPhoto, codec: Codec) -> MethodImage:
    """A latent's image and its error."""
    return MethodImage(decoded(codec, latent), {"latent_mse": latent_mse(latent, photo.latent)})


def _latent_image(method: LatentMethod, photo: PreparedPhoto, codec: Codec) -> MethodImage:
    return decoded_image(method(photo), photo, codec)


def _restored_image(method: LatentMethod, photo: PreparedPhoto, codec: Codec) -> MethodImage:
    return MethodImage(restored(decoded(codec, method(photo)), decoded(codec, photo.low), look=False), {})


def image_comparison(folders: Sequence[Path], references: Path, every: int = 1) -> Comparison:
    """Compare finished images, one folder a method, with the reference images of the same names.

    Suffixes may differ. Images without a reference are not read; references without an image are skipped and noted.
    every: only each N-th reference.
    """
    if len({REFERENCE, *(folder.name for folder in folders)}) <= len(folders):
        raise ConfigError(
            f"Folders of images are methods by their names, and two are alike or {REFERENCE}; rename them."
        )
    made = {folder.name: _by_stem(folder) for folder in folders}
    originals = _by_stem(references)
    if not any(set(originals) & set(found) for found in made.values()):
        raise ConfigError(
            f"No image in {', '.join(map(str, folders))} has the name of one in {references}; rename them."
        )

    def read(method: str, stem: str) -> MethodImage:
        if stem not in made[method]:
            raise ImageError(f"{method} has no image named {stem}; add one.")
        return MethodImage(read_picture(made[method][stem]).rgb, {})

    def open_photo(path: Path) -> tuple[Tensor, Mapping[str, MakeImage]]:
        stem = path.relative_to(references).with_suffix("").as_posix()
        return read_picture(path).rgb, {method: partial(read, method, stem) for method in made}

    return Comparison(every_nth(originals, every), list(made), open_photo)


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by their path in it without the suffix."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name a folder of images.")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in find_photos([folder])}
