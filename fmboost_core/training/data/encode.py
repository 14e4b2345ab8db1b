"""Photographs to shards of latents, once, so that training never runs a codec.

A sample's arrays, all fp16: `high` (C,h,w), the latent of the photograph; `low`, that of the photograph reduced; and
guides of high's size, named after `GUIDE_KINDS`: `latent`, E(UP(D(low))), and `image`, E(UP(small)).

What a generator or an earlier stage makes is no photograph's encoding; `low` can be made less of one: a model's own
result, or disturbed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...codecs.protocol import Codec
from ...errors import ConfigError, ImageError
from ...files.atomic import replacing
from ...imaging.resample import resize
from ...model import Model
from ...networks.conditioning import GUIDE_KINDS
from ...sampling.checks import check_pair
from ...sampling.guide import image_guide, pixel_upsample
from ...sampling.upscaler import boost
from .degrade import Degradation, degrade, plan
from .photos import View, load_view
from .shards import Sample, write_shard

SHARD_VIEWS = 64
PLAN = "encode.json"  # in the folder of the shards: what they were made from and how
# Of a disturbed latent, a generator's stand-in: each channel scaled and shifted by up to so much, and white noise.
SCALED, SHIFTED, NOISE = 0.05, 0.05, 0.05


@dataclass(frozen=True)
class Encoding:
    """How views become samples.

    scale: magnification to learn, a whole number from 2. guides: which of `GUIDE_KINDS` to make.
    guide_codec: the name of another codec that makes the guides, "" for the one that makes the high latents: one
        network can serve codecs that share a latent space. degrade: whether the reduced pictures are also spoiled,
        as cameras and the web do it (`degrade`), each from a seed of its own on from `seed`.
    codec: the name of the one that makes the high latents, so that shards of two are not mixed.
    boosted: which model's results, from photographs reduced once more, are the low latents, as in a second stage: its
        name and what tells it from another of that name; "" for encodings. disturb: whether low latents are
        `disturbed`. Both make guides of latents only.
    """

    scale: int = 2
    guides: tuple[str, ...] = GUIDE_KINDS
    guide_codec: str = ""
    degrade: bool = False
    seed: int = 0
    codec: str = ""
    boosted: str = ""
    disturb: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.scale <= 16:
            raise ConfigError(f"The scale must be a whole number from 2 to 16, but it is {self.scale!r}.")
        if not self.guides or not set(self.guides) <= set(GUIDE_KINDS):
            raise ConfigError(f"Guides are {' and '.join(GUIDE_KINDS)}, one or both, but not {list(self.guides)}.")
        if (self.boosted or self.disturb) and tuple(self.guides) != ("latent",):
            raise ConfigError("Boosted and disturbed latents make guides of latents only: take --guides latent.")


def reduced(image: Tensor, scale: int, degradation: Degradation | None = None) -> Tensor:
    """The small picture (1,3,H/scale,W/scale) of one (1,3,H,W): bilinear with antialias, or degraded."""
    if degradation is None:
        return resize(image, (image.shape[-2] // scale, image.shape[-1] // scale))
    pixels = ((image[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    small = np.asarray(degrade(Image.fromarray(pixels), scale, degradation))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def disturbed(latent: Tensor, seed: int) -> Tensor:
    """A photograph's latent (1,C,h,w), less like one: scaled and shifted channel by channel, with noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, latent.shape[1], 1, 1)
    scale = 1 + SCALED * (2 * torch.rand(shape, generator=generator) - 1)
    shift = SHIFTED * (2 * torch.rand(shape, generator=generator) - 1)
    noise = NOISE * torch.randn(latent.shape, generator=generator)
    return latent * scale.to(latent) + shift.to(latent) + noise.to(latent)


def guides_of(
    low: Tensor, small: Tensor, size: tuple[int, int], kinds: Sequence[str], codec: Codec
) -> dict[str, Tensor]:
    """The guides of these kinds, of a large picture of size (height, width): low, and small, the picture behind it."""
    made = {}
    if "latent" in kinds:
        made["latent"] = pixel_upsample(low, codec, size)
    if "image" in kinds:
        made["image"] = image_guide(small, codec, size)
    return made


