"""A network with its specification."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .networks.config import GUIDE_KINDS
from .networks.unet import LatentUNet
from .spec import ModelSpec

_ALIVE = 32  # about so many values a position and base channel are alive at once in an evaluation


class Model:
    """A network with its specification."""

    def __init__(self, spec: ModelSpec, network: LatentUNet) -> None:
        self.spec, self.network = spec, network.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Model:
        """Move the network in place; returns self."""
        self.network.to(device=device, dtype=dtype)
        return self

    def working_memory(self, positions: int, dtype: torch.dtype) -> int:
        """Bytes, about, that an evaluation over so many positions (B*h*w) takes besides the weights."""
        return positions * self.spec.network.base * _ALIVE * dtype.itemsize

    def velocity(
        self, x: Tensor, t: float | Tensor, guide: Tensor, kind: str = "latent", alpha_bar: float | None = None
    ) -> Tensor:
        """v(x, t, guide) in x's type: x, guide (B,C,h,w) scaled latents, t a time in [0,1] or one an item (B,).

        kind: what the guide was made from, one of `GUIDE_KINDS`; alpha_bar: the signal kept in the start (default: the
        model's). Networks that cannot be told ignore them.
        """
        count, config = (x.shape[0],), self.spec.network
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).expand(count)
        kinds = torch.full(count, GUIDE_KINDS.index(kind), device=self.device) if config.classes else None
        level = math.sqrt(1 - (self.spec.alpha_bar if alpha_bar is None else alpha_bar))
        levels = torch.full(count, level, device=self.device) if config.noise_level else None
        state, guide = x.to(self.device, self.dtype), guide.to(self.device, self.dtype)
        return self.network(state, times, guide, kinds, levels).to(x)
