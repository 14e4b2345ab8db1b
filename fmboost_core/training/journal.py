"""The journal of a training: losses, speed and validation images as CSV and for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import FileError, MissingDependencyError, reason
from ..files.atomic import replacing

COLUMNS = ("step", "samples", "loss", "rate", "samples_per_second", "validation_loss")


class Journal:
    """Appends to OUT.csv and OUT.tensorboard/. Rows that a killed run wrote after its last checkpoint are dropped."""

    def __init__(self, out: Path, step: int) -> None:
        """step: where the training continues; rows from there on are dropped."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingDependencyError("The journal needs TensorBoard: pip install tensorboard.") from None
        self.path = out.with_suffix(".csv")
        rows = [row for row in _rows(self.path) if int(row["step"]) < step]
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        self.board = SummaryWriter(str(out.with_suffix(".tensorboard")), purge_step=step)

    def note(self, values: Mapping[str, float], parts: Mapping[str, float] | None = None) -> None:
        """Add a row. values: by names of `COLUMNS`, of which step is required.

        parts: of the loss, by name, for TensorBoard alone.
        """
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow({name: f"{value:.10g}" for name, value in values.items()})
        except OSError as error:
            raise FileError(
                f"{self.path} cannot be written ({reason(error)}); make room there, or choose another place."
            ) from None
        for name, value in {**values, **(parts or {})}.items():
            if name not in ("step", "samples"):
                self.board.add_scalar(name, value, int(values["step"]))

    def image(self, name: str, image: Tensor, step: int) -> None:
        """Add an image (3,H,W) in [-1,1] to TensorBoard's."""
        self.board.add_image(name, (image.clamp(-1, 1) + 1) / 2, step)

    def close(self) -> None:
        self.board.close()


def _rows(path: Path) -> list[dict[str, str]]:
    """The complete rows of an earlier run."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", "replace").replace("\0", "")  # a power cut leaves zeros
    return [row for row in csv.DictReader(text.splitlines()) if _is_complete(row)]


def _is_complete(row: Mapping[str, str | None]) -> bool:
    return set(row) == set(COLUMNS) and None not in row.values() and str(row["step"]).isdecimal()
