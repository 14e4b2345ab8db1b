"""What a run has found so far, in a file that the next run goes on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ConfigError, ImageError, reason
from .report import Rows, common_photos, write_json

FILE = "results.json"
_PARTS = ("settings", "weights", "methods", "skipped", "sets")


class Results:
    """OUT/results.json: the settings, each method's figures for each photograph, and what was skipped and why.

    sets: figures of a method's pictures together, such as FID. weights: of each model a digest, so that rows of
    other weights under the same name are not taken for theirs.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Read what is there. Raises `ConfigError` for a damaged file, or one that was made with other settings."""
        self.path = folder / FILE
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as it comes back from the file
        self.weights: dict[str, str] = {}
        self.methods: dict[str, dict[str, dict[str, float]]] = {}
        self.skipped: dict[str, str] = {}
        self.sets: dict[str, dict[str, float]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The folder {folder} cannot be made ({error.strerror}).") from None
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        data = read_json(self.path)
        _refuse_other_settings(self.path, data["settings"], self.settings)
        self.weights, self.methods = data["weights"], data["methods"]

    def save(self) -> None:
        write_json(self.path, {part: getattr(self, part) for part in _PARTS})

    def claim(self, model: str, digest: str) -> None:
        """Refuse rows of other weights under the model's name."""
        if self.weights.setdefault(model, digest) != digest:
            raise ConfigError(
                f"{self.path} has rows of another model named {model}; rename one, or take another --out."
            )

    def has(self, method: str, photo: str) -> bool:
        return photo in self.methods.get(method, {})

    def add(self, photo: str, rows: Rows) -> None:
        """A photograph's figures by method."""
        self.skipped.pop(photo, None)
        for method, row in rows.items():
            self.methods.setdefault(method, {})[photo] = dict(row)

    def photos(self) -> list[str]:
        """Those that every method has. Raises `ConfigError` where there are none."""
        found = common_photos(self.methods)
        if not found and self.skipped:
            raise ConfigError(f"No photograph could be judged: {next(iter(self.skipped.values()))}")
        if not found:
            raise ConfigError(f"{self.path} has no photograph that all its methods were judged on; take another --out.")
        return found


def read_json(path: Path) -> dict[str, Any]:
    """The parts of a results file. Raises `ConfigError` where it is damaged or another file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({reason(error)}); move it away or take another --out.") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(part), dict) for part in _PARTS):
        raise ConfigError(f"{path} is no results file of FMBoost; move it away or take another --out.")
    if not all(_is_table(rows) for rows in data["methods"].values()):
        raise ConfigError(f"{path} has rows that are no numbers; move it away or take another --out.")
    return data


def _is_table(rows: Any) -> bool:
    return isinstance(rows, dict) and all(
        isinstance(row, dict) and all(isinstance(value, (int, float)) for value in row.values())
        for row in rows.values()
    )


def _refuse_other_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if names:
        differences = ", ".join(f"{name} {old.get(name)!r}, not {new.get(name)!r}" for name in names)
        raise ConfigError(f"{path} was made with {differences}; take another --out.")


def digest(network: nn.Module) -> str:
    """A short name for a network's weights."""
    summary = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        summary.update(name.encode() + tensor.cpu().numpy().tobytes())
    return summary.hexdigest()[:16]


def photo_names(found: Mapping[Path, Path]) -> dict[str, Path]:
    """Each photograph's name in the results, its path within the place it was found in: path -> place to name -> path.

    Raises `ImageError` where two photographs would have one name.
    """
    names: dict[str, Path] = {}
    for path, place in found.items():
        name = path.relative_to(place).as_posix() if path != place else path.name
        if names.setdefault(name, path) != path:
            raise ImageError(f"{names[name]} and {path} would both be called {name} in the results; judge them apart.")
    return names
