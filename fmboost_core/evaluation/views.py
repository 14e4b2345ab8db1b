"""What networks see in the pictures of a run, kept beside its results so that it can go on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import ConfigError, reason
from ..files.atomic import replacing
from ..imaging.compare import Panel, busiest_corner
from ..imaging.picture_file import Picture, preview, save_image
from .features import Clip, Patches, features, frechet

TRUTH = "truth"
CROP, SHEET_ROWS = 192, 4


@dataclass(frozen=True)
class Views:
    """Where to keep views, and the networks that have them; None: none is asked for."""

    folder: Path
    network: nn.Module | None = None
    patches: Patches | None = None
    clip: Clip | None = None

    def kept(self, method: str, photo: str) -> bool:
        """Whether all that is kept of a picture is there."""
        return self.network is None or self._features(method, photo).is_file()

    def keep(self, method: str, photo: str, picture: Tensor) -> None:
        """Keep the features of a picture (1,3,H,W) in [-1,1] and of its patches."""
        if self.network is None:
            return
        found = {"fid": features(self.network, picture)}
        if self.patches is not None:
            found["p_fid"] = features(self.network, self.patches.cut(picture, photo))
        path = self._features(method, photo)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(found, temporary)

    def rate(self, picture: Tensor, photo: Path) -> dict[str, float]:
        """CLIP's figures: "clip_iqa", and "clip" where the photograph has a caption in a .txt beside it."""
        if self.clip is None:
            return {}
        caption = photo.with_suffix(".txt")
        score = {"clip": self.clip.score(picture, caption.read_text("utf-8").strip())} if caption.is_file() else {}
        return {"clip_iqa": self.clip.quality(picture), **score}

    def distances(self, method: str, photos: Sequence[str]) -> dict[str, float]:
        """FID and p-FID of a method's pictures of these photographs; nothing for a single one."""
        if self.network is None or len(photos) < 2:
            return {}
        found, true = (self._all_features(m, photos) for m in (method, TRUTH))
        return {name: frechet(found[name], true[name]) for name in found}

    def _all_features(self, method: str, photos: Sequence[str]) -> dict[str, Tensor]:
        tables = [_read_features(self._features(method, photo)) for photo in photos]
        return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}

    def _features(self, method: str, photo: str) -> Path:
        return self.folder / "features" / _file_name(method) / f"{_short(photo)}.safetensors"

    def keep_crop(self, method: str, photo: str, picture: Tensor, truth: Tensor) -> None:
        """Keep a picture's crop, where the truth has most detail, for the contact sheet."""
        size = (min(CROP, truth.shape[-1]), min(CROP, truth.shape[-2]))
        left, top = busiest_corner(preview(Picture(truth)), size)
        path = self._crop(method, photo)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(path, preview(Picture(picture)).crop((left, top, left + size[0], top + size[1])))

    def panels(self, methods: Sequence[str], photos: Sequence[str]) -> list[list[Panel]]:
        """A row of kept crops for each photograph that has them all, titles above the first."""
        rows: list[list[Panel]] = []
        for photo in photos:
            paths = [self._crop(method, photo) for method in methods]
            if all(path.is_file() for path in paths):
                titles = methods if not rows else [""] * len(methods)
                captions = [photo] + [""] * (len(methods) - 1)
                rows.append([Panel(Image.open(p), t, c) for p, t, c in zip(paths, titles, captions, strict=True)])
        return rows

    def _crop(self, method: str, photo: str) -> Path:
        return self.folder / "crops" / _file_name(method) / f"{_short(photo)}.png"


def _read_features(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} is damaged ({reason(error)}); delete it, and the run makes it again.") from None


def _file_name(method: str) -> str:
    """A method's name as a folder's, with a digest that keeps apart what only punctuation does."""
    return re.sub(r"[^\w.-]+", "-", method) + "-" + _short(method)[:6]


def _short(text: str) -> str:
    """A file name for a name that may hold slashes."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
