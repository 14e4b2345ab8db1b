"""The training loop: optimiser steps, EMA weights, checkpoints from which it resumes exactly.

Every random number of step k comes from a generator seeded with (seed, k), for the whole batch at once; processes and
the parts of an accumulated step divide that batch. So the training is the same in one process or many, whole or in
parts, killed or not. Processes and devices are Hugging Face Accelerate's.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from .graphs import RecordedGradients
from .recipe import Recipe
from .sections import LoopSection

# What may differ when a training resumes: its length, how its steps are computed, and what of the start the file keeps.
FREE = ("loop.samples", "loop.accumulate", "loop.checkpointing", "loop.compile", "loop.graphs", "start.kept")

Network = TypeVar("Network", bound=nn.Module)
Draw = Callable[[int, torch.Generator], Sequence[Tensor]]
Loss = Callable[..., Tensor]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of all random numbers of a step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def accelerator() -> Any:
    """Accelerate's `Accelerator`: this process's device, and the other processes of the launch."""
    try:
        from accelerate import Accelerator
        from accelerate.utils import GradientAccumulationPlugin
    except ImportError:
        raise MissingDependencyError(
            "Training needs Accelerate and TensorBoard: pip install accelerate tensorboard."
        ) from None
    # The recipe decides autocast and accumulation, whatever a launcher has set.
    return Accelerator(mixed_precision="no", gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1))


def placed(network: Network, device: torch.device) -> Network:
    """The network on the device, in the layout in which convolutions are fastest, on CPUs too."""
    moved: Any = network.to(device)
    return moved.to(memory_format=torch.channels_last)


def checkpoint_activations(network: nn.Module) -> None:
    """Activation checkpointing: recompute each block in the backward pass (Chen et al., arXiv 1604.06174)."""
    for name in ("input_blocks", "middle_block", "output_blocks"):
        blocks = getattr(getattr(network, "flow", network), name, None)
        if blocks is None:
            raise ConfigError("loop.checkpointing is for U-Nets; set it to false for this network.")
        for block in blocks if isinstance(blocks, nn.ModuleList) else [blocks]:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


class Trainer(Generic[Network]):
    """Trains `network` to minimise `loss(network, *draw(batch, generator))`; `average` holds the EMA weights."""

    def __init__(
        self, network: Network, draw: Draw, loss: Loss, loop: LoopSection, batch: int, *, facts: Mapping[str, Any],
        critics: nn.Module | None = None,
    ) -> None:  # fmt: skip
        """facts: all settings by name; a checkpoint resumes under the same ones alone (`FREE` may differ).

        critics: what else learns from the loss, at a rate of its own.
        """
        self.host = accelerator()
        self.network: Network = placed(network, self.host.device)
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
        self.critics = None if critics is None else critics.to(self.host.device)
        learned = [p for p in self.network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": learned, "betas": (loop.beta1, loop.beta2)}]
        if self.critics is not None:
            # At full rate from the first step on, while the network's still rises.
            betas = (loop.beta1, loop.beta2)
            groups.append({"params": list(self.critics.parameters()), "lr": loop.critics_rate, "betas": betas})
        # A fused step passes over the weights once instead of a dozen times: a tenth of a small batch's step.
        since = {"cuda": (2, 0), "cpu": (2, 4)}.get(self.host.device.type)
        fused = since is not None and tuple(map(int, torch.__version__.split(".")[:2])) >= since
        self.optimizer = torch.optim.AdamW(groups, loop.rate, weight_decay=loop.weight_decay, fused=fused)
        self._compute: Callable[[Sequence[Tensor]], Tensor] = self._compute_gradients
        if loop.graphs and self.host.device.type == "cuda":
            if self.host.num_processes > 1:
                raise ConfigError("loop.graphs is for one process; set it to false, or start one process alone.")
            self._compute = RecordedGradients(self._compute_gradients, [p for g in groups for p in g["params"]])
        self._drawer = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[Sequence[Tensor]]] | None = None  # a later step, and its examples
        self.step = 0
        self._whole = True  # False within a step, while weights and EMA weights differ in their step, and after a NaN
        prepared = self.host.prepare_model(self.network)
        self._forward = torch.compile(prepared) if loop.compile else prepared
        self._sync: Callable[[], Any] = partial(self.host.no_sync, prepared)

    @property
    def steps(self) -> int:
        return -(-self.loop.samples // self.batch)

    def train_step(self) -> float:
        """One optimiser step. Returns the loss of the whole batch before it; raises `NonFiniteError`."""
        loss = self._gradients()
        # An infinite limit clips nothing; the norm is needed in any case.
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.loop.clip or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._whole = False
            raise NonFiniteError(
                f"The loss became {loss} at step {self.step}, and its gradient's norm {norm}; the last checkpoint is "
                "kept. Try a lower loop.rate."
            )
        self.optimizer.param_groups[0]["lr"] = self.loop.rate_at(self.step, self.steps)
        self._whole = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_average()
        self.step += 1
        self._whole = True
        return loss

    def _gradients(self) -> float:
        """Compute the gradients of the mean loss over the whole batch; returns that loss."""
        loss = self._compute([x.to(self.host.device, non_blocking=True) for x in self._drawn()])
        if self.critics is not None and self.host.num_processes > 1:
            for parameter in self.critics.parameters():
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.host.reduce(own, "mean")
        return float(self.host.reduce(loss, "mean") if self.host.num_processes > 1 else loss)

    def _compute_gradients(self, batch: Sequence[Tensor]) -> Tensor:
        """Those of this process's parts of the batch, one after the other; returns their loss, a scalar."""
        first = self.host.process_index * self.loop.accumulate
        total = torch.zeros((), device=self.host.device)
        for i in range(self.loop.accumulate):
            examples = [x[first + i :: self.parts] for x in batch]
            last = i == self.loop.accumulate - 1
            with nullcontext() if last else self._sync():
                with torch.autocast(self.host.device.type, torch.bfloat16, enabled=self.loop.bf16):
                    loss = self.loss(self._forward, *examples) / self.loop.accumulate
                self.host.backward(loss)
            total += loss.detach()
        return total

    def _drawn(self) -> Sequence[Tensor]:
        """The examples of this step. While a device computes it, the CPU draws those of the next one."""
        if self.host.device.type == "cpu":
            return self._draw_step(self.step)
        step, drawn = self._ahead or (-1, None)
        if drawn is None or step != self.step:
            drawn = self._drawer.submit(self._draw_step, self.step)
        examples = drawn.result()
        self._ahead = self.step + 1, self._drawer.submit(self._draw_step, self.step + 1)
        return examples

    def _draw_step(self, step: int) -> Sequence[Tensor]:
        return self.draw(self.batch, step_generator(self.loop.seed, step))

    @torch.no_grad()
    def _update_average(self) -> None:
        # With ema alone the initial weights would stay for long; (1 + k) / (10 + k) forgets them early.
        keep = min(self.loop.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - keep)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        if not self.host.is_main_process:
            return
        state = {
            "facts": self.facts, "step": self.step, "network": self.network.state_dict(),
            "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        if self.critics is not None:
            state["critics"] = self.critics.state_dict()
        with replacing(path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # what torch says of a full disk
                raise OSError(reason(error)) from None

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint of the same settings; `CheckpointError` names those that differ."""
        try:
            state = torch.load(path, map_location=self.host.device, weights_only=True)
            was, step = dict(state["facts"]), int(state["step"])
        except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{path} cannot be resumed: it is damaged or foreign ({type(error).__name__}); delete it to start anew."
            ) from error
        # A setting that an older version did not have was at its default.
        was, now = {**Recipe().flat(), **was}, {**Recipe().flat(), **self.facts}
        changed = [k for k in {**was, **now} if k not in FREE and was.get(k) != now.get(k)]
        if changed:
            listed = ", ".join(f"{k} was {was.get(k)!r}, is {now.get(k)!r}" for k in changed)
            raise CheckpointError(f"{path} was trained with other settings ({listed}); set them back or delete it.")
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
        except (RuntimeError, LookupError) as error:
            raise CheckpointError(
                f"{path} is of another network, such as an older version's; delete it to start anew."
            ) from error
        if self.critics is not None:
            self.critics.load_state_dict(state["critics"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self._whole = step, True

    def run(self, path: Path, every: float = 120.0) -> Iterator[tuple[int, float]]:
        """Train to the end and yield (step, loss) after each step; saves every so many seconds and at the end."""
        saved = time.monotonic()
        with self._saving_at_the_end(path):
            while self.step < self.steps:
                yield self.step, self.train_step()
                if time.monotonic() - saved > every:
                    self.save(path)
                    saved = time.monotonic()

    @contextmanager
    def _saving_at_the_end(self, path: Path) -> Iterator[None]:
        """Save a checkpoint when the body ends, by an error or an interrupt too, unless within a step."""
        try:
            yield
        finally:
            if self._whole:
                self.save(path)
