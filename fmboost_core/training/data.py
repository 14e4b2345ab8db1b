"""Random crops of latents, and of the photographs behind them, from shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ConfigError
from .encode import View, load_view


@dataclass(frozen=True)
class LatentSet:
    """All views of a folder of shards: where each came from, its (high, guide) latents (C,h,w) in fp16, the scale."""

    views: list[View]
    pairs: list[tuple[Tensor, Tensor]]
    scale: int


def load_shards(folder: Path) -> LatentSet:
    """Read every shard of a folder into memory."""
    views: list[View] = []
    pairs: list[tuple[Tensor, Tensor]] = []
    scales: set[int] = set()
    for path in sorted(folder.glob("*.safetensors")):
        shard = _load_shard(path)
        views += shard.views
        pairs += shard.pairs
        scales.add(shard.scale)
    if len(scales) != 1:
        raise ConfigError(f"{folder} must hold shards of one scale, but it has {sorted(scales) or 'no shards'}.")
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
    """Draws square crops, every position of every view equally likely."""

    def __init__(self, sizes: Sequence[tuple[int, ...]], crop: int) -> None:
        """sizes: (height, width) of each view; views smaller than the crop are never drawn."""
        self.sizes, self.crop = [(h, w) for h, w in sizes], crop
        self.weights = torch.tensor([max(0, h - crop + 1) * max(0, w - crop + 1) for h, w in self.sizes]).double()
        if not self.weights.sum():
            raise ConfigError(f"No view is as large as the crop of {crop} latents; take a smaller crop.")

    def set_share(self, chosen: Sequence[bool], share: float) -> None:
        """Draw a share of the crops from the chosen views, the rest from the others (if there are both)."""
        if not 0 <= share <= 1:
            raise ConfigError(f"A share must be between 0 and 1, but it is {share!r}.")
        among = torch.tensor(chosen)
        inside, outside = self.weights[among].sum(), self.weights[~among].sum()
        if inside and outside:
            self.weights = torch.where(among, share * self.weights / inside, (1 - share) * self.weights / outside)

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
    """Batches of (high, guide), fp32 (B,C,crop,crop); a share of them has guides made from latents."""

    def __init__(self, data: LatentSet, crop: int, latent_share: float) -> None:
        self.pairs, self.crop = data.pairs, crop
        self.sampler = CropSampler([high.shape[-2:] for high, _ in data.pairs], crop)
        self.sampler.set_share([view.guide == "latent" for view in data.views], latent_share)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        where = self.sampler.draw(batch, generator)
        high, guide = (
            torch.stack([_cut(self.pairs[i][k], top, left, self.crop) for i, top, left in where]) for k in (0, 1)
        )
        return high, guide


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
