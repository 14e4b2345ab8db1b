"""A training from where it stands to its end: progress on the terminal, the journal, validation, checkpoints."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from .journal import Journal
from .loop import Trainer

REPORT_SECONDS = 10.0
Look = Callable[[nn.Module], tuple[float, Tensor | None]]  # EMA weights -> validation loss, and a picture if there is


def run_to_end(trainer: Trainer[Any], out: Path, look: Look | None = None, look_seconds: float = 600.0) -> None:
    """Train to the end with a line of progress and a row of the journal every few seconds; an earlier run goes on.

    look: how the training is doing, asked every so many seconds and at the end (`validate.Validation.look`).
    """
    checkpoint, main = out.with_suffix(".training"), trainer.host.is_main_process
    if out.suffix != ".safetensors":
        raise ConfigError(f"A model file's name ends in .safetensors, but {out} does not.")
    if checkpoint.exists():
        trainer.resume(checkpoint)
    journal = Journal(out, trainer.step) if main else None
    first, started = trainer.step, time.monotonic()
    told = looked = started
    losses: deque[float] = deque(maxlen=500)
    try:
        for step, loss in trainer.run(checkpoint):
            losses.append(loss)
            now, last = time.monotonic(), step + 1 == trainer.steps
            if journal is None or not (last or now - told > REPORT_SECONDS):
                continue
            told = now
            row = {
                "step": step, "samples": (step + 1) * trainer.batch, "loss": sum(losses) / len(losses),
                "rate": trainer.loop.rate_at(step, trainer.steps),
                "samples_per_second": (step + 1 - first) * trainer.batch / (now - started),
            }  # fmt: skip
            if look is not None and (last or now - looked > look_seconds):
                row["validation_loss"], picture = look(trainer.average)
                if picture is not None:
                    journal.picture("validation", picture, step)
                looked = time.monotonic()
            journal.note(row)
            _tell(row, trainer.steps * trainer.batch)
    finally:
        if journal is not None:
            journal.close()


def _tell(row: dict[str, float], samples: int) -> None:
    left = (samples - row["samples"]) / row["samples_per_second"]
    words = f"{row['samples']}/{samples} samples, loss {row['loss']:.4f}"
    if "validation_loss" in row:
        words += f", validation {row['validation_loss']:.4f}"
    print(f"{words}, {row['samples_per_second']:.0f} samples/s, {left / 60:.0f} min left", file=sys.stderr, flush=True)
