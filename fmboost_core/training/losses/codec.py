"""What our own codec learns, beside a teacher's latents."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ...codecs.tiny import TinyVAE

LATENT_WEIGHT = 0.2  # of the loss: a latent error of 0.1 weighs like a picture's of 23 dB


class CodecPasses(nn.Module):
    """The codec's three ways, as one network to train: encode, decode the teacher's latent, decode its own."""

    def __init__(self, codec: TinyVAE) -> None:
        super().__init__()
        self.codec: TinyVAE = codec

    def forward(self, photos: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self.codec.encoder((photos + 1) / 2)
        return encoded, self.codec.decoder(latents) * 2 - 1, self.codec.decoder(encoded) * 2 - 1


def codec_loss(network: Callable[..., tuple[Tensor, Tensor, Tensor]], photos: Tensor, latents: Tensor) -> Tensor:
    """Squared errors of the latent against the teacher's, and of both decodings against the photograph.

    photos (B,3,8h,8w) in [-1,1]; latents (B,C,h,w) of the teacher. network: `CodecPasses`.
    """
    encoded, from_teacher, from_own = (x.float() for x in network(photos, latents))
    return LATENT_WEIGHT * mse_loss(encoded, latents) + mse_loss(from_teacher, photos) + mse_loss(from_own, photos)
