"""How views become samples, and the plan of a folder of shards: what is in it, and how that was encoded."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, FMBoostWarning
from ...files.atomic import replacing
from ...networks.conditioning import ENCODED_KINDS
from .photos import View

PLAN = "encode.json"  # in the folder of the shards: their views and how they were encoded


@dataclass(frozen=True)
class Encoding:
    """How views become samples.

    scale: upscale factor to train for, a whole number from 2 to 16.
    guides: which of `ENCODED_KINDS` to make.
    upscale_model: name and hash of the upscale model of the guides "enlarged", or of images as in a second stage; "":
        there are none.
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
    restore: whether the teacher's images are restored, for teachers that shift tones.
    images: whether samples are images in the place of latents, for an upscale model to learn from.
    boosted and disturb make guides from latents alone.
    """

    scale: int = 2
    guides: tuple[str, ...] = ("latent", "image")
    upscale_model: str = ""
    guide_codec: str = ""
    degrade: bool = False
    seed: int = 0
    codec: str = ""
    boosted: str = ""
    disturb: bool = False
    teacher: str = ""
    restore: bool = True
    images: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.scale <= 16:
            raise ConfigError(f"scale must be a whole number from 2 to 16, but it is {self.scale!r}.")
        if not self.guides or not set(self.guides) <= set(ENCODED_KINDS):
            raise ConfigError(f"guides must be some of {', '.join(ENCODED_KINDS)}, but they are {list(self.guides)}.")
        if (self.boosted or self.disturb) and "image" in self.guides:
            raise ConfigError("Boosted and disturbed latents make guides from latents alone: leave out the kind image.")
        if not self.images and ("enlarged" in self.guides) != bool(self.upscale_model):
            raise ConfigError('Guides "enlarged" and an upscale model go together: give both, or neither.')
        if not self.restore and not self.teacher:
            raise ConfigError("Only a teacher's images are restored; leave --no-restore out, or name a teacher.")
        if self.images and (self.teacher or "enlarged" in self.guides):
            raise ConfigError("Images have neither a teacher nor guides; leave them out, or leave --images out.")
        if self.images and self.upscale_model and self.boosted:
            raise ConfigError("Two stages before the one that is trained are too many: leave out --boosted.")


def drop_plan_without_shards(path: Path, now: dict[str, Any]) -> None:
    """Forget another plan that has made no shard yet, with the views that it has made."""
    if any(path.parent.glob("shard-*.tar")):
        return
    try:
        same = _with_defaults(json.loads(path.read_text(encoding="utf-8"))) == json.loads(json.dumps(now))
    except OSError:  # there is none, or `keep_plan` says what is wrong
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


def keep_plan(path: Path, now: dict[str, Any]) -> None:
    """Write the plan, or refuse to mix its shards with those of another plan."""
    now = json.loads(json.dumps(now))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    except OSError as error:
        raise ConfigError(f"The folder {path.parent} cannot be used ({error.strerror}); choose another one.") from None
    except ValueError:
        raise ConfigError(f"{path} is damaged; delete the folder's shards with it and encode again.") from None
    before = _with_defaults(before)
    if before != now:
        different = ", ".join(key for key in now if not isinstance(before, dict) or before.get(key) != now[key])
        raise ConfigError(
            f"{path.parent} holds shards of another plan (different: {different}); take another folder, "
            "or the same photographs and options to continue."
        )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(now), encoding="utf-8")


def _with_defaults(plan: Any) -> Any:
    """A plan as JSON holds it; an option that an older version did not have was at its default."""
    if isinstance(plan, dict) and isinstance(plan.get("encoding"), dict):
        plan["encoding"] = json.loads(json.dumps(asdict(Encoding()))) | plan["encoding"]
        plan["views"] = [asdict(View("")) | view for view in plan.get("views", [])]
    return plan
