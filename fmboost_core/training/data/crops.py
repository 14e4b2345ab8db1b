"""Random crops of latents and their guides, and of the photographs behind them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ConfigError, require
from ...imaging.resample import resize
from ...networks.conditioning import ENCODED_KINDS, GUIDE_KINDS
from .latents import LatentSet
from .photos import View, load_view
from .shards import Sample


class CropSampler:
    """Draws square crops: a group by its share, then each of its views and each position with equal probability.

    Views count the same whatever their size; by area, a few large photographs would dominate.
    """

    def __init__(self, sizes: Sequence[tuple[int, ...]], crop: int, groups: Sequence[str] = ()) -> None:
        """sizes: (height, width) of each view; views smaller than the crop are never drawn. groups: one a view."""
        self.sizes, self.crop = [(h, w) for h, w in sizes], crop
        self.fits = [h >= crop and w >= crop for h, w in self.sizes]
        if not any(self.fits):
            raise ConfigError(f"No view is as large as the crop of {crop} latents; take a smaller crop.")
        self.groups = list(groups) or [""] * len(self.sizes)
        self.weights = torch.tensor(self.fits).double()

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Draw the groups in these proportions; groups without a view that fits are left out."""
        if not all(math.isfinite(share) and share >= 0 for share in shares.values()) or not sum(shares.values()):
            raise ConfigError(f"Shares must be 0 or above, and not all 0, but they are {dict(shares)}.")
        views = list(zip(self.groups, self.fits, strict=True))
        count = Counter(group for group, fits in views if fits)
        weights = [shares.get(group, 0.0) / count[group] if fits else 0.0 for group, fits in views]
        if not sum(weights):
            raise ConfigError(
                f"No view of the groups with a share above 0 is as large as {self.crop} latents; take a smaller crop."
            )
        self.weights = torch.tensor(weights).double()

    def draw(self, count: int, generator: torch.Generator) -> list[tuple[int, int, int]]:
        """(view, top, left) of each crop."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator).tolist()
        sizes = [self.sizes[i] for i in chosen]
        return [
            (i, self._offset(h, generator), self._offset(w, generator)) for i, (h, w) in zip(chosen, sizes, strict=True)
        ]

    def _offset(self, side: int, generator: torch.Generator) -> int:
        return int(torch.randint(side - self.crop + 1, (), generator=generator))


def _cut(array: NDArray[Any], top: int, left: int, side: int) -> Tensor:
    return torch.from_numpy(array[:, top : top + side, left : left + side].copy()).float()


class Batch(NamedTuple):
    """Latents of the ground truth and guides, fp32 (B,C,crop,crop); what the guides were made from (B,).

    real: latents of what critics take for real (B,C,crop,crop): those of the ground truth, or of the photographs.
    low: the small latents (B,C,crop/scale,crop/scale) at the same places, for fast guides; the guides are then PSU's.
    """

    high: Tensor
    guide: Tensor
    kind: Tensor
    real: Tensor
    low: Tensor | None = None


class LatentCrops:
    """Batches of latent crops with guides: by pixel-space upsampling, or by resizing latents (paper Table 4).

    Where a share is given to the group "resized", resized latents are drawn beside the others (`GUIDE_KINDS`).
    """

    def __init__(
        self, data: LatentSet, crop: int, shares: Mapping[str, float], upsampling: str = "psu", photos: bool = False
    ) -> None:
        """shares: proportions of the groups; a group that is not named is not drawn; empty: all groups alike.

        A group is what a guide was made from ("latent", "image", "resized" or "enlarged"), and how else it was made:
        the name of another codec, "boosted" and "disturbed" low-resolution latents, as in `latent:CODEC:boosted`;
        "taught" by a teacher.
        upsampling: one of `guide.UPSAMPLERS`; only "psu" and "fast" take shares, "fast" of latents.
        photos: whether critics take photographs for real where the ground truth is a teacher's.
        """
        self.crop, self.scale, self.upsampling, self.photos = crop, data.scale, upsampling, photos
        if photos and any(s.facts.get("teacher") and "photo" not in s.arrays for s in data.samples):
            raise ConfigError(
                "Some taught shards have no photographs' latents, as an older version made them; encode "
                "them again, or set objective.photos to false."
            )
        # Small latents and guides lie at the same places, in steps of whole small latents.
        self.unit = data.scale if upsampling == "fast" else 1
        require(crop % self.unit == 0, "data.crop", crop, f"a multiple of the shards' scale, {data.scale}")
        if upsampling == "fast":
            self.choices = [(s, "latent") for s in data.samples if "low" in s.arrays and "latent" in s.arrays]
        elif upsampling == "psu":
            self.choices = [(s, kind) for s in data.samples for kind in ENCODED_KINDS if kind in s.arrays]
            if any(group.startswith("resized") for group in shares):
                self.choices += [(s, "resized") for s in data.samples if "low" in s.arrays]
        elif shares:
            raise ConfigError(
                f"Shares choose among groups of PSU guides, and upsampling {upsampling} has none; leave "
                "data.shares out."
            )
        else:
            self.choices = [(s, "resized") for s in data.samples if "low" in s.arrays]
        if not self.choices:
            raise ConfigError(
                f"The shards have nothing to make guides for upsampling {upsampling} from; encode them again "
                "with other --guides."
            )
        groups = [_group(sample, kind) for sample, kind in self.choices]
        _require_known(shares, groups, "guides")
        self._resized: dict[int, Tensor] = {}  # by the identity of their samples: whole, so each is resized once
        sizes = [tuple(n // self.unit for n in sample.arrays["high"].shape[-2:]) for sample, _ in self.choices]
        self.sampler = CropSampler(sizes, crop // self.unit, groups)
        self.sampler.set_shares(shares or dict.fromkeys(groups, 1.0))

    def draw(self, batch: int, generator: torch.Generator) -> Batch:
        small, u = self.sampler.draw(batch, generator), self.unit
        where = [(i, u * top, u * left) for i, top, left in small]
        high = [_cut(self.choices[i][0].arrays["high"], top, left, self.crop) for i, top, left in where]
        guide = [self._guide(*self.choices[i], top, left) for i, top, left in where]
        kinds = [GUIDE_KINDS.index(self.choices[i][1]) for i, _, _ in where]
        truth, low = torch.stack(high), None
        real = torch.stack([self._photo(*place) for place in where]) if self.photos else truth
        if self.upsampling == "fast":
            side = self.crop // u
            low = torch.stack([_cut(self.choices[i][0].arrays["low"], top, left, side) for i, top, left in small])
        return Batch(truth, torch.stack(guide), torch.tensor(kinds), real, low)

    def _photo(self, choice: int, top: int, left: int) -> Tensor:
        arrays = self.choices[choice][0].arrays
        return _cut(arrays.get("photo", arrays["high"]), top, left, self.crop)

    def _guide(self, sample: Sample, kind: str, top: int, left: int) -> Tensor:
        if kind != "resized":
            return _cut(sample.arrays[kind], top, left, self.crop)
        if id(sample) not in self._resized:
            self._resized[id(sample)] = self._resize(torch.from_numpy(sample.arrays["low"].copy()).float()[None])
        return self._resized[id(sample)][:, top : top + self.crop, left : left + self.crop]

    def _resize(self, low: Tensor) -> Tensor:
        """A small latent (1,C,h,w) at the size of the large one, (C,H,W)."""
        size = (self.scale * low.shape[-2], self.scale * low.shape[-1])
        return resize(low, size, "bilinear" if self.upsampling == "psu" else self.upsampling)[0]


def _group(sample: Sample, kind: str) -> str:
    facts = sample.facts
    ways = {"boosted": "boosted", "disturb": "disturbed", "teacher": "taught"}
    return ":".join(filter(None, [kind, facts.get("guide_codec"), *(ways[fact] for fact in ways if facts.get(fact))]))


def _require_known(shares: Mapping[str, float], groups: Sequence[str], what: str) -> None:
    unknown = sorted(set(shares) - set(groups))
    if unknown:
        known = ", ".join(sorted(set(groups)))
        raise ConfigError(f"data.shares names {', '.join(unknown)}, but the shards' groups of {what} are {known}.")


class ImageCrops:
    """Batches of photographs (B,3,f crop,f crop) and of the small images behind them, in [-1,1]; f: downscale factor.

    Small images (B,3,f crop/scale,f crop/scale) are decoded small latents, the group "latent", the reduced photographs,
    "image", or what an upscale model has made in a stage before, "enlarged".
    """

    def __init__(self, data: LatentSet, crop: int, shares: Mapping[str, float], downscale_factor: int = 8) -> None:
        """shares: proportions of the groups, as in `LatentCrops`."""
        self.scale, self.downscale_factor = data.scale, downscale_factor
        kinds = {"decoded": "latent", "reduced": "image", "enlarged": "enlarged"}
        pictures = [s for s in data.samples if "picture" in s.arrays]
        self.choices = [(s, array) for s in pictures for array in kinds if array in s.arrays]
        if not self.choices:
            raise ConfigError("The shards hold no images for an upscale model; encode them again with --images.")
        groups = [_group(sample, kinds[array]) for sample, array in self.choices]
        _require_known(shares, groups, "images")
        # Crops lie in steps of whole small latents, so that both images are cut at whole pixels.
        self.crop = crop // data.scale
        require(crop % data.scale == 0, "data.crop", crop, f"a multiple of the shards' scale, {data.scale}")
        unit = data.scale * downscale_factor
        sizes = [tuple(n // unit for n in sample.arrays["picture"].shape[-2:]) for sample, _ in self.choices]
        self.sampler = CropSampler(sizes, self.crop, groups)
        self.sampler.set_shares(shares or dict.fromkeys(groups, 1.0))

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(small images, photographs)"""
        where, f, large = self.sampler.draw(batch, generator), self.downscale_factor, self.downscale_factor * self.scale
        small = [_cut(self._image(i), f * top, f * left, f * self.crop) for i, top, left in where]
        photos = [_cut(self._photo(i), large * top, large * left, large * self.crop) for i, top, left in where]
        return torch.stack(small) / 127.5 - 1, torch.stack(photos) / 127.5 - 1

    def _image(self, choice: int) -> NDArray[Any]:
        sample, array = self.choices[choice]
        return sample.arrays[array]

    def _photo(self, choice: int) -> NDArray[Any]:
        return self.choices[choice][0].arrays["picture"]


class PhotoCrops:
    """Batches of photographs (B,3,f crop,f crop) in [-1,1] and their latents (B,C,crop,crop); f: downscale factor."""

    def __init__(self, data: LatentSet, crop: int, downscale_factor: int = 8) -> None:
        self.crop, self.downscale_factor = crop, downscale_factor
        self.latents = [sample.arrays["high"] for sample in data.samples]
        self.photos = [self._pixels(View(**s.facts["view"]), downscale_factor * data.scale) for s in data.samples]
        self.sampler = CropSampler([high.shape[-2:] for high in self.latents], crop)

    @staticmethod
    def _pixels(view: View, unit: int) -> NDArray[Any]:
        """The view's pixels (3,H,W) as bytes, a quarter of the memory of floats."""
        return (load_view(view, unit)[0] * 127.5 + 127.5).round().to(torch.uint8).numpy()

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        where, f = self.sampler.draw(batch, generator), self.downscale_factor
        photos = torch.stack([_cut(self.photos[i], f * top, f * left, f * self.crop) for i, top, left in where])
        latents = torch.stack([_cut(self.latents[i], top, left, self.crop) for i, top, left in where])
        return photos / 127.5 - 1, latents
