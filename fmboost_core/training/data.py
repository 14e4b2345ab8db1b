"""Random crops of latents, and of the photographs behind them, from shards."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import GUIDE_KINDS
from ..errors import ConfigError
from .encode import View, load_view


@dataclass(frozen=True)
class LatentSet:
    """All views of a folder of shards: where each came from, its (high, guide) latents (C,h,w) in fp16, the scale."""

    views: list[View]
    pairs: list[tuple[Tensor, Tensor]]
    scale: int


def load_shards(*folders: Path) -> LatentSet:
    """Read every shard of the folders into memory."""
    views: list[View] = []
    pairs: list[tuple[Tensor, Tensor]] = []
    scales: set[int] = set()
    for path in [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]:
        shard = _load_shard(path)
        views += shard.views
        pairs += shard.pairs
        scales.add(shard.scale)
    if len(scales) != 1:
        places = ", ".join(map(str, folders))
        raise ConfigError(f"{places} must hold shards of one scale, but there are {sorted(scales) or 'no shards'}.")
    return LatentSet(views, pairs, scales.pop())


def _load_shard(path: Path) -> LatentSet:
    try:
        with safe_open(path, "pt") as shard:
            metadata = shard.metadata() or {}
            views = [View(**view) for view in json.loads(metadata["views"])]
            pairs = [(shard.get_tensor(f"{i}.high"), shard.get_tensor(f"{i}.guide")) for i in range(len(views))]
            return LatentSet(views, pairs, int(metadata["scale"]))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no whole shard of latents ({error}); delete it and encode again.") from None


class CropSampler:
    """Draws square crops: a group by its share, then each of its views and each position equally likely.

    Views count the same whatever their size: by area, a few large photographs would be much of what is seen.
    """

    def __init__(self, sizes: Sequence[tuple[int, ...]], crop: int, groups: Sequence[str] = ()) -> None:
        """sizes: (height, width) of each view; views smaller than the crop are never drawn. groups: one a view."""
        self.sizes, self.crop = [(h, w) for h, w in sizes], crop
        fits = [h >= crop and w >= crop for h, w in self.sizes]
        if not any(fits):
            raise ConfigError(f"No view is as large as the crop of {crop} latents; take a smaller crop.")
        self.groups = list(groups) or [""] * len(self.sizes)
        self.weights = torch.tensor(fits).double()

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Draw the groups in these proportions; groups without a view that fits are left out."""
        if not all(math.isfinite(share) and share >= 0 for share in shares.values()) or not sum(shares.values()):
            raise ConfigError(f"Shares must be 0 or above, and not all 0, but they are {dict(shares)}.")
        fits = (self.weights > 0).tolist()
        count = Counter(group for group, fit in zip(self.groups, fits, strict=True) if fit)
        weights = [fit and shares.get(group, 0.0) / count[group] for group, fit in zip(self.groups, fits, strict=True)]
        if not sum(weights):
            raise ConfigError(f"No view of the groups with a share above 0 is as large as {self.crop} latents.")
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


def _cut(tensor: Tensor, top: int, left: int, side: int) -> Tensor:
    return tensor[:, top : top + side, left : left + side].float()


class LatentCrops:
    """Batches of (high, guide, kind): fp32 (B,C,crop,crop) twice, and (B,) indices into `GUIDE_KINDS`."""

    def __init__(self, data: LatentSet, crop: int, shares: Mapping[str, float]) -> None:
        """shares: how often the views of each group (`View.group`) are drawn; those not named, never."""
        self.pairs, self.crop = data.pairs, crop
        self.kinds = torch.tensor([GUIDE_KINDS.index(view.guide) for view in data.views])
        groups = [view.group for view in data.views]
        unknown = sorted(set(shares) - set(groups))
        if unknown:
            raise ConfigError(f"No view is of {', '.join(unknown)}; there are {', '.join(sorted(set(groups)))}.")
        self.sampler = CropSampler([high.shape[-2:] for high, _ in data.pairs], crop, groups)
        self.sampler.set_shares(shares or dict.fromkeys(groups, 1.0))

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        where = self.sampler.draw(batch, generator)
        high, guide = (
            torch.stack([_cut(self.pairs[i][k], top, left, self.crop) for i, top, left in where]) for k in (0, 1)
        )
        return high, guide, self.kinds[[i for i, _, _ in where]]


class PhotoCrops:
    """Batches of (photograph, its latent), fp32 (B,3,8 crop,8 crop) in [-1,1] and (B,C,crop,crop)."""

    def __init__(self, data: LatentSet, crop: int, factor: int = 8) -> None:
        self.crop, self.factor = crop, factor
        self.latents = [high for high, _ in data.pairs]
        self.photos = [self._pixels(view, factor * data.scale) for view in data.views]
        self.sampler = CropSampler([high.shape[-2:] for high in self.latents], crop)

    @staticmethod
    def _pixels(view: View, unit: int) -> Tensor:
        """The view's pixels (3,H,W) in 0..255, a quarter of the memory of floats."""
        return (load_view(view, unit)[0] * 127.5 + 127.5).round().to(torch.uint8)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        where, f = self.sampler.draw(batch, generator), self.factor
        photos = torch.stack([_cut(self.photos[i], f * top, f * left, f * self.crop) for i, top, left in where])
        latents = torch.stack([_cut(self.latents[i], top, left, self.crop) for i, top, left in where])
        return photos / 127.5 - 1, latents
