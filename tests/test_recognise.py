"""SD1.5's and SDXL's latents, told apart by their statistics."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fmboost_core.codecs.load import load_codec
from fmboost_core.families import FAMILIES
from fmboost_core.recognition import recognise

CODEC = cache(load_codec)


def raw_latent(prefix: Path, family: str, image: torch.Tensor) -> torch.Tensor:
    return CODEC(prefix).encode(image) / FAMILIES[family].scaling_factor


def test_photographs_are_told_apart(shared: Path) -> None:
    """Of photographs that it was not fitted to, none is taken for the other family's, and most are known."""
    verdicts: dict[str, list[str | None]] = {"sd15": [], "sdxl": []}
    for path in sorted((shared / "photos/val").glob("*.jpg"))[::4]:
        photo = np.array(Image.open(path).convert("RGB"))[:256, :256]
        if min(photo.shape[:2]) < 256:
            continue
        image = torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1
        for family, prefix in (("sd15", "taesd"), ("sdxl", "taesdxl")):
            verdicts[family].append(recognise(raw_latent(shared / "taesd" / prefix, family, image)))
    for family, found in verdicts.items():
        wrong = [name for name in found if name not in (None, family)]
        assert not wrong and found.count(family) >= 0.6 * len(found) > 5


@pytest.mark.parametrize(
    "raw",
    [
        torch.zeros(1, 4, 32, 32),
        torch.randn(1, 16, 32, 32) * 5,
        torch.randn(1, 4, 31, 32) * 20,
        torch.full((1, 4, 32, 32), float("nan")),
        torch.zeros(1, 4, 0, 32),
    ],
    ids=["flat", "other channels", "small", "nan", "empty"],
)
def test_what_says_nothing_is_none(raw: torch.Tensor) -> None:
    assert recognise(raw) is None


def test_a_batch_must_agree() -> None:
    quiet, loud = torch.randn(1, 4, 32, 32), torch.randn(1, 4, 32, 32) * 20
    assert recognise(quiet) == "sd15" and recognise(loud) == "sdxl"
    assert recognise(torch.cat([quiet, loud])) is None
