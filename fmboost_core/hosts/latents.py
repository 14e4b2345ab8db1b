"""Latents as the pipelines of diffusers give them: (B,C,h,w) scaled, or packed as those of FLUX.1."""

from __future__ import annotations

from torch import Tensor

from ..errors import ConfigError, LatentError
from ..families import FAMILIES, Party, require_same_family
from ..model import Model

PATCH = 2  # latents along each side of a packed position


def unpacked(latents: Tensor, model: Model, height: int | None, width: int | None) -> Tensor:
    """Packed latents (B, h/2 * w/2, 4C) as (B,C,h,w); any others as they are.

    height, width: of the small image in pixels, as the pipeline that packed them had them. Raises `ConfigError` where
    packed latents come without them, `LatentError` for latents of other channels or of another size.
    """
    if not isinstance(latents, Tensor) or latents.ndim != 3:
        return latents
    batch, count, values = latents.shape
    channels = values // PATCH**2
    known = channels in {family.channels for family in FAMILIES.values()} and values % PATCH**2 == 0
    require_same_family(model.party, Party("the latent", None, channels if known else values, is_latent=True))
    if height is None or width is None:
        raise ConfigError(
            f"The latents are packed, {count} positions of {values} values, which do not tell their height and width; "
            "give the small image's in pixels as source_height and source_width."
        )
    side = PATCH * FAMILIES[model.spec.family].downscale_factor
    rows, columns = int(height) // side, int(width) // side
    if rows * columns != count:
        raise LatentError(
            f"The latents are packed in {count} positions, but an image of {width}x{height} has {columns}x{rows}; give "
            "source_height and source_width as the pipeline had them."
        )
    cut = latents.reshape(batch, rows, columns, channels, PATCH, PATCH)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, PATCH * rows, PATCH * columns)
