"""The loss of FMBoost's own codec: a student of another codec's latents."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ...codecs.tiny import TinyVAE

LATENT_WEIGHT = 0.2  # a latent error of 0.1 then weighs as much as a pixel error of 23 dB


class CodecPasses(nn.Module):
    """Three passes of a codec as one network: encode, decode the teacher's latent, decode its own latent."""

    def __init__(self, codec: TinyVAE) -> None:
        super().__init__()
        self.codec: TinyVAE = codec

    def forward(self, photos: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self.codec.encoder((photos + 1) / 2)
        return encoded, self.codec.decoder(latents) * 2 - 1, self.codec.decoder(encoded) * 2 - 1


def codec_loss(network: Callable[..., tuple[Tensor, Tensor, Tensor]], photos: Tensor, latents: Tensor) -> Tensor:
    """Squared errors of the latent against the teacher's, and of both decoded images against the photograph.

    photos (B,3,8h,8w) in [-1,1]; latents (B,C,h,w) of the teacher. network: `CodecPasses`.
    """
    encoded, from_teacher, from_own = (x.float() for x in network(photos, latents))
    return LATENT_WEIGHT * mse_loss(encoded, latents) + mse_loss(from_teacher, photos) + mse_loss(from_own, photos)