class ShardMaker:
    """Makes the shards of a plan in a folder; those that are there are kept, so a killed run continues."""

    def __init__(
        self, views: Sequence[View], how: Encoding, codec: Codec, out: Path, *, guide_codec: Codec | None = None,
        model: Model | None = None, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        """guide_codec, model: those that `how` names; None: codec, and no model.

        Raises `ConfigError` where `out` has another plan.
        """
        self.views, self.how, self.out, self.device = views, how, out, device or torch.device("cpu")
        self.codec, self.guide_codec, self.model = codec, guide_codec or codec, model
        if model:
            check_pair(model, self.guide_codec)
        self.earlier = _whole_scale(model) if model else 1  # how much smaller what the model starts from is
        self.skipped: list[str] = []
        _keep_plan(out / PLAN, {"encoding": asdict(how), "views": [asdict(view) for view in views]})

    @property
    def shards(self) -> list[int]:
        return list(range(-(-len(self.views) // SHARD_VIEWS)))

    def path(self, shard: int) -> Path:
        return self.out / f"shard-{shard:06d}.tar"

    def make(self, shards: Sequence[int], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make those of these shards that are not there. Photographs that cannot be read end up in `skipped`.

        progress(views done, views to do) is called after each view.
        """
        missing = [shard for shard in shards if not self.path(shard).exists()]
        total, done = sum(len(self._views(shard)) for shard in missing), 0

        def counted(samples: Iterator[Sample | None]) -> Iterator[Sample]:
            nonlocal done
            for sample in samples:
                done += 1
                progress(done, total)
                if sample is not None:
                    yield sample

        for shard in missing:
            write_shard(self.path(shard), counted(map(self._sample, self._views(shard))))

    def _views(self, shard: int) -> list[tuple[int, View]]:
        """The views of a shard with their numbers."""
        first = shard * SHARD_VIEWS
        return list(enumerate(self.views[first : first + SHARD_VIEWS], first))

    @torch.inference_mode()
    def _sample(self, numbered: tuple[int, View]) -> Sample | None:
        """None for a photograph that is no use."""
        number, view = numbered
        how = self.how
        degradation = plan(how.seed + number, how.scale) if how.degrade else None
        try:
            image = load_view(view, self.codec.downscale_factor * how.scale * self.earlier)
        except ImageError as error:
            self.skipped.append(str(error))
            return None
        small = reduced(image, how.scale, degradation).to(self.device)
        low = self._low(small, how.seed + number)
        size = (image.shape[-2], image.shape[-1])
        arrays = {"high": self.codec.encode(image.to(self.device)), "low": low}
        arrays |= guides_of(low, small, size, how.guides, self.guide_codec)
        facts = {
            "view": asdict(view), "scale": how.scale, "guide_codec": how.guide_codec, "boosted": how.boosted,
            "disturb": how.disturb, "degradation": degradation and json.loads(degradation.as_json()),
        }  # fmt: skip
        return Sample(f"{number:08d}", facts, {name: latent[0].half().cpu().numpy() for name, latent in arrays.items()})

    def _low(self, small: Tensor, seed: int) -> Tensor:
        if self.model is None:
            low = self.guide_codec.encode(small)
        else:
            smaller = self.guide_codec.encode(reduced(small, self.earlier))
            low = boost(smaller, self.model, self.guide_codec, seed=seed)
        return disturbed(low, seed) if self.how.disturb else low


def _whole_scale(model: Model) -> int:
    if model.spec.scale != round(model.spec.scale):
        raise ConfigError(
            f"Only a model of a whole scale can boost small latents, but {model.spec.scale} is this one's."
        )
    return round(model.spec.scale)


def _keep_plan(path: Path, now: dict[str, Any]) -> None:
    """Write the plan down; refuse to mix its shards with another one's."""
    now = json.loads(json.dumps(now))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else now
    except OSError as error:
        raise ConfigError(f"The folder {path.parent} cannot be used ({error.strerror}).") from None
    except ValueError:
        raise ConfigError(f"{path} is damaged; delete the folder's shards with it and encode again.") from None
    if isinstance(before, dict) and isinstance(before.get("encoding"), dict):
        # What an older version did not write down is as it was: the default.
        before["encoding"] = json.loads(json.dumps(asdict(Encoding()))) | before["encoding"]
    if before != now:
        different = ", ".join(key for key in now if not isinstance(before, dict) or before.get(key) != now[key])
        raise ConfigError(
            f"{path.parent} holds shards of another plan (different: {different}); take another folder, "
            "or the same photographs and options to continue."
        )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(now))
