"""Encoding of photographs to shards of latents, once, so that training never runs a codec.

The arrays of a sample, in fp16: `high` (C,h,w), the latent of the photograph; `low`, the latent of the reduced
photograph; and guides of the size of high, named after `ENCODED_KINDS`: `latent`, E(UP(D(low))), `image`,
E(UP(reduced photograph)), and `enlarged`, E(U(D(low))) with an upscale model U.

At sampling, a low-resolution latent comes from a diffusion model or an earlier stage and is no encoding of a
photograph. `low` can imitate that: it can be the result of a trained model, or be disturbed. And `high` can be the
latent of what a teacher makes of the decoded `low`, restored, instead of the photograph's; `photo` is then
the photograph's.

An upscale model learns from images. Its samples have no latents, but three images as bytes (3,H,W): `picture`, the
photograph; `reduced`, the reduced one; and `decoded`, D(low). Or, as in a second stage, `enlarged` in the place of the
last: what an upscale model makes of the decoded latent of the photograph that is reduced once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...codecs.protocol import Codec, codec_party
from ...errors import ConfigError, ImageError
from ...families import require_same_family
from ...imaging.resample import resize
from ...model import Model
from ...sampling.checks import check_pair
from ...sampling.guide import image_guide, pixel_upsample
from ...sampling.restore import restored
from ...sampling.upscale_model import UpscaleModel, enlarged
from ...sampling.upscaler import boost
from .degrade import Degradation, degrade, plan
from .encoding import PLAN, Encoding, drop_plan_without_shards, keep_plan
from .photos import View, load_view
from .shards import Sample, read_shard, write_shard

SHARD_VIEWS = 64
# Of a disturbed latent: greatest relative scaling and greatest shift of each channel, standard deviation of the noise.
SCALED, SHIFTED, NOISE = 0.05, 0.05, 0.05


def reduced(image: Tensor, scale: int, degradation: Degradation | None = None) -> Tensor:
    """The low-resolution image (1,3,H/scale,W/scale) of (1,3,H,W): bilinear with antialias, or degraded."""
    if degradation is None:
        return resize(image, (image.shape[-2] // scale, image.shape[-1] // scale))
    pixels = ((image[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    small = np.asarray(degrade(Image.fromarray(pixels), scale, degradation))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def disturbed(latent: Tensor, seed: int) -> Tensor:
    """A latent (1,C,h,w), each channel scaled and shifted a little, with white noise: more like a generated one."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, latent.shape[1], 1, 1)
    scale = 1 + SCALED * (2 * torch.rand(shape, generator=generator) - 1)
    shift = SHIFTED * (2 * torch.rand(shape, generator=generator) - 1)
    noise = NOISE * torch.randn(latent.shape, generator=generator)
    return latent * scale.to(latent) + shift.to(latent) + noise.to(latent)


