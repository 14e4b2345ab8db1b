"""Photographs prepared for evaluation: cropped, reduced and encoded.

small     = reduce(photo)         bilinear with antialiasing
low       = E(small)              a method's input
latent    = E(photo)              the reference latent
reference = D(latent) or photo    the reference image
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import ConfigError, ImageError
from ..files.walk import as_text
from ..imaging.read import read_picture
from ..imaging.resample import resize
from ..metrics.meanings import DEFAULT_METRICS, check_names
from ..training.data.photos import find_photos

REFERENCES = ("decoded", "photo")


@dataclass(frozen=True)
class EvaluationConfig:
    """How methods are evaluated on photographs.

    scale: the downscale factor of the small images; size: largest side of the centre crop, in pixels.
    reference: "decoded" compares with the photograph through the codec, the best that the codec can show; "photo"
        compares with the photograph itself.
    metrics: names of `METRICS`.
    """

    scale: int = 2
    size: int = 512
    reference: str = "decoded"
    metrics: tuple[str, ...] = DEFAULT_METRICS

    def __post_init__(self) -> None:
        for name, least in (("scale", 2), ("size", 16)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} must be a whole number of at least {least}, but it is {value!r}.")
        if self.reference not in REFERENCES:
            raise ConfigError(f"The reference must be {' or '.join(REFERENCES)}, but it is {self.reference!r}.")
        object.__setattr__(self, "metrics", check_names(self.metrics))


@dataclass(frozen=True)
class PreparedPhoto:
    """A photograph with everything that methods start from and are compared with.

    small: (1,3,h,w) in [-1,1]; low: its scaled latent; latent: the scaled reference latent; reference: the reference
    image (1,3,H,W) in [-1,1].
    """

    small: Tensor
    low: Tensor
    latent: Tensor
    reference: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """The target size (height, width) in pixels."""
        return self.reference.shape[-2], self.reference.shape[-1]


@torch.no_grad()
def prepare(path: Path, codec: Codec, config: EvaluationConfig, device: torch.device | str = "cpu") -> PreparedPhoto:
    """Prepare a photograph on the codec's device. Raises `ImageError` where it is too small or cannot be read."""
    photo = load_photo(path, config.size, 2 * codec.downscale_factor * config.scale).to(device)
    small = resize(photo, (photo.shape[-2] // config.scale, photo.shape[-1] // config.scale))
    latent = codec.encode(photo)
    reference = photo if config.reference == "photo" else decoded(codec, latent)
    return PreparedPhoto(small, codec.encode(small), latent, reference)


@torch.no_grad()
def decoded(codec: Codec, latent: Tensor) -> Tensor:
    """The latent's image, clamped to [-1,1]."""
    return codec.decode(latent).clamp(-1, 1)


def load_photo(path: Path, size: int, unit: int) -> Tensor:
    """The centre crop (1,3,H,W) in [-1,1]; its sides are multiples of unit and at most size. Raises `ImageError`."""
    photo = read_picture(path).rgb
    height, width = (min(size, side) // unit * unit for side in photo.shape[-2:])
    if not height or not width:
        found = f"{photo.shape[-1]}x{photo.shape[-2]}"
        raise ImageError(f"{path} is {found}; {unit} pixels a side are needed, and at most {size} are taken.")
    top, left = (photo.shape[-2] - height) // 2, (photo.shape[-1] - width) // 2
    return photo[..., top : top + height, left : left + width]


def centre_square(photo: Tensor, size: int) -> Tensor:
    """The largest centred square of a photograph, resized to (1,3,size,size) and clamped to [-1,1]."""
    side = min(photo.shape[-2:])
    top, left = (photo.shape[-2] - side) // 2, (photo.shape[-1] - side) // 2
    return resize(photo[..., top : top + side, left : left + side], (size, size)).clamp(-1, 1)


def find_named(places: Iterable[Path]) -> dict[str, Path]:
    """The photographs in files and folders by their names in results: the path within the folder.

    Raises `ImageError` where there are none, and where two photographs have one name.
    """
    found = {path: place for place in places for path in find_photos([place])}
    names: dict[str, Path] = {}
    for path, place in found.items():
        name = as_text(path.relative_to(place).as_posix() if path != place else path.name)
        if names.setdefault(name, path) != path:
            raise ImageError(f"{names[name]} and {path} are both called {name} in the results; evaluate them apart.")
    return names


def every_nth(photos: Mapping[str, Path], every: int) -> dict[str, Path]:
    """Each N-th photograph, from the first. Raises `ConfigError` for an N below 1."""
    if every < 1:
        raise ConfigError(f"every must be a whole number above 0, but it is {every!r}.")
    return dict(list(photos.items())[::every])
