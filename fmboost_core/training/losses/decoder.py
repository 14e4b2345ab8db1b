"""A codec's decoder, as training uses it."""

from __future__ import annotations

from torch import Tensor, nn

from ...codecs.kl import KLCodec
from ...codecs.tiny import TinyVAE


class Decoder(nn.Module):
    """A codec's decoder as a network in training: scaled latents (B,C,h,w) -> images (B,3,8h,8w), about in [-1,1].

    A tiny VAE's runs whole and in the type that autocast gives it, unlike `decode`.
    """

    def __init__(self, codec: TinyVAE | KLCodec) -> None:
        super().__init__()
        self.codec = codec.requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        if isinstance(self.codec, KLCodec):
            return self.codec.decode(latents)
        return self.codec.decoder(latents) * 2 - 1
