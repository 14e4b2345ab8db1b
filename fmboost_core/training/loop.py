"""One training loop: a loss and a batch function in, EMA weights out. It can be killed and resumed exactly.

Every random number of step k comes from generators seeded with (seed, k), so that a resumed run continues as
if it had never stopped; the checkpoint holds the network, its average, the optimiser and the step.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast. samples: trained on in all; decay: share of them over which the rate falls to zero.

    The rate rises over `warmup` steps, stays at `rate`, and falls linearly at the end, so that a running
    training can be given more samples before its decay begins (`resume` allows `samples` to differ).
    """

    samples: int
    batch: int = 16
    rate: float = 1e-3
    warmup: int = 500
    decay: float = 0.3
    weight_decay: float = 0.0
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    bf16: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, but it is {getattr(self, name)!r}.")
        for name in ("decay", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, but it is {getattr(self, name)!r}.")

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step counted from 0."""
        falling = max(1.0, self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / max(1, self.warmup), (self.steps - step) / falling)


Network = TypeVar("Network", bound=nn.Module)
LossFunction = Callable[[Callable[..., Any], int, torch.Generator], Tensor]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all randomness of one step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class Trainer(Generic[Network]):
    """Trains `network` on `loss(network, batch_size, generator)`; `average` holds the EMA weights."""

    def __init__(self, network: Network, loss: LossFunction, config: TrainConfig, device: str = "cpu") -> None:
        self.network: Network
        self.average: Network
        self.network, self.loss, self.config, self.device = network.to(device), loss, config, device
        self.average = deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.step = 0
        self._forward = torch.compile(self.network) if config.compile else self.network

    def train_step(self) -> float:
        """One optimiser step; the loss before it."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate_at(self.step)
        with torch.autocast(self.device, torch.bfloat16, enabled=config.bf16):
            loss = self.loss(self._forward, config.batch, step_generator(config.seed, self.step))
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average would remember the initial weights; (1 + k) / (10 + k) forgets them.
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for average, parameter in pairs:
            average.lerp_(parameter, 1 - keep)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, atomically."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration (only `samples` and `compile` may differ)."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path} cannot be resumed: it is damaged ({type(error).__name__}).") from error
        free = {"samples", "compile"}
        was, now = state["config"], asdict(self.config)
        changed = [k for k in now if k not in free and now[k] != was.get(k)]
        if changed:
            listed = ", ".join(f"{k} was {was.get(k)!r}, is {now[k]!r}" for k in changed)
            raise CheckpointError(f"{path} was trained with other settings ({listed}); start anew or set them back.")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def run(self, checkpoint: Path, every: float = 120.0) -> Iterator[tuple[int, float]]:
        """Train to the end, yielding (step, loss) after each step; saves every so many seconds and at the end."""
        saved = time.monotonic()
        with _saving_at_the_end(self, checkpoint):
            while self.step < self.config.steps:
                yield self.step, self.train_step()
                if time.monotonic() - saved > every:
                    self.save(checkpoint)
                    saved = time.monotonic()


@contextmanager
def _saving_at_the_end(trainer: Trainer[Network], checkpoint: Path) -> Iterator[None]:
    """Whatever ends the loop, an interrupt too, the work so far is kept."""
    try:
        yield
    finally:
        trainer.save(checkpoint)
