"""A model: a velocity network with its specification."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .errors import ConfigError
from .fallback import move, with_fallback
from .families import Party
from .networks.conditioning import GUIDE_KINDS, Conditioning, class_of
from .networks.guide import GuideNetwork
from .spec import ModelSpec


class Model:
    """A velocity network with its specification, and the guide network of one with fast guides, in inference mode."""

    def __init__(self, spec: ModelSpec, network: nn.Module, guide: GuideNetwork | None = None) -> None:
        self.spec, self.network = spec, network.eval().requires_grad_(False)
        self.guide = None if guide is None else guide.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def party(self) -> Party:
        """This model as an argument of `require_same_family`."""
        return Party(f"the model {self.spec.name}", self.spec.family, self.spec.network.channels)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Model:
        """Move the networks in place, in float32 where the device lacks the type; returns self."""
        for network in filter(None, (self.network, self.guide)):
            move(network, device, dtype)
        return self

    def working_memory(self, positions: int, dtype: torch.dtype) -> int:
        """About how many bytes an evaluation over B*h*w positions takes besides the weights."""
        return positions * self.spec.network.values_per_position * dtype.itemsize

    def conditioning(self, guide: Tensor, kind: str = "latent", alpha_bar: float | None = None) -> Conditioning:
        """What the network is conditioned on: guide (B,C,h,w) scaled, and what its configuration asks for besides.

        kind: what the guide was made from, one of `GUIDE_KINDS`. alpha_bar: the signal kept in the start, 0 to 1;
        None: the specification's.
        """
        if kind not in GUIDE_KINDS:
            raise ConfigError(f"kind must be one of {', '.join(GUIDE_KINDS)}, but it is {kind!r}.")
        if alpha_bar is not None and not 0 <= alpha_bar <= 1:
            raise ConfigError(f"alpha_bar must be from 0 to 1, but it is {alpha_bar!r}.")
        count, config = (guide.shape[0],), self.spec.network
        kinds = torch.full(count, class_of(kind, config.classes), device=self.device) if config.classes else None
        level = math.sqrt(1 - (self.spec.alpha_bar if alpha_bar is None else alpha_bar))
        levels = torch.full(count, level, device=self.device) if config.noise_level else None
        return Conditioning(guide, kinds, levels)

    def velocity(self, x: Tensor, t: float | Tensor, conditioning: Conditioning) -> Tensor:
        """v(x, t, conditioning) in x's type: x (B,C,h,w) scaled, t a time in [0,1] or one per item (B,)."""
        return with_fallback("the network", lambda x: self._evaluate(x, t, conditioning), x, module=self.network)

    def _evaluate(self, x: Tensor, t: float | Tensor, conditioning: Conditioning) -> Tensor:
        """`velocity` where the network is."""
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).expand(x.shape[0])
        state, guide = (latent.to(self.device, self.dtype) for latent in (x, conditioning.guide))
        kind, level = (None if v is None else v.to(self.device) for v in (conditioning.kind, conditioning.noise_level))
        velocity: Tensor = self.network(state, times, Conditioning(guide, kind, level))
        return velocity.to(x)
