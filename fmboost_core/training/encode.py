"""Photographs to latent shards, once, so that training never runs a codec.

A shard is one safetensors file: for its i-th view `i.high` (C,h,w), the latent of the photograph, and `i.guide`,
the latent of the photograph reduced and brought back, both fp16. Its metadata names each view: file, flip, guide.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ..codec import Codec
from ..config import GUIDE_KINDS
from ..errors import ConfigError, ImageError
from ..upsample import image_guide, pixel_upsample, resize

SHARD_VIEWS = 64
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class View:
    """One way to look at a photograph.

    guide: "image" for E(UP(small)), "latent" for E(UP(D(E(small)))). codec: what made the guide, "" if the same codec
    made the photograph's latent: one network can serve codecs that share a latent space.
    """

    path: str
    flip: bool
    guide: str
    codec: str = ""

    @property
    def group(self) -> str:
        """What its guide is: "latent", "image", or with another codec "latent:CODEC", "image:CODEC"."""
        return f"{self.guide}:{self.codec}" if self.codec else self.guide


def find_photos(places: Sequence[Path]) -> list[Path]:
    """The photographs among files and (recursively) folders, sorted."""
    found = [
        path
        for place in places
        for path in (sorted(place.rglob("*")) if place.is_dir() else [place])
        if path.suffix.lower() in PHOTO_SUFFIXES
    ]
    if not found:
        raise ConfigError(f"No photographs ({', '.join(PHOTO_SUFFIXES)}) in {', '.join(map(str, places))}.")
    return found


def plan_views(paths: Sequence[Path], seed: int = 0, codec: str = "") -> list[View]:
    """Two views a photograph, plain and mirrored, one with each kind of guide; shuffled, all plain ones first."""
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    return [
        View(str(paths[k]), flip, GUIDE_KINDS[(i + flip) % 2], codec)
        for flip in (False, True)
        for i, k in enumerate(order)
    ]


def load_view(view: View, unit: int) -> Tensor:
    """The view's pixels (1,3,H,W) in [-1,1], cropped at the centre to multiples of unit."""
    photo = Image.open(view.path).convert("RGB")
    w, h = (side // unit * unit for side in photo.size)
    if not w or not h:
        raise ImageError(f"{view.path} is smaller than {unit} pixels a side, so no latent can be made of it.")
    left, top = (photo.width - w) // 2, (photo.height - h) // 2
    pixels = torch.from_numpy(np.array(photo.crop((left, top, left + w, top + h))))
    pixels = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
    return pixels.flip(-1) if view.flip else pixels


@torch.inference_mode()
def encode_view(image: Tensor, kind: str, codec: Codec, scale: int, guide_codec: Codec) -> tuple[Tensor, Tensor]:
    """(high, guide), scaled latents (C,h,w) of an image (1,3,H,W) whose sides are multiples of 8*scale."""
    return codec.encode(image)[0], make_guide(image, kind, guide_codec, scale)


@torch.inference_mode()
def make_guide(image: Tensor, kind: str, codec: Codec, scale: int) -> Tensor:
    """The guide (C,h,w) of one of `GUIDE_KINDS`, of an image reduced by scale."""
    small = resize(image, (image.shape[-2] // scale, image.shape[-1] // scale))
    size = (image.shape[-2], image.shape[-1])
    if kind == "image":
        return image_guide(small, codec, size)[0]
    return pixel_upsample(codec.encode(small), codec, size)[0]


def encode_shards(
    views: Sequence[View],
    codec: Codec,
    scale: int,
    out: Path,
    guide_codec: Codec | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Path]:
    """Write the views' shards into `out`; shards that are there already are kept, so a killed run continues.

    guide_codec: what the views name as their `codec`; None: codec.
    """
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(views), SHARD_VIEWS):
        path = out / f"shard-{start // SHARD_VIEWS:05d}.safetensors"
        chunk = views[start : start + SHARD_VIEWS]
        if not path.exists():
            tensors: dict[str, Tensor] = {}
            for i, view in enumerate(chunk):
                high, guide = encode_view(
                    load_view(view, codec.factor * scale), view.guide, codec, scale, guide_codec or codec
                )
                tensors |= {f"{i}.high": high.half().contiguous(), f"{i}.guide": guide.half().contiguous()}
                progress(start + i + 1, len(views))
            metadata = {"views": json.dumps([asdict(view) for view in chunk]), "scale": str(scale)}
            partial = path.with_suffix(".partial")
            save_file(tensors, partial, metadata)
            partial.replace(path)
        yield path
