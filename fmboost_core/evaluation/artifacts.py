"""Features and crops of a run's images, kept beside its results so that the run can be continued."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ConfigError, reason
from ..files.atomic import replacing
from ..imaging.compare import Panel, busiest_corner
from ..imaging.picture import Picture
from ..imaging.write import preview, save_image
from .features import frechet
from .perceptual import PerceptualModels

REFERENCE = "truth"  # what the reference images are called in the folders of results; no method may have this name
CROP = 192  # pixels a side
SHEET_ROWS = 4  # photographs of a contact sheet


@dataclass(frozen=True)
class Artifacts:
    """The folder of the results, and the models whose features are kept there."""

    folder: Path
    models: PerceptualModels = field(default_factory=PerceptualModels)

    def complete(self, method: str, photo: str) -> bool:
        """Whether all features that are asked for are kept."""
        return self.models.network is None or self._features(method, photo).is_file()

    def keep_features(self, method: str, photo: str, image: Tensor) -> None:
        """Keep the features of an image (1,3,H,W) in [-1,1] and of its patches, where a network is asked for."""
        found = self.models.features(image, photo)
        if found:
            path = self._features(method, photo)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file(found, temporary)

    def distances(self, method: str, photos: Sequence[str]) -> dict[str, float]:
        """FID and p-FID of a method's images of these photographs; none for fewer than two."""
        if self.models.network is None or len(photos) < 2:
            return {}
        found, reference = (self._all_features(m, photos) for m in (method, REFERENCE))
        return {name: frechet(found[name], reference[name]) for name in found}

    def keep_crop(self, method: str, photo: str, image: Tensor, reference: Tensor) -> None:
        """Keep an image's crop for the contact sheet, where the reference has most detail."""
        size = (min(CROP, reference.shape[-1]), min(CROP, reference.shape[-2]))
        left, top = busiest_corner(preview(Picture(reference)), size)
        path = self._crop(method, photo)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(path, preview(Picture(image)).crop((left, top, left + size[0], top + size[1])))

    def panels(self, methods: Sequence[str], photos: Sequence[str]) -> list[list[Panel]]:
        """The kept crops: a row for each photograph that has all of them, with titles above the first row."""
        methods = [REFERENCE, *methods]
        titles = ["reference", *methods[1:]]
        rows: list[list[Panel]] = []
        for photo in photos:
            paths = [self._crop(method, photo) for method in methods]
            if all(path.is_file() for path in paths):
                shown = titles if not rows else [""] * len(methods)
                captions = [photo] + [""] * (len(methods) - 1)
                rows.append([Panel(Image.open(p), t, c) for p, t, c in zip(paths, shown, captions, strict=True)])
        return rows

    def _all_features(self, method: str, photos: Sequence[str]) -> dict[str, Tensor]:
        tables = [_read_features(self._features(method, photo)) for photo in photos]
        return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}

    def _features(self, method: str, photo: str) -> Path:
        return self.folder / "features" / _folder_name(method) / f"{_digest(photo)}.safetensors"

    def _crop(self, method: str, photo: str) -> Path:
        return self.folder / "crops" / _folder_name(method) / f"{_digest(photo)}.png"


def _read_features(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} is damaged ({reason(error)}); delete it, and the run makes it again.") from None


def _folder_name(method: str) -> str:
    """A method's folder; the digest keeps apart names that differ in punctuation only."""
    return re.sub(r"[^\w.-]+", "-", method) + "-" + _digest(method)[:6]


def _digest(text: str) -> str:
    """A file name for a text that may hold slashes."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
