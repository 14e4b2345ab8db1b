"""The file of results: settings, figures by method and photograph, and what was skipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, reason
from .output import make_folder, write_json
from .summary import common_photos

FILE = "results.json"
_PARTS = ("settings", "weights", "methods", "skipped", "sets")


class Results:
    """FOLDER/results.json, which an interrupted run is continued from.

    methods: method -> photograph -> figure -> value; skipped: photograph -> why; sets: method -> figures of all its
    images together, such as FID; weights: model -> digest, so that other weights of the same name are refused.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Read the file if there is one. Raises `ConfigError` where it is damaged or has other settings."""
        self.path = folder / FILE
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as it comes back from the file
        self.weights: dict[str, str] = {}
        self.methods: dict[str, dict[str, dict[str, float]]] = {}
        self.skipped: dict[str, str] = {}
        self.sets: dict[str, dict[str, float]] = {}
        make_folder(folder)
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        data = read_json(self.path)
        _refuse_other_settings(self.path, data["settings"], self.settings)
        self.weights, self.methods = data["weights"], data["methods"]

    def save(self) -> None:
        write_json(self.path, {part: getattr(self, part) for part in _PARTS})

    def claim(self, model: str, digest: str) -> None:
        """Register a model's weights. Raises `ConfigError` where the results have others of this name."""
        if self.weights.setdefault(model, digest) != digest:
            raise ConfigError(
                f"{self.path} has figures of another model named {model}; rename one, or take another --out."
            )

    def has(self, method: str, photo: str) -> bool:
        return photo in self.methods.get(method, {})

    def add(self, photo: str, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Add a photograph's figures by method."""
        self.skipped.pop(photo, None)
        for method, values in figures.items():
            self.methods.setdefault(method, {})[photo] = dict(values)

    def photos(self) -> list[str]:
        """The photographs that every method has. Raises `ConfigError` where there are none."""
        found = common_photos(self.methods)
        if not found and self.skipped:
            raise ConfigError(f"No photograph could be evaluated: {next(iter(self.skipped.values()))}")
        if not found:
            raise ConfigError(f"{self.path} has no photograph that all its methods share; take another --out.")
        return found


def read_json(path: Path) -> dict[str, Any]:
    """The parts of a results file. Raises `ConfigError` where it is damaged or another file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({reason(error)}); move it away or take another --out.") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(part), dict) for part in _PARTS):
        raise ConfigError(f"{path} is no results file of FMBoost; move it away or take another --out.")
    if not all(_is_table(figures) for figures in data["methods"].values()):
        raise ConfigError(f"{path} has figures that are no numbers; move it away or take another --out.")
    return data


def _is_table(figures: Any) -> bool:
    """Whether this is `summary.PhotoFigures`."""
    return isinstance(figures, dict) and all(
        isinstance(values, dict) and all(isinstance(value, (int, float)) for value in values.values())
        for values in figures.values()
    )


def _refuse_other_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if names:
        differences = ", ".join(f"{name} {old.get(name)!r}, not {new.get(name)!r}" for name in names)
        raise ConfigError(f"{path} was made with {differences}; take another --out.")
