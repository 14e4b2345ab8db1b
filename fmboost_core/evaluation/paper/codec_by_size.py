"""The study "codec": what the codec loses, by the size of the image (arXiv's Table 7)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...codecs.protocol import Codec
from ...errors import ConfigError
from ...metrics.image_metrics import measure
from ..markdown import markdown
from ..output import write_text
from ..photographs import centre_square, decoded, load_photo
from ..summary import summarise
from .setup import AblationSetup

SIZES = (128, 256, 512, 1024)


def codec_by_size(setup: AblationSetup) -> None:
    """Write OUT/codec.md: the round trip's metrics at each size, of the same photographs."""
    results: dict[str, dict[str, dict[str, float]]] = {f"{size} px": {} for size in SIZES}
    for name, path in setup.photos.items():
        photo = load_photo(path, 10**6, 1)
        if min(photo.shape[-2:]) >= SIZES[-2]:
            for size in SIZES:
                if min(photo.shape[-2:]) >= size:
                    results[f"{size} px"][name] = _round_trip(centre_square(photo, size), setup.codec)
    results = {size: figures for size, figures in results.items() if figures}
    if not results:
        raise ConfigError(
            f"No photograph has {SIZES[-2]} pixels a side, which are needed to compare the codec by size; add larger "
            "ones."
        )
    # One table holds only common photographs, so a size that few photographs reach is summarised on its own.
    tables = {size: summarise({size: figures})[size] for size, figures in results.items()}
    counts = ", ".join(f"{size}: {len(figures)}" for size, figures in results.items())
    text = (
        "# codec\n\nHow much does the codec lose, by the size of the image? Paper: arXiv's Table 7.\n\nThe centre "
        f"square of a photograph, resized to each size, encoded and decoded. Photographs: {counts}.\n\n"
    )
    write_text(setup.out / "codec.md", text + markdown(tables))


@torch.no_grad()
def _round_trip(photo: Tensor, codec: Codec) -> dict[str, float]:
    return measure(decoded(codec, codec.encode(photo)), photo, ("psnr", "ssim", "haarpsi", "detail"))
