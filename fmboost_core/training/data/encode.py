"""Encoding of photographs to shards of latents, once, so that training never runs a codec.

The arrays of a sample, all fp16: `high` (C,h,w), the latent of the photograph; `low`, the latent of the reduced
photograph; and guides of the size of high, named after `ENCODED_KINDS`: `latent`, E(UP(D(low))), and `image`,
E(UP(reduced photograph)).

At sampling, a low-resolution latent comes from a diffusion model or an earlier stage and is no encoding of a
photograph. `low` can imitate that: it can be the result of a trained model, or be disturbed. And `high` can be the
latent of what a teacher makes of the decoded `low`, restored, instead of the photograph's; `photo` is then
the photograph's.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...codecs.protocol import Codec, codec_party
from ...errors import ConfigError, FMBoostWarning, ImageError
from ...families import require_same_family
from ...files.atomic import replacing
from ...imaging.resample import resize
from ...model import Model
from ...networks.conditioning import ENCODED_KINDS
from ...sampling.checks import check_pair
from ...sampling.guide import image_guide, pixel_upsample
from ...sampling.restore import restored
from ...sampling.upscale_model import UpscaleModel, enlarged
from ...sampling.upscaler import boost
from .degrade import Degradation, degrade, plan
from .photos import View, load_view
from .shards import Sample, read_shard, write_shard

SHARD_VIEWS = 64
PLAN = "encode.json"  # in the folder of the shards: their views and how they were encoded
# Of a disturbed latent: greatest relative scaling and greatest shift of each channel, standard deviation of the noise.
SCALED, SHIFTED, NOISE = 0.05, 0.05, 0.05


@dataclass(frozen=True)
class Encoding:
    """How views become samples.

    scale: upscale factor to train for, a whole number from 2 to 16.
    guides: which of `ENCODED_KINDS` to make.
    guide_codec: name of another codec of the same latent space that makes the low latents and guides; "": the one that
        makes the high latents.
    degrade: whether reduced photographs are degraded too, by blur, noise and JPEG (`degrade`), view i with seed + i.
    seed: of degradations, disturbances and boosting.
    codec: name of the codec that makes the high latents, so that shards of two codecs are not mixed.
    boosted: name and hash of the model whose results are the low latents, as in a second stage; it starts from
        photographs that are reduced once more. "": low latents are encodings.
    disturb: whether low latents are `disturbed`.
    teacher: name and hash of the upscale model whose images of the decoded low latents are the ground truth; "":
        photographs are. Where a photograph has detail that no small latent tells of, a network that learns it is torn
        between many answers, and edges fray; an upscaler's answer follows from the small latent alone, so it can be
        learned (Hinton et al. 2015).
    boosted and disturb make guides from latents alone.
    """

    scale: int = 2
    guides: tuple[str, ...] = ENCODED_KINDS
    guide_codec: str = ""
    degrade: bool = False
    seed: int = 0
    codec: str = ""
    boosted: str = ""
    disturb: bool = False
    teacher: str = ""

    def __post_init__(self) -> None:
        if not 2 <= self.scale <= 16:
            raise ConfigError(f"scale must be a whole number from 2 to 16, but it is {self.scale!r}.")
        if not self.guides or not set(self.guides) <= set(ENCODED_KINDS):
            raise ConfigError(f"guides must be {', '.join(ENCODED_KINDS)} or both, but they are {list(self.guides)}.")
        if (self.boosted or self.disturb) and tuple(self.guides) != ("latent",):
            raise ConfigError("Boosted and disturbed latents make guides from latents alone: take --guides latent.")


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
    low: Tensor, small: Tensor, size: tuple[int, int], kinds: Sequence[str], codec: Codec
) -> dict[str, Tensor]:
    """The guides of these kinds at size (height, width) in pixels: from the latent low, from the image small."""
    guides = {}
    if "latent" in kinds:
        guides["latent"] = pixel_upsample(low, codec, size)
    if "image" in kinds:
        guides["image"] = image_guide(small, codec, size)
    return guides


class ShardMaker:
    """Makes the shards of a plan in a folder.

    Existing shards are kept, and so are the views of a shard that is not whole yet, each in a shard of its own, so a
    killed run loses one view.
    """

    def __init__(
        self, views: Sequence[View], how: Encoding, codec: Codec, out: Path, *, guide_codec: Codec | None = None,
        model: Model | None = None, teacher: UpscaleModel | None = None, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        """guide_codec, model, teacher: those that `how` names; None: codec makes the guides, low latents are encodings,
        photographs are the ground truth.

        Raises `LatentError` for codecs and a model of different families, `ConfigError` where the model cannot boost,
        its scale is no whole number, or `out` holds another plan.
        """
        self.views, self.how, self.out, self.device = views, how, out, device or torch.device("cpu")
        self.codec, self.guide_codec, self.model, self.teacher = codec, guide_codec or codec, model, teacher
        require_same_family(codec_party(codec), codec_party(self.guide_codec))
        if model:
            check_pair(model, self.guide_codec)
        self.earlier = _whole_scale(model) if model else 1  # upscale factor of the model's stage before
        self.skipped: list[str] = []
        plan = {"encoding": asdict(how), "views": [asdict(view) for view in views]}
        _drop_plan_without_shards(out / PLAN, plan)
        _keep_plan(out / PLAN, plan)

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
        size = (image.shape[-2], image.shape[-1])
        truth = image.to(self.device)
        if self.teacher is not None:
            seen = self.guide_codec.decode(low).clamp(-1, 1)
            truth = restored(enlarged(seen, size, self.teacher), seen, look=False)  # teachers shift tones
        arrays = {"high": self.codec.encode(truth), "low": low}
        if self.teacher is not None:
            arrays["photo"] = self.codec.encode(image.to(self.device))
        arrays |= guides_of(low, small, size, how.guides, self.guide_codec)
        facts = {
            "view": asdict(view), "scale": how.scale, "guide_codec": how.guide_codec, "boosted": how.boosted,
            "disturb": how.disturb, "teacher": how.teacher,
            "degradation": degradation and json.loads(degradation.as_json()),
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
            f"A model that boosts low latents must have a whole scale, but {model.spec.name} has {model.spec.scale:g}."
        )
    return round(model.spec.scale)


def _drop_plan_without_shards(path: Path, now: dict[str, Any]) -> None:
    """Forget another plan that has made no shard yet, with the views that it has made."""
    if any(path.parent.glob("shard-*.tar")):
        return
    try:
        same = json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(now))
    except OSError:  # there is none, or `_keep_plan` says what is wrong
        return
    except ValueError:
        same = False
    if same:
        return
    parts = list(path.parent.glob("view-*.part"))
    for part in parts:
        part.unlink()
    if parts:
        sentence = f"{len(parts)} views in {path.parent} were encoded by another plan, and are encoded again."
        warnings.warn(sentence, FMBoostWarning, stacklevel=3)
    path.unlink()


def _keep_plan(path: Path, now: dict[str, Any]) -> None:
    """Write the plan, or refuse to mix its shards with those of another plan."""
    now = json.loads(json.dumps(now))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    except OSError as error:
        raise ConfigError(f"The folder {path.parent} cannot be used ({error.strerror}); choose another one.") from None
    except ValueError:
        raise ConfigError(f"{path} is damaged; delete the folder's shards with it and encode again.") from None
    if isinstance(before, dict) and isinstance(before.get("encoding"), dict):
        # An option that an older version did not have was at its default.
        before["encoding"] = json.loads(json.dumps(asdict(Encoding()))) | before["encoding"]
        before["views"] = [asdict(View("")) | view for view in before.get("views", [])]
    if before != now:
        different = ", ".join(key for key in now if not isinstance(before, dict) or before.get(key) != now[key])
        raise ConfigError(
            f"{path.parent} holds shards of another plan (different: {different}); take another folder, "
            "or the same photographs and options to continue."
        )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(now), encoding="utf-8")
