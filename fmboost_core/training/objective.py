"""What is learned: the velocity by coupling flow matching, and our own codec beside a teacher's latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..codec import TinyVAE
from ..schedule import noise_augment

STRAIGHT_FROM = 0.25  # the first of the four Euler steps that most people will take
TEACHER_STEPS = 6  # Euler's, from there to the end
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


def straight_times(count: int, generator: torch.Generator) -> Tensor:
    """Times (count,) for `straight_loss`: a third 0, a third those of four Euler steps, a third all that is later."""
    later = STRAIGHT_FROM + (1 - STRAIGHT_FROM) * torch.rand(count, generator=generator)
    fourths = torch.randint(1, 4, (count,), generator=generator) / 4
    which = torch.rand(count, generator=generator)
    return later.where(which > 2 / 3, fourths).where(which > 1 / 3, 0.0)


def straight_loss(
    network: Velocity, teacher: Velocity, high: Tensor, guide: Tensor, alpha_bar: float, noise: Tensor, t: Tensor
) -> Tensor:
    """Reflow (Liu et al., arXiv 2209.03003) of the way after `STRAIGHT_FROM` alone, so that few steps lose less.

    The teacher's own way from there to its end, in small steps, becomes a straight line, and the network learns its
    velocity. At t = 0 it goes on with `cfm_loss`: one evaluation from there is the conditional mean, and stays it.
    t: from `straight_times`; the others as in `cfm_loss`.
    """
    start = noise_augment(guide, alpha_bar, noise)
    corner, end = _way(teacher, start, guide)
    first = (t == 0).view(-1, 1, 1, 1)
    along = torch.lerp(corner, end, ((t - STRAIGHT_FROM) / (1 - STRAIGHT_FROM)).view(-1, 1, 1, 1))
    target = torch.where(first, high - start, (end - corner) / (1 - STRAIGHT_FROM))
    return mse_loss(network(torch.where(first, start, along), t, guide).float(), target)


@torch.no_grad()
def _way(teacher: Velocity, start: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
    """Where the teacher's first Euler step of four ends, and where small ones from there do."""
    now = torch.ones(start.shape[0])
    corner = start + STRAIGHT_FROM * teacher(start, 0 * now, guide).float()
    step, x = (1 - STRAIGHT_FROM) / TEACHER_STEPS, corner
    for i in range(TEACHER_STEPS):
        x = x + step * teacher(x, (STRAIGHT_FROM + i * step) * now, guide).float()
    return corner, x


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
