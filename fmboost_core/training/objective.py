"""What is learned: the velocity by coupling flow matching, and our own codec beside a teacher's latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..codec import TinyVAE
from ..schedule import noise_augment

LATENT_WEIGHT = 0.2  # of the codec's loss: a latent error of 0.1 weighs like a picture's of 23 dB

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # x_t, t, guide -> dx/dt


def cfm_loss(network: Velocity, high: Tensor, guide: Tensor, alpha_bar: float, noise: Tensor, t: Tensor) -> Tensor:
    """Mean squared error between v(x_t, t, guide) and x1 - x0 on the straight line between them (paper eq. 5-8).

    high (x1), guide, noise: (B,C,h,w); t (B,) in [0,1]. x0 = sqrt(alpha_bar) guide + sqrt(1 - alpha_bar) noise.
    """
    start = noise_augment(guide, alpha_bar, noise)
    state = torch.lerp(start, high, t.view(-1, 1, 1, 1))
    return mse_loss(network(state, t, guide).float(), high - start)


def draw_times(count: int, start_share: float, generator: torch.Generator) -> Tensor:
    """Times (count,) uniform in [0,1), but a share of them exactly 0, all that a single evaluation ever asks for."""
    times = torch.rand(count, generator=generator)
    return times.where(torch.rand(count, generator=generator) >= start_share, 0.0)


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
