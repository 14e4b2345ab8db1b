"""Pretrained models that an evaluation was asked to use: a feature network for FID, and CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..files.weight_file import sha256_of
from .clip import Clip, load_clip
from .features import Patches, features, load_feature_network


@dataclass(frozen=True)
class PerceptualModels:
    """The models, each None where it was not asked for, and where they came from.

    network, patches: for FID and patch FID; inception: the network's file, by a digest. clip_place: as typed.
    """

    network: nn.Module | None = None
    patches: Patches | None = None
    inception: str | None = None
    clip: Clip | None = None
    clip_place: str | None = None

    @classmethod
    def load(cls, inception: Path | None, patches: int, patch_size: int, clip: str | None) -> PerceptualModels:
        """Load from a TorchScript file and a place of CLIP; patches: crops of an image for p-FID, 0 for none."""
        network = load_feature_network(inception) if inception else None
        return cls(
            network,
            Patches(patches, patch_size) if network and patches else None,
            sha256_of(inception)[:16] if inception else None,
            load_clip(clip) if clip else None,
            clip,
        )

    def settings(self) -> dict[str, Any]:
        """The settings of results that these models decide."""
        patches = f"{self.patches.count} of {self.patches.side}" if self.patches else None
        return {"inception": self.inception, "patches": patches, "clip": self.clip_place}

    def features(self, image: Tensor, key: str) -> dict[str, Tensor]:
        """The features of an image (1,3,H,W) for FID and of its patches for p-FID; key: seeds the patches' places."""
        if self.network is None:
            return {}
        found = {"fid": features(self.network, image)}
        if self.patches is not None:
            found["p_fid"] = features(self.network, self.patches.cut(image, key))
        return found

    def rate(self, image: Tensor, photo: Path) -> dict[str, float]:
        """CLIP's figures: "clip_iqa", and "clip" where a .txt beside the photograph has a caption."""
        if self.clip is None:
            return {}
        caption = photo.with_suffix(".txt")
        score = {"clip": self.clip.score(image, caption.read_text("utf-8").strip())} if caption.is_file() else {}
        return {"clip_iqa": self.clip.quality(image), **score}
