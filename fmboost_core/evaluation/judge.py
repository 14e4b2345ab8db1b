"""A method on a photograph: reduce it, enlarge it again, and see how near the truth that comes.

small = reduce(photo)           bilinear with antialias
low   = E(small)                what the method starts from
truth = E(photo), D(E(photo))   what it should reach: the best that this codec can show
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codecs.protocol import Codec
from ..errors import ConfigError, ImageError
from ..imaging.picture_file import read_picture
from ..imaging.resample import resize
from ..metrics.image_metrics import DEFAULT_METRICS, check_names, latent_mse, measure
from ..model import Model
from ..sampling.guide import pixel_upsample
from ..sampling.upscaler import boost

TRUTHS = ("decoded", "photo")
BASELINES = ("bicubic", "guide")

# The large latent from the small picture (1,3,h,w) in [-1,1], its scaled latent, and the (height, width) in pixels.
Sample = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Setting:
    """How photographs are judged.

    scale: by how much they are reduced; size: largest side of the crop at the centre, in pixels.
    truth: "decoded" compares with the photograph through the codec, which no method can surpass; "photo" with itself.
    metrics: names of `METRICS`.
    """

    scale: int = 2
    size: int = 512
    truth: str = "decoded"
    metrics: tuple[str, ...] = DEFAULT_METRICS

    def __post_init__(self) -> None:
        for name, least in (("scale", 2), ("size", 16)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} must be a whole number of at least {least}, but it is {value!r}.")
        if self.truth not in TRUTHS:
            raise ConfigError(f"truth must be {' or '.join(TRUTHS)}, but it is {self.truth!r}.")
        object.__setattr__(self, "metrics", check_names(self.metrics))


@dataclass(frozen=True)
class Case:
    """A photograph ready to be judged on.

    small: (1,3,h,w) in [-1,1]; low: its scaled latent; latent: the true large latent; truth: the true picture
    (1,3,H,W) in [-1,1].
    """

    small: Tensor
    low: Tensor
    latent: Tensor
    truth: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels that a method has to reach."""
        return self.truth.shape[-2], self.truth.shape[-1]


def load_photo(path: Path, size: int, unit: int) -> Tensor:
    """The crop at the centre (1,3,H,W) in [-1,1], at most size a side and multiples of unit. Raises `ImageError`."""
    photo = read_picture(path).rgb
    height, width = (min(size, side) // unit * unit for side in photo.shape[-2:])
    if not height or not width:
        found = f"{photo.shape[-1]}x{photo.shape[-2]}"
        raise ImageError(f"{path} is {found}; {unit} pixels a side are needed, and at most {size} are taken.")
    top, left = (photo.shape[-2] - height) // 2, (photo.shape[-1] - width) // 2
    return photo[..., top : top + height, left : left + width]


def centre_square(photo: Tensor, size: int) -> Tensor:
    """The largest square (1,3,size,size) at the centre, reduced or enlarged to size pixels, clamped to [-1,1]."""
    side = min(photo.shape[-2:])
    top, left = (photo.shape[-2] - side) // 2, (photo.shape[-1] - side) // 2
    return resize(photo[..., top : top + side, left : left + side], (size, size)).clamp(-1, 1)


@torch.no_grad()
def prepare(path: Path, codec: Codec, setting: Setting, device: torch.device | str = "cpu") -> Case:
    """The photograph's case on a device, which must be the codec's. Raises `ImageError` for what is no photograph."""
    photo = load_photo(path, setting.size, 2 * codec.downscale_factor * setting.scale).to(device)
    small = resize(photo, (photo.shape[-2] // setting.scale, photo.shape[-1] // setting.scale))
    latent = codec.encode(photo)
    truth = photo if setting.truth == "photo" else decoded(codec, latent)
    return Case(small, codec.encode(small), latent, truth)


@torch.no_grad()
def decoded(codec: Codec, latent: Tensor) -> Tensor:
    """The latent's picture, clamped to [-1,1]."""
    return codec.decode(latent).clamp(-1, 1)


def judge_latent(latent: Tensor, case: Case, codec: Codec, names: Sequence[str]) -> dict[str, float]:
    """The latent's error and the named metrics of its picture."""
    return {"latent_mse": latent_mse(latent, case.latent), **judge_picture(decoded(codec, latent), case, names)}


def judge_picture(picture: Tensor, case: Case, names: Sequence[str]) -> dict[str, float]:
    """The named metrics of a picture, computed on the CPU so that devices agree."""
    return measure(picture.float().cpu(), case.truth.float().cpu(), names)


@torch.no_grad()
def judge_model(
    sample: Sample, codec: Codec, photos: Iterable[Path], setting: Setting | None = None
) -> Iterator[tuple[Path, dict[str, float]]]:
    """Each photograph's figures of a method: "latent_mse" and the setting's metrics."""
    setting = setting or Setting()
    for path in photos:
        case = prepare(path, codec, setting)
        yield path, judge_latent(sample(case.small, case.low, case.size), case, codec, setting.metrics)


def judge_baselines(
    codec: Codec, photos: Iterable[Path], setting: Setting | None = None
) -> Iterator[tuple[Path, dict[str, dict[str, float]]]]:
    """Each photograph's figures of `BASELINES`; "bicubic" has no latent and so no "latent_mse"."""
    setting = setting or Setting()
    for path in photos:
        case = prepare(path, codec, setting)
        guide = judge_latent(guide_of(codec)(case.small, case.low, case.size), case, codec, setting.metrics)
        yield path, {"bicubic": judge_picture(bicubic(case), case, setting.metrics), "guide": guide}


def bicubic(case: Case) -> Tensor:
    """The small picture enlarged without any network, clamped to [-1,1]."""
    return resize(case.small, case.size, "bicubic").clamp(-1, 1)


def guide_of(codec: Codec) -> Sample:
    """Pixel-space upsampling alone (PSU, paper section 3.3): what a flow starts from."""
    return lambda small, low, size: pixel_upsample(low, codec, size)


def boosted(model: Model, codec: Codec, **how: Any) -> Sample:
    """The model's flow from the low latent; the arguments are `boost`'s."""
    return lambda small, low, size: boost(low, model, codec, size=(size[1], size[0]), **how)