def guides_of(
    low: Tensor, small: Tensor, size: tuple[int, int], kinds: Sequence[str], codec: Codec,
    upscale_model: UpscaleModel | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The guides of these kinds at size (height, width) in pixels: from the latent low, from the image small.

    upscale_model: of the kind "enlarged".
    """
    guides = {}
    if "latent" in kinds:
        guides["latent"] = pixel_upsample(low, codec, size)
    if "image" in kinds:
        guides["image"] = image_guide(small, codec, size)
    if "enlarged" in kinds:
        guides["enlarged"] = pixel_upsample(low, codec, size, upscale_model=upscale_model)
    return guides


def _as_bytes(image: Tensor) -> NDArray[np.uint8]:
    """An image (1,3,H,W) in [-1,1] as bytes (3,H,W)."""
    pixels: NDArray[np.uint8] = (image[0].float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels


class ShardMaker:
    """Makes the shards of a plan in a folder.

    Existing shards are kept, and so are the views of a shard that is not whole yet, each in a shard of its own, so a
    killed run loses one view.
    """

    def __init__(
        self, views: Sequence[View], how: Encoding, codec: Codec, out: Path, *, guide_codec: Codec | None = None,
        model: Model | None = None, teacher: UpscaleModel | None = None, upscale_model: UpscaleModel | None = None,
        device: torch.device | None = None,
    ) -> None:  # fmt: skip
        """guide_codec, model, teacher, upscale_model: those that `how` names; None: codec makes the guides, low latents
        are encodings, photographs are the ground truth, no guide is enlarged.

        Raises `LatentError` for codecs and a model of different families, `ConfigError` where the model cannot boost,
        its scale is no whole number, or `out` holds another plan.
        """
        self.views, self.how, self.out, self.device = views, how, out, device or torch.device("cpu")
        self.codec, self.guide_codec, self.model = codec, guide_codec or codec, model
        self.teacher, self.upscale_model = teacher, upscale_model
        require_same_family(codec_party(codec), codec_party(self.guide_codec))
        if model:
            check_pair(model, self.guide_codec)
        self.earlier = _whole_scale(model) if model else 1  # upscale factor of the stage before
        if how.images and upscale_model:
            self.earlier = how.scale
        self.skipped: list[str] = []
        plan = {"encoding": asdict(how), "views": [asdict(view) for view in views]}
        drop_plan_without_shards(out / PLAN, plan)
        keep_plan(out / PLAN, plan)

    @property
    def shards(self) -> list[int]:
        return list(range(-(-len(self.views) // SHARD_VIEWS)))

    def path(self, shard: int) -> Path:
        return self.out / f"shard-{shard:06d}.tar"

    def _part(self, number: int) -> Path:
        """The file of a view whose shard is not whole yet."""
        return self.out / f"view-{number:08d}.part"

    def make(self, shards: Sequence[int], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make those of the shards that do not exist. `skipped` lists the photographs that cannot be encoded.

        progress(views done, views in all) is called after each view.
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
            write_shard(self.path(shard), counted(map(self._kept, self._views(shard))))
        for shard in shards:
            for number, _ in self._views(shard):
                self._part(number).unlink(missing_ok=True)

    def _views(self, shard: int) -> list[tuple[int, View]]:
        """The views of a shard, each with its number."""
        first = shard * SHARD_VIEWS
        return list(enumerate(self.views[first : first + SHARD_VIEWS], first))

    def _kept(self, numbered: tuple[int, View]) -> Sample | None:
        """The sample of a view, from its own file where an earlier run has made it."""
        part = self._part(numbered[0])
        with suppress(ConfigError):
            if part.exists():
                return read_shard(part)[0]
        sample = self._sample(numbered)
        if sample is not None:
            write_shard(part, [sample])
        return sample

    @torch.inference_mode()
    def _sample(self, numbered: tuple[int, View]) -> Sample | None:
        """The sample of a view; None for a photograph that cannot be read or is too small."""
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
        facts = {
            "view": asdict(view), "scale": how.scale, "guide_codec": how.guide_codec, "boosted": how.boosted,
            "disturb": how.disturb, "teacher": how.teacher, "upscale_model": how.upscale_model,
            "degradation": degradation and json.loads(degradation.as_json()),
        }  # fmt: skip
        arrays = self._images(image, small, low) if how.images else self._latents(image, small, low)
        return Sample(f"{number:08d}", facts, arrays)

    def _images(self, image: Tensor, small: Tensor, low: Tensor) -> dict[str, NDArray[Any]]:
        shown = {"picture": image, "reduced": small}
        decoded = self.guide_codec.decode(low)
        if self.upscale_model is None:
            shown["decoded"] = decoded
        else:
            shown["enlarged"] = enlarged(decoded.clamp(-1, 1), (small.shape[-2], small.shape[-1]), self.upscale_model)
        return {name: _as_bytes(pixels) for name, pixels in shown.items()}

    def _latents(self, image: Tensor, small: Tensor, low: Tensor) -> dict[str, NDArray[Any]]:
        how, size = self.how, (image.shape[-2], image.shape[-1])
        truth = image.to(self.device)
        if self.teacher is not None:
            seen = self.guide_codec.decode(low).clamp(-1, 1)
            truth = enlarged(seen, size, self.teacher)
            truth = restored(truth, seen, look=False) if how.restore else truth
        arrays = {"high": self.codec.encode(truth), "low": low}
        if self.teacher is not None:
            arrays["photo"] = self.codec.encode(image.to(self.device))
        arrays |= guides_of(low, small, size, how.guides, self.guide_codec, self.upscale_model)
        return {name: latent[0].half().cpu().numpy() for name, latent in arrays.items()}

    def _low(self, small: Tensor, seed: int) -> Tensor:
        low = self.guide_codec.encode(reduced(small, self.earlier) if self.earlier > 1 else small)
        if self.model is not None:
            low = boost(low, self.model, self.guide_codec, seed=seed)
        return disturbed(low, seed) if self.how.disturb else low


def _whole_scale(model: Model) -> int:
    if model.spec.scale != round(model.spec.scale):
        raise ConfigError(
            f"A model that boosts low latents must have a whole scale, but {model.spec.name} has {model.spec.scale:g}."
        )
    return round(model.spec.scale)
