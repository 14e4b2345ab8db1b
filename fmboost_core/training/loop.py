"""One training loop: what to draw and its loss in, EMA weights out. It can be killed at any moment and goes on exactly.

Every random number of step k comes from a generator seeded with (seed, k), for the whole batch at once: processes and
the parts of an accumulated step share that batch out. So one process or many, whole or in parts, killed or not, it is
the same training. Processes and devices are Hugging Face Accelerate's.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import CheckpointError, ConfigError, MissingDependencyError, NonFiniteError, reason
from ..files.atomic import replacing
from .recipe import Loop, Recipe

# What may differ when a training goes on: how long it is to be, and how its steps are computed.
FREE = ("loop.samples", "loop.accumulate", "loop.checkpointing", "loop.compile")

Network = TypeVar("Network", bound=nn.Module)
Draw = Callable[[int, torch.Generator], Sequence[Tensor]]
Loss = Callable[..., Tensor]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all randomness of one step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def accelerator() -> Any:
    """Accelerate's view of this process: its device, and the others of the same launch."""
    try:
        from accelerate import Accelerator
        from accelerate.utils import GradientAccumulationPlugin
    except ImportError:
        raise MissingDependencyError("Training needs Accelerate and more: pip install 'fmboost[training]'.") from None
    # The loop's own autocast and accumulation are the recipe's, whatever a launcher has set.
    return Accelerator(mixed_precision="no", gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1))


def freeze(network: nn.Module, beginnings: Sequence[str]) -> None:
    """Keep the parameters whose names begin so as they are. Raises `ConfigError` for a beginning of none."""
    for beginning in beginnings:
        found = [p for name, p in network.named_parameters() if name.startswith(beginning)]
        if not found:
            parts = ", ".join(name for name, _ in network.named_children())
            raise ConfigError(f"start.frozen: no parameter's name begins with {beginning!r}; the parts are {parts}.")
        for parameter in found:
            parameter.requires_grad_(False)


def checkpoint_activations(network: nn.Module) -> None:
    """Compute the inside of each block again on the way back instead of keeping it (Chen et al., arXiv 1604.06174)."""
    for name in ("input_blocks", "middle_block", "output_blocks"):
        blocks = getattr(network, name, None)
        if blocks is None:
            raise ConfigError("loop.checkpointing is for flows; of this network, set it to false.")
        for block in blocks if isinstance(blocks, nn.ModuleList) else [blocks]:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


class Trainer(Generic[Network]):
    """Trains `network` on `loss(network, *draw(batch, generator))`; `average` holds the EMA weights."""

    def __init__(
        self, network: Network, draw: Draw, loss: Loss, loop: Loop, batch: int, *, facts: Mapping[str, Any]
    ) -> None:
        """facts: all settings by name; a checkpoint is only continued under the same ones (`FREE` may differ)."""
        self.host = accelerator()
        self.network: Network = network.to(self.host.device)
        self.average: Network = deepcopy(self.network).requires_grad_(False)
        self.draw, self.loss, self.loop, self.batch, self.facts = draw, loss, loop, batch, dict(facts)
        self.parts = self.host.num_processes * loop.accumulate
        if batch % self.parts:
            raise ConfigError(
                f"data.batch must be a multiple of {self.parts}, {self.host.num_processes} processes times "
                f"loop.accumulate = {loop.accumulate}, but it is {batch}."
            )
        if loop.checkpointing:
            checkpoint_activations(self.network)
        learned = [p for p in self.network.parameters() if p.requires_grad]
        betas = (0.9, loop.beta2)
        # One pass over the weights instead of a dozen: of a small batch's step that is a tenth.
        since = {"cuda": (2, 0), "cpu": (2, 4)}.get(self.host.device.type)
        fused = since is not None and tuple(map(int, torch.__version__.split(".")[:2])) >= since
        self.optimizer = torch.optim.AdamW(learned, loop.rate, betas=betas, weight_decay=loop.weight_decay, fused=fused)
        self.step = 0
        self._whole = True  # False inside of a step, where weights and average do not fit, and after a NaN
        prepared = self.host.prepare_model(self.network)
        self._forward = torch.compile(prepared) if loop.compile else prepared
        self._sync: Callable[[], Any] = partial(self.host.no_sync, prepared)

    @property
    def steps(self) -> int:
        return -(-self.loop.samples // self.batch)

    def train_step(self) -> float:
        """One optimiser step; the loss before it, of the whole batch."""
        loss = self._gradients()
        # Without a limit, an infinite one changes nothing; the norm is needed in any case.
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.loop.clip or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._whole = False
            raise NonFiniteError(
                f"The loss became {loss} at step {self.step}, and its gradient's norm {norm}; the last checkpoint is "
                "kept. Try a lower loop.rate."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.loop.rate_at(self.step, self.steps)
        self._whole = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1
        self._whole = True
        return loss

    def _gradients(self) -> float:
        """The gradients of the mean loss over the whole batch; that loss."""
        drawn = self.draw(self.batch, step_generator(self.loop.seed, self.step))
        first = self.host.process_index * self.loop.accumulate
        total = torch.zeros((), device=self.host.device)
        for i in range(self.loop.accumulate):
            examples = [x[first + i :: self.parts].to(self.host.device, non_blocking=True) for x in drawn]
            last = i == self.loop.accumulate - 1
            with nullcontext() if last else self._sync():
                with torch.autocast(self.host.device.type, torch.bfloat16, enabled=self.loop.bf16):
                    loss = self.loss(self._forward, *examples) / self.loop.accumulate
                self.host.backward(loss)
            total += loss.detach()
        return float(self.host.reduce(total, "mean") if self.host.num_processes > 1 else total)

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average would remember the initial weights; (1 + k) / (10 + k) forgets them.
        keep = min(self.loop.ema, (1 + self.step) / (10 + self.step))
        for average, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.lerp_(parameter, 1 - keep)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, whole or not at all."""
        if not self.host.is_main_process:
            return
        state = {
            "facts": self.facts, "step": self.step, "network": self.network.state_dict(),
            "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        with replacing(path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # what torch says of a full disk
                raise OSError(reason(error)) from None

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings; `CheckpointError` names those that differ."""
        try:
            state = torch.load(path, map_location=self.host.device, weights_only=True)
            was, step = dict(state["facts"]), int(state["step"])
        except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{path} cannot be resumed: it is damaged or foreign ({type(error).__name__}); delete it to start anew."
            ) from error
        # What an older version did not write down is as it was: the default.
        was, now = {**Recipe().flat(), **was}, {**Recipe().flat(), **self.facts}
        changed = [k for k in {**was, **now} if k not in FREE and was.get(k) != now.get(k)]
        if changed:
            listed = ", ".join(f"{k} was {was.get(k)!r}, is {now.get(k)!r}" for k in changed)
            raise CheckpointError(f"{path} was trained with other settings ({listed}); set them back or delete it.")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self._whole = step, True

    def run(self, path: Path, every: float = 120.0) -> Iterator[tuple[int, float]]:
        """Train to the end, yielding (step, loss) after each step; saves every so many seconds and at the end."""
        saved = time.monotonic()
        with self._saving_at_the_end(path):
            while self.step < self.steps:
                yield self.step, self.train_step()
                if time.monotonic() - saved > every:
                    self.save(path)
                    saved = time.monotonic()

    @contextmanager
    def _saving_at_the_end(self, path: Path) -> Iterator[None]:
        """Whatever ends the loop between two steps, an interrupt too, the work so far is kept."""
        try:
            yield
        finally:
            if self._whole:
                self.save(path)
