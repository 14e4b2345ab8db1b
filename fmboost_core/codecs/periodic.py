"""A codec for tileable images: no end of an image or a latent is an edge."""

from __future__ import annotations

from torch import Tensor

from ..families import Party
from ..tiles import Tileable, with_margins, without_margins
from .protocol import Codec, codec_party

_USUAL_RADIUS = 24  # latents; a VAE's convolutions reach about 20 far


class PeriodicCodec:
    """A codec as one of tileable images and latents, which it continues at their other end.

    Images have sides of whole latents along the tileable axes. The margins are as wide as the codec's `radius` in
    latents, where it tells one, so that the result along a seam is that within; a VAE whose norms and attention see the
    whole image comes close to that.
    """

    def __init__(self, codec: Codec, tileable: Tileable) -> None:
        self._codec, self._margins = codec, tileable.margins(int(getattr(codec, "radius", _USUAL_RADIUS)))
        self.channels, self.downscale_factor = codec.channels, codec.downscale_factor
        self.family: str | None = getattr(codec, "family", None)
        self.party: Party = codec_party(codec)

    @property
    def _margins_in_pixels(self) -> tuple[int, int]:
        return self._margins[0] * self.downscale_factor, self._margins[1] * self.downscale_factor

    def encode(self, images: Tensor) -> Tensor:
        """See `Codec`."""
        return without_margins(self._codec.encode(with_margins(images, self._margins_in_pixels)), self._margins)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Codec`."""
        return without_margins(self._codec.decode(with_margins(latents, self._margins)), self._margins_in_pixels)


def periodic(codec: Codec, tileable: Tileable) -> Codec:
    """The codec itself where no axis is tileable, otherwise a `PeriodicCodec`."""
    return PeriodicCodec(codec, tileable) if any(tileable) else codec
