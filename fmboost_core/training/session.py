"""A training session: resumes a training, runs it to its end, reports, validates, keeps checkpoints."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..files.walk import is_text
from .journal import Journal
from .loop import Trainer
from .progress import ProgressLog

# EMA weights -> validation loss, and an image (3,H,W) or None (`validate.Validation`).
Validate = Callable[[nn.Module], tuple[float, Tensor | None]]


def run_to_end(
    trainer: Trainer[Any], out: Path, validate: Validate | None = None, validate_seconds: float = 600.0,
    parts: Callable[[], Mapping[str, float]] = dict,
) -> None:  # fmt: skip
    """Train to the end, with a line of progress and a row of the journal every few seconds.

    out: the model file to be; beside it are the checkpoint (.training), from which an earlier run continues, and the
    journal. validate: called every `validate_seconds`, and at the end. parts: of the last loss, to show by name.
    """
    checkpoint, main = out.with_suffix(".training"), trainer.host.is_main_process
    if out.suffix != ".safetensors":
        raise ConfigError(f"A model file's name ends in .safetensors, but {out} does not.")
    if not is_text(out.absolute()):  # TensorBoard encodes it
        raise ConfigError(f"{out} has a name that is no UTF-8, in which no journal can be written; choose another one.")
    if checkpoint.exists():
        trainer.resume(checkpoint)
        if trainer.step >= trainer.steps:
            _say_finished(trainer, checkpoint)
    journal = Journal(out, trainer.step) if main else None
    progress = ProgressLog("samples", trainer.step * trainer.batch)
    validated = time.monotonic()
    losses: deque[float] = deque(maxlen=500)
    try:
        for step, loss in trainer.run(checkpoint):
            losses.append(loss)
            last, samples = step + 1 == trainer.steps, (step + 1) * trainer.batch
            if journal is None or not (last or progress.due):
                continue
            row = {
                "step": step, "samples": samples, "loss": sum(losses) / len(losses),
                "rate": trainer.loop.rate_at(step, trainer.steps), "samples_per_second": progress.rate(samples),
            }  # fmt: skip
            if validate is not None and (last or time.monotonic() - validated > validate_seconds):
                row["validation_loss"], image = validate(trainer.average)
                if image is not None:
                    journal.image("validation", image, step)
                validated = time.monotonic()
            journal.note(row, parts())
            progress.write(samples, trainer.steps * trainer.batch, _details(row, parts()))
    finally:
        if journal is not None:
            journal.close()


def _say_finished(trainer: Trainer[Any], checkpoint: Path) -> None:
    if trainer.host.is_main_process:
        print(
            f"This training is finished: {trainer.step * trainer.batch} samples. To train on, raise loop.samples; to "
            f"start anew, delete {checkpoint}.",
            file=sys.stderr,
        )


def _details(row: dict[str, float], parts: Mapping[str, float]) -> str:
    validation = f", validation {row['validation_loss']:.4f}" if "validation_loss" in row else ""
    further = "".join(f", {name} {value:.3f}" for name, value in parts.items())
    return f", loss {row['loss']:.4f}{validation}{further}, {row['samples_per_second']:.1f} samples/s"
